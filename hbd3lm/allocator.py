"""Memory of tensors on the CPU: keep what is freed, in large pages."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process reuse the memory it frees instead of returning it to the system.

    By default glibc fetches every large tensor from the kernel and gives it back at once, so each
    step touches, and has the kernel zero, all its memory again, page by page. Kept, it is touched
    once, in pages of 2 MB where the kernel has them. The process then holds its peak until it
    ends. Call it before the first tensor is made: torch reads its variable only once.

    Returns:
        whether there was anything to set (glibc; other C libraries are left alone).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
