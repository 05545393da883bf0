"""Runs and sessions, put together of the rooms below; the Python interface."""
