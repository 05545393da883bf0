"""What the tests of files' readers share."""

from collections.abc import Callable

from rlm_runtime.readers import Read

Reader = Callable[..., Read]
"""Reads bytes as a file of a name, with so many bytes of `room`."""
