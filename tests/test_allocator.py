"""Freed memory stays with the process, which is what makes the next step quick."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from hbd3lm.allocator import HeldMemory

MEASURE = """
import resource, sys
from hbd3lm.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import torch
torch.set_num_threads(1)
def touch():
    return torch.ones(16 << 20)  # 64 MB
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(("given", "kept"), [(None, "256"), ("7", "7")])
def test_few_kernels_are_kept_unless_the_user_says_how_many(monkeypatch, given, kept):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    if given is not None:
        monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", given)
    code = "import os; from hbd3lm.allocator import keep_freed_memory; keep_freed_memory(); "
    code += "print(os.environ.get('ONEDNN_PRIMITIVE_CACHE_CAPACITY'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (kept if platform.libc_ver()[0] == "glibc" else str(given))


def page_faults(how: str) -> int:
    # What another test of this process has set would reach the child, too.
    env = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, how], env=env, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_kept_memory_is_not_fetched_from_the_kernel_again():
    assert page_faults("keep") * 10 < page_faults("default")


RELEASE = """
from hbd3lm.allocator import HeldMemory, keep_freed_memory
keep_freed_memory()
import torch
memory = HeldMemory()
HeldMemory.ALLOWANCE = memory.held()  # of this process, whatever is loaded
first = torch.ones(50 << 20)  # 200 MB
memory.note()
assert not memory.release()
pieces = [torch.ones(5 << 20) for _ in range(30)]  # 600 MB, and more than once that in use
pins = [bytearray(4096) for _ in range(100)]
del pieces
before = memory.held()
assert memory.release(), before
after = memory.held()
assert after < before - (500 << 20), (before, after)
assert not memory.release()
assert float(first.sum()) == 50 << 20
"""


@pytest.mark.skipif(not HeldMemory.is_known(), reason="what is held is told by glibc 2.33")
def test_what_is_held_beyond_twice_of_what_was_in_use_is_returned():
    subprocess.run([sys.executable, "-c", RELEASE], check=True)
