"""Tests of iqa_core/storage/lease.py: on a clock of the tests, and with processes, alive and killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import LeaseLostError, OutputLease
from tests.clock import FakeClock, TimedFolder, doing

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
with OutputLease(Folder.of(sys.argv[1]), 30):
    print("held", flush=True)
    sys.stdin.read()
"""


def leases(folder):
    return list((folder / "_run").glob("lease-*.json"))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def folder(tmp_path, clock):
    """A folder whose files are written at the clock's time."""
    return TimedFolder.at(str(tmp_path), clock)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lease of tmp_path."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, cwd=ROOT, **pipes) as process:
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


def test_nothing_stays_where_the_others_can_not_be_read(folder, tmp_path, clock, monkeypatch):
    def fail(*_):
        raise OSError("no answer")

    monkeypatch.setattr(Folder, "list", fail)
    with pytest.raises(OSError, match="no answer"), OutputLease(folder, 2.0, clock=clock):
        pass
    assert not leases(tmp_path)


def test_a_living_holder_is_named(tmp_path, holder):
    with (
        pytest.raises(InputError, match=f"is being written by process {holder.pid} on .* since 2"),
        OutputLease(Folder.of(str(tmp_path))),
    ):
        pass
    assert len(leases(tmp_path)) == 1  # the holder's


def test_a_killed_holder_on_this_machine_is_replaced_at_once(tmp_path, holder, clock):
    holder.kill()
    holder.wait()
    with OutputLease(Folder.of(str(tmp_path)), 30, clock=clock):
        assert clock.slept == []
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
def test_a_silent_holder_elsewhere_is_replaced_after_its_time(make, tmp_path, clock):
    folder = TimedFolder.at(make(tmp_path), clock)
    elsewhere(folder, 1.5)
    began = clock.now()
    with OutputLease(folder, 1.5, clock=clock):
        assert 1.5 < clock.now() - began < 1.7
        assert not folder.exists("_run/lease-other.json")


def test_a_beating_holder_elsewhere_is_respected(folder, clock):
    elsewhere(folder, 2.0)
    with (
        doing(clock, lambda: elsewhere(folder, 2.0)),
        pytest.raises(InputError, match="process 1 on other"),
        OutputLease(folder, 2.0, clock=clock),
    ):
        pass
    assert sum(clock.slept) < 2.0


def test_a_lease_that_was_taken_away_stops_the_writer(tmp_path, folder, clock):
    with OutputLease(folder, 1.0, clock=clock) as lease:
        clock.wait_for_threads(1)
        clock.advance(1.5)
        lease.check()  # heartbeats keep it
        for path in leases(tmp_path):
            path.unlink()
        with pytest.raises(LeaseLostError, match="may have taken over"):
            lease.check()


def test_heartbeats_state_who_writes(tmp_path, folder, clock):
    with OutputLease(folder, 1.0, clock=clock):
        clock.wait_for_threads(1)
        (path,) = leases(tmp_path)
        document = json.loads(path.read_text())
        assert path.stat().st_mtime == clock.now()
        clock.advance(0.6)
        assert clock.now() - path.stat().st_mtime == pytest.approx(0.1)  # a beat each quarter
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
def test_a_number_that_another_process_has_now_counts_for_its_time(candidate, crashed, clock):
    folder = crashed(candidate=candidate, age=0)
    with (
        pytest.raises(InputError, match=f"process {os.getppid()} on"),
        OutputLease(folder, clock=clock),
    ):
        pass


@pytest.mark.parametrize("candidate", [False, True])
def test_a_number_that_another_process_has_now_holds_nothing_after(candidate, crashed):
    folder = crashed(candidate=candidate, age=90)
    with OutputLease(folder):
        assert not folder.exists("_run/lease-old.json")


