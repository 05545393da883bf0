"""The conversation of a run: turns, cells, host calls, and the account of what was spent."""
