"""Tests of iqa_core/storage/lease.py with other processes, alive and killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import LeaseLostError, OutputLease

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
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
        with pytest.raises(LeaseLostError, match="may have taken over"):
            lease.check()


def test_heartbeats_state_who_writes(tmp_path):
    with OutputLease(Folder.of(str(tmp_path)), 1.0):
        time.sleep(0.6)
        (path,) = leases(tmp_path)
        document = json.loads(path.read_text())
    assert not document["candidate"]
    assert document["process"] > 1


@pytest.fixture
def crashed(tmp_path):
    """The lease of a crashed run whose process number a living process has got since."""
    folder = Folder.of(str(tmp_path))
    with OutputLease(folder):
        (path,) = leases(tmp_path)
        document = json.loads(path.read_text())

    def leave(*, candidate, age):
        lease = document | {"process": os.getppid(), "seconds": 60.0, "candidate": candidate}
        folder.write_json("_run/lease-old.json", lease)
        then = time.time() - age
        os.utime(tmp_path / "_run" / "lease-old.json", (then, then))
        return folder

    return leave


@pytest.mark.parametrize("candidate", [False, True])
def test_a_number_that_another_process_has_now_counts_for_its_time(candidate, crashed):
    folder = crashed(candidate=candidate, age=0)
    with pytest.raises(InputError, match=f"process {os.getppid()} on"), OutputLease(folder):
        pass


@pytest.mark.parametrize("candidate", [False, True])
def test_a_number_that_another_process_has_now_holds_nothing_after(candidate, crashed):
    folder = crashed(candidate=candidate, age=90)
    with OutputLease(folder):
        assert not folder.exists("_run/lease-old.json")


@pytest.mark.parametrize("content", ["", '{"host": "ot', "[]", "{}"])
def test_a_lease_that_is_half_written_counts(content, tmp_path):
    folder = Folder.of(str(tmp_path))
    stop = threading.Event()

    def write():
        while not stop.wait(0.2):
            folder.write("_run/lease-half.json", content.encode())

    folder.write("_run/lease-half.json", content.encode())
    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(InputError, match="is being written by"), OutputLease(folder, 2.0):
            pass
    finally:
        stop.set()
        thread.join()
    began = time.monotonic()
    with OutputLease(folder, 2.0):
        assert time.monotonic() - began > 1


def test_heartbeats_outlive_a_store_that_fails(tmp_path, monkeypatch):
    folder = Folder.of(str(tmp_path))
    with OutputLease(folder, 2.0) as lease:
        time.sleep(0.3)
        with monkeypatch.context() as patch:

            def down(*_):
                raise OSError("the store is down")

            patch.setattr(Folder, "exists", down)
            time.sleep(1.0)
            with pytest.raises(OSError, match="down"):
                lease.check()
        time.sleep(1.5)
        lease.check()  # heartbeats go on, so more than its time after the last one before


def test_a_lease_once_run_out_stays_so(tmp_path):
    holding = OutputLease(Folder.of(str(tmp_path)), 1.0)
    with holding:
        holding._beaten -= 2  # as after a suspension
        with pytest.raises(LeaseLostError):
            holding.check()
        time.sleep(0.5)
        with pytest.raises(LeaseLostError):  # another run may be done by now
            holding.check()


RACE = """
import sys, time
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
from iqa_core.errors import InputError
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    with OutputLease(Folder.of(sys.argv[1]), 5):
        print("held", flush=True)
        time.sleep(8)
except InputError:
    print("refused")
"""


def test_of_many_that_come_at_once_one_goes_on(tmp_path):
    start = str(time.time() + 4)
    words = [sys.executable, "-c", RACE, str(tmp_path), start]
    processes = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(6)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert said.count("held") <= 1
    assert said.count("refused") == 6 - said.count("held")
