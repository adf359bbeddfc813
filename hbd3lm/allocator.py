"""Memory on the CPU: keep what tensors free, in large pages, and few kernels."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_LARGEST = 2**31 - 1
"""-1, which is said to turn trimming off, had the same memory fetched anew in most processes."""


def keep_freed_memory() -> bool:
    """Let this process reuse the memory it frees instead of returning it to the system.

    By default glibc fetches every large tensor from the kernel and gives it back at once, so each
    step touches, and has the kernel zero, all its memory again, page by page. Kept, it is touched
    once, in pages of 2 MB where the kernel has them. The process then holds its peak until it
    ends. What must not be kept are oneDNN's kernels for shapes that will not come again (1,024 by
    default): they lie between the tensors and break up the memory.

    Call it before the first tensor is made: torch and oneDNN read their variables only once.

    Returns:
        whether there was anything to set (glibc; other C libraries are left alone).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, _LARGEST))
