"""Measures how the work of a function grows with its input."""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

Input = TypeVar("Input")

TIMES = 10  # how much larger the larger input is
LIMIT = 40.0  # linear work stays under this, even where the larger input leaves the caches; the square of 10 is 100
_LEAST = 0.005  # seconds of CPU that the smaller input must take: below it, the clock says little
_DOUBLINGS = 7  # at most, for work that takes no longer with more (it is capped), or hardly any time
_TRIES = 12


def growth(make: Callable[[int], Input], work: Callable[[Input], object], size: int) -> float:
    """How many times longer `work` takes for an input of ten times the size.

    Args:
        make: Makes the input of a size. Its time does not count. It is called anew for each measure,
            so that what an input keeps of an earlier look does not count either.
        work: What is measured, in seconds of this process's CPU, so that other processes do not count.
        size: Where the smaller size begins. It is doubled until the work takes long enough to be measured,
            seven times at most.

    Returns:
        The ratio of the best of twelve measures each. A ratio under the limit ends the tries early. No larger
            input is tried, so that a test of what does grow takes neither minutes nor gigabytes.
    """
    small = _seconds(make(size), work)
    for _ in range(_DOUBLINGS):
        if small >= _LEAST:
            break
        size *= 2
        small = _seconds(make(size), work)
    large = _seconds(make(size * TIMES), work)
    for _ in range(_TRIES - 1):
        if large <= LIMIT * small:
            return large / small
        small = min(small, _seconds(make(size), work))
        large = min(large, _seconds(make(size * TIMES), work))
    return large / small


def _seconds(given: Input, work: Callable[[Input], object]) -> float:
    gc.disable()  # and no collection before: that of all that other tests have left takes a second
    try:
        begun = time.process_time()
        work(given)
        return time.process_time() - begun
    finally:
        gc.enable()
