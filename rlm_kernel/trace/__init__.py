"""The notebook of a run: written while it goes on, read, and compared."""
