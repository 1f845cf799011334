"""The oracle for scenes with two arms."""
