"""One training loop for every family: demonstrations -> batches -> loss -> checkpoint.

`sampling` makes batches, `augmentation` moves their pictures, `features` computes once what
frozen parts would compute every step, `loop` steps the optimizer, `state` lets a killed
training go on with the same bytes, `trainable` says what a model must have.
"""
