"""Checks of worker.py that need a GPU."""
