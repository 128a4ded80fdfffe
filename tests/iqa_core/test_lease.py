"""Tests of iqa_core/lease.py with other processes, alive and killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from iqa_core.files import Folder
from iqa_core.lease import LeaseLostError, OutputLease
from iqa_core.schema import InputError

HOLD = """
import sys, time
from iqa_core.files import Folder
from iqa_core.lease import OutputLease
with OutputLease(Folder.of(sys.argv[1]), 30):
    print("held", flush=True)
    time.sleep(100)
"""


def leases(folder):
    return list((folder / "_run").glob("lease-*.json"))


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lease of tmp_path."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lease_ends_with_its_block(tmp_path):
    folder = Folder.of(str(tmp_path))
    with OutputLease(folder) as lease:
        lease.check()
        assert len(leases(tmp_path)) == 1
    assert not leases(tmp_path)
    with OutputLease(folder):
        pass


def test_a_living_holder_is_named(tmp_path, holder):
    with (
        pytest.raises(InputError, match=f"is being written by process {holder.pid} on .* since 2"),
        OutputLease(Folder.of(str(tmp_path))),
    ):
        pass
    assert len(leases(tmp_path)) == 1  # the holder's


def test_a_killed_holder_on_this_machine_is_replaced_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with OutputLease(Folder.of(str(tmp_path)), 30):
        assert time.monotonic() - began < 5
        assert len(leases(tmp_path)) == 1


def elsewhere(folder, seconds):
    """Leave a lease as a driver on another machine does."""
    document = {
        "host": "other",
        "place": "other",
        "process": 1,
        "since": "2026",
        "candidate": False,
    }
    folder.write_json("_run/lease-other.json", document | {"seconds": seconds})


@pytest.mark.parametrize("make", [str, lambda path: f"memory://{path}"], ids=["disk", "memory"])
def test_a_silent_holder_elsewhere_is_replaced_after_its_time(make, tmp_path):
    folder = Folder.of(make(tmp_path))
    elsewhere(folder, 1.5)
    began = time.monotonic()
    with OutputLease(folder, 1.5):
        assert 1.0 < time.monotonic() - began < 10
        assert not folder.exists("_run/lease-other.json")


def test_a_beating_holder_elsewhere_is_respected(tmp_path):
    folder = Folder.of(str(tmp_path))
    stop = threading.Event()

    def beat():
        while not stop.wait(0.3):
            elsewhere(folder, 2.0)

    elsewhere(folder, 2.0)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(InputError, match="process 1 on other"), OutputLease(folder, 2.0):
            pass
    finally:
        stop.set()
        thread.join()


def test_a_lease_that_was_taken_away_stops_the_writer(tmp_path):
    with OutputLease(Folder.of(str(tmp_path)), 1.0) as lease:
        time.sleep(1.5)
        lease.check()  # heartbeats keep it
        for path in leases(tmp_path):
            path.unlink()
        with pytest.raises(LeaseLostError, match="may have taken over: nothing more was written"):
            lease.check()


def test_heartbeats_state_who_writes(tmp_path):
    with OutputLease(Folder.of(str(tmp_path)), 1.0):
        time.sleep(0.6)
        (path,) = leases(tmp_path)
        document = json.loads(path.read_text())
    assert not document["candidate"]
    assert document["process"] > 1
