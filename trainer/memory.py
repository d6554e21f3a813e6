"""Memory that a training process keeps, in place of asking the kernel for it at every step.

In: nothing. Out: nothing; a setting of this process. No errors: where the C library is not glibc
nothing changes, and results never do.

A step allocates and frees hundreds of MB in large blocks. By default glibc maps each of them anew
and hands it back once it is free, and the kernel fills its pages with zeros every time, which takes
a good part of a step on a CPU (docs/how-to/train.md).
"""

import ctypes

# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_NEVER = -1
_PAD_BYTES = 256 * 2**20


def keep_memory() -> None:
    """Freed blocks stay with the process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_MAX, 0)  # no block is a mapping of its own
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    mallopt(_M_TOP_PAD, _PAD_BYTES)
