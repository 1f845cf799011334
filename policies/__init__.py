"""Policies: one folder or file per family; none of them knows a suite."""
