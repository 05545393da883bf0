"""A trace's code on another input, without the root model as long as it holds: `rlm apply`."""
