"""How the time of a function grows with its input, on a machine that may be busy with other work."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

FACTOR = 8  # between the two inputs
MOST = 3 * FACTOR  # a quadratic function takes `FACTOR**2`
_LEAST_S = 1e-3  # a shorter time says nothing


def grows_linearly(act: Callable[[_T], object], make: Callable[[int], _T], size: int) -> bool:
    """Return whether an input `FACTOR` times as large as one of `size` takes at most `MOST` times as long.

    It is the thread's own time on the processor, without that of other threads and processes; the least of three.
    """
    small, large = (_least_s(act, make(each)) for each in (size, FACTOR * size))
    return large <= MOST * max(small, _LEAST_S)


def _least_s(act: Callable[[_T], object], value: _T) -> float:
    times = list[float]()
    for _ in range(3):
        began_s = time.thread_time()
        act(value)
        times.append(time.thread_time() - began_s)
    return min(times)
