"""LIBERO: genuine tasks, initial states, goals and resets on the native runtime."""

from envs.libero.suite import suite

__all__ = ["suite"]
