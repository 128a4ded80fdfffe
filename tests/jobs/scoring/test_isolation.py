"""Tests of jobs/scoring/isolation.py: decoders that crash or hang."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from iqa_core.errors import ImageError
from jobs.scoring.isolation import Isolated

ROOT = Path(__file__).parents[3]


def behave(data):
    """Do what the data say."""
    if data == b"hang":
        time.sleep(100)
    if data == b"die":
        os._exit(3)
    if data == b"raise":
        raise ValueError("no image")
    return data


@pytest.mark.slow
def test_a_child_that_dies_or_hangs_is_replaced():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    isolated = Isolated(behave, seconds=2)
    try:
        assert isolated.call(behave, b"one") == b"one"
        with pytest.raises(ImageError, match=r"crashed on this file \(exit code 3\)"):
            isolated.call(behave, b"die")
        with pytest.raises(ImageError, match="decoding took more than 2 s: given up"):
            isolated.call(behave, b"hang")
        with pytest.raises(ValueError, match="no image"):
            isolated.call(behave, b"raise")
        assert isolated.call(behave, b"two") == b"two"
    finally:
        isolated.close()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_watchdog_ends_a_process_that_hangs():
    code = "import time; from jobs.scoring.isolation import Watchdog; "
    code += "Watchdog(1.0).call(lambda data: time.sleep(60), b'')"
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 70
    assert time.monotonic() - began < 40
