"""Tests of jobs/scoring/allocator.py, in processes of their own: what it sets holds until their end."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

#: Prints the page faults of ten batches of 40 MB, and of ten more after the call, with its result.
PROGRAM = """
import resource
import numpy as np
from jobs.scoring.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(10_000_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), np.ones(10_000_000, np.float32).size and faults())
"""


def told(**variables):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    before, result, after = done.stdout.split()
    return int(before), result, int(after)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_the_memory_of_a_batch_is_used_again():
    before, result, after = told()
    assert result == "True"
    assert after < before / 20


def test_what_the_user_set_stays():
    assert told(MALLOC_TRIM_THRESHOLD_="131072")[1] == "False"
