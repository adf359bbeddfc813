"""Memory on the CPU: keep what tensors free, in large pages, but not too much of it."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

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


def return_freed_memory() -> bool:
    """Give what is free back to the system; False where there was nothing, or no glibc to ask."""
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).malloc_trim(0))


class _MallInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),  # in use, fetched from the kernel one by one
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),  # in use, of the heap
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


class HeldMemory:
    """Returns free memory to the system when much more is held than steps have in use.

    The steps of bucketed training differ in size, and what stays between them (kernels of new
    shapes, records of the run) comes to lie between their tensors: freed memory is broken up, the
    next larger step takes new one, and what a process holds grows for hundreds of steps.
    Returning it costs the time to fetch it again, about a second for 4 GiB.
    """

    SHARE = 2.0
    """So many times what was ever in use may be held,"""
    ALLOWANCE = 2**30
    """and so many bytes more: programs and libraries, and what is not worth the time."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.mallinfo2.restype = _MallInfo
        self._in_use = 0

    @staticmethod
    def is_known() -> bool:
        """Does this machine tell? On Linux, glibc 2.33 and later do."""
        return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")

    def note(self) -> None:
        """To be called where most is in use."""
        info = self._libc.mallinfo2()
        self._in_use = max(self._in_use, info.uordblks + info.hblkhd)

    def release(self) -> bool:
        """Return what is free, if too much is held; whether that was so.

        To be called where least is in use.
        """
        if self.held() <= self.SHARE * self._in_use + self.ALLOWANCE:
            return False
        return return_freed_memory()

    @staticmethod
    def held() -> int:
        """Resident bytes of this process."""
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
