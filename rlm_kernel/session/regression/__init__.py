"""Traces as a test suite: their questions asked again, and the answers compared: `rlm test`."""
