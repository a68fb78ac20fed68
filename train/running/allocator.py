"""Memory that stays: large tensors on a CPU without fresh pages for each.

glibc takes the memory of every large tensor from the system and gives it back when the tensor is freed, so each of a
step's hundreds of tensors begins with pages that the system must clear: a tenth to a quarter of a training step of
`sonata-tiny`. `keep_pages` tells glibc to keep them. What a process needed once it then holds until it ends; peak
memory stays the same.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # the names' numbers in malloc.h
_NEVER = (1 << 31) - 1


def keep_pages() -> bool:
    """Keep freed memory in this process from now on; False where the C library has no such setting."""
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(set_option(_MMAP_MAX, 0)) and bool(set_option(_TRIM_THRESHOLD, _NEVER))
