"""Published demonstrations, read from files of others and written as ours.

`hdf5` reads LIBERO's HDF5, `lerobot` reads LeRobotDataset v3.0 folders; `envs.demonstrations`
tells which a source is.
"""
