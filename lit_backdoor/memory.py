"""Memory of a process that trains on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_memory"]

_MMAP_MAX, _TOP_PAD, _TRIM_THRESHOLD = -4, -2, -1  # numbers of mallopt's parameters in malloc.h
_MOST = 2**31 - 1
_PAD = 2**26


def keep_memory() -> bool:
    """Let glibc keep what this process frees, instead of returning it to the system and asking for it again.

    A training step frees and takes large tensors over and over, and each time pays for their page faults
    (``tests/benchmarks/bench_memory.py`` measures it). The process stays as large as it ever was. Settings of malloc in
    the environment (``MALLOC_…_``, ``GLIBC_TUNABLES``) come first.

    Returns:
        Whether it is done: the libc is glibc, and the environment says nothing.
    """
    told = any((name.startswith("MALLOC_") and name.endswith("_")) or name == "GLIBC_TUNABLES" for name in os.environ)
    if told or not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    taken = [libc.mallopt(*each) for each in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, _PAD))]
    return taken == [1, 1, 1]
