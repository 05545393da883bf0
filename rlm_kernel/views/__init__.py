"""Views of a run in progress: listeners (`engine.events`) that show it to people or tell it to programs."""
