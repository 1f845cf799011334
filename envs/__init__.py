"""Simulators: scenes, the one stepping runtime, and the suites built on it."""