@pytest.mark.parametrize("content", ["", '{"host": "ot', "[]", "{}"])
def test_a_lease_that_is_half_written_counts(content, folder, clock):
    def write():
        folder.write("_run/lease-half.json", content.encode())

    write()
    with (
        doing(clock, write),
        pytest.raises(InputError, match="is being written by"),
        OutputLease(folder, 2.0, clock=clock),
    ):
        pass
    began = clock.now()
    with OutputLease(folder, 2.0, clock=clock):
        assert clock.now() - began > 1


def test_heartbeats_outlive_a_store_that_fails(folder, clock, monkeypatch):
    with OutputLease(folder, 2.0, clock=clock) as lease:
        clock.wait_for_threads(1)
        clock.advance(0.3)
        with monkeypatch.context() as patch:

            def down(*_):
                raise OSError("the store is down")

            patch.setattr(Folder, "exists", down)
            clock.advance(1.0)
            with pytest.raises(OSError, match="down"):
                lease.check()
        clock.advance(1.5)
        lease.check()  # heartbeats continue, so more than its time after the last one before


def test_a_store_that_stays_away_costs_the_lease(folder, clock, monkeypatch):
    with OutputLease(folder, 2.0, clock=clock) as lease:
        clock.wait_for_threads(1)
        with monkeypatch.context() as patch:

            def down(*_):
                raise OSError("the store is down")

            patch.setattr(Folder, "exists", down)
            clock.advance(2.5)
        with pytest.raises(LeaseLostError):
            lease.check()


def test_a_lease_once_run_out_stays_so(folder, clock):
    with OutputLease(folder, 1.0, clock=clock) as holding:
        clock.wait_for_threads(1)
        clock.jump(2.0)  # as a suspension
        with pytest.raises(LeaseLostError):
            holding.check()
        clock.advance(0.5)
        with pytest.raises(LeaseLostError):  # another run may be done by now
            holding.check()


class TestDriversThatStartAtOnce:
    def test_one_continues_once_the_others_have_withdrawn(self, crashed, tmp_path, clock):
        folder = crashed(candidate=True, age=0)
        with (
            doing(clock, lambda: folder.remove("_run/lease-old.json")),
            OutputLease(folder, clock=clock) as lease,
        ):
            lease.check()
            assert len(clock.slept) == 1
            assert len(leases(tmp_path)) == 1

    def test_a_candidate_that_stays_is_given_way_to(self, crashed, tmp_path, clock):
        folder = crashed(candidate=True, age=0)
        with (
            pytest.raises(InputError, match=f"process {os.getppid()} on"),
            OutputLease(folder, clock=clock),
        ):
            pass
        assert len(clock.slept) == 3
        assert [path.name for path in leases(tmp_path)] == ["lease-old.json"]

    def test_exactly_one_of_many_processes_gets_the_lease(self, tmp_path):
        """All may refuse each other, which is safe; but not again and again."""
        outcomes = []
        while "held" not in outcomes:
            assert len(outcomes) < 3 * DRIVERS, f"nobody gets the lease: {outcomes}"
            outcomes += race(tmp_path)
        assert outcomes.count("held") == 1
        assert outcomes.count("refused") == len(outcomes) - 1
        assert leases(tmp_path) == []


DRIVERS = 6
RACE = """
import sys
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
from iqa_core.errors import InputError
print("ready", flush=True)
sys.stdin.readline()
try:
    with OutputLease(Folder.of(sys.argv[1]), 5):
        print("held", flush=True)
        sys.stdin.read()
except InputError:
    print("refused", flush=True)
"""


def race(folder):
    """Start drivers at once; return what each of them said."""
    words = [sys.executable, "-c", RACE, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(words, text=True, cwd=ROOT, **pipes) for _ in range(DRIVERS)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * DRIVERS
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.stdout.readline().strip() for process in processes]
        for process in processes:
            process.communicate(timeout=60)  # ends its input, so that the holder lets go
    finally:
        for process in processes:
            process.kill()
    return said
