"""Tests of jobs/scoring/watch.py and progress_file.py: what is told, when, and that failures do no harm."""

from __future__ import annotations

import json
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from iqa_core.storage.folder import Folder
from jobs.prices import Prices
from jobs.progress import Progress
from jobs.scoring.progress_file import ProgressFile
from jobs.scoring.watch import Snapshot, Watch, describe_devices, nodes_of, state_of

DEVICES = {"CPU of node 10.0.0.1 (ab), process 7": 30, "CPU of node 10.0.0.2 (cd), process 7": 12}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.snapshots, self.end = [], None

    def note(self, snapshot):
        self.snapshots.append(snapshot)

    def close(self, state, snapshot):
        self.end = state, snapshot


class Broken:
    def note(self, snapshot):
        raise OSError("the store is away")

    close = note


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def collector():
    """What a watch reads of a collector."""
    return SimpleNamespace(
        statuses=Counter(ok=40, timeout=2),
        busy={"fetch": 1.0, "decode": 2.0, "model": 3.0},
        devices=Counter(DEVICES),
        uncommitted_rows=5,
        meter=SimpleNamespace(blocks=3, driver_seconds=0.5),
    )


def watching(watchers, clock, collector, **options):
    watch = Watch(watchers, resources=lambda: {"CPU": 8.0, "GPU": 2.0}, clock=clock, **options)
    watch.follow(100, collector, Progress(100, clock))
    return watch


def test_a_snapshot_every_five_seconds_and_one_at_the_end(clock, collector):
    notes = Notes()
    with watching([notes], clock, collector) as watch:
        for _ in range(21):
            watch.tick(queued_blocks=4)
            clock.now += 0.5
        watch.end(SimpleNamespace(stopped=False, broken=None), 0)
        collector.statuses["ok"] = 98
    assert [each.seconds for each in notes.snapshots] == [0.0, 5.0, 10.0]
    assert notes.snapshots[0].statuses == {"ok": 40, "timeout": 2}
    assert notes.snapshots[0].queued_blocks == 4
    state, last = notes.end
    assert state == "finished"
    assert last.statuses["ok"] == 98
    assert last.blocks == 3


def test_a_run_that_raises_has_failed(clock, collector):
    notes = Notes()
    with pytest.raises(ValueError, match="disk"), watching([notes], clock, collector):
        raise ValueError("disk full")
    assert notes.end[0] == "failed"


def test_a_watcher_that_fails_hinders_nobody(clock, collector):
    notes = Notes()
    with watching([Broken(), notes], clock, collector) as watch:
        watch.tick()
    assert len(notes.snapshots) == 1
    assert notes.end is not None


def test_cost_follows_from_resources_and_time(clock, collector):
    notes = Notes()
    with watching([notes], clock, collector, prices=Prices(cpu=0.5, gpu=3.0)) as watch:
        watch.tick()
        clock.now += 1800
        watch.tick()
    assert notes.snapshots[0].cost == 0
    assert notes.snapshots[1].cost == pytest.approx((8 * 0.5 + 2 * 3.0) / 2)  # half an hour


def test_without_prices_there_is_no_cost():
    assert Prices.of(None, None) is None
    assert Prices.of(None, 2.0) == Prices(0.0, 2.0)


@pytest.mark.parametrize(
    ("outcome", "status", "state"),
    [
        ({"stopped": True, "broken": None}, 143, "stopped"),
        ({"stopped": False, "broken": "outage of host"}, 3, "outage"),
        ({"stopped": False, "broken": None}, 3, "finished"),  # complete, with too many failed rows
        ({"stopped": False, "broken": None}, 1, "failed"),
    ],
)
def test_states(outcome, status, state):
    assert state_of(SimpleNamespace(**outcome), status) == state


def test_devices_are_counted_by_node():
    assert nodes_of(DEVICES) == {"node 10.0.0.1 (ab)", "node 10.0.0.2 (cd)"}
    assert describe_devices(DEVICES) == "2 actors on 2 nodes"
    assert describe_devices({}) == ""


# --- the file


SNAPSHOT = Snapshot(
    rows=100,
    statuses={"ok": 40, "timeout": 2},
    rate=4.0,
    seconds_left=14.5,
    devices=DEVICES,
    cost=1.25,
    resources={"CPU": 8.0},
)


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    return Folder.of(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


def progress_file(folder, clock):
    facts = {"command": "score", "rows": 120, "rows_done_before": 20}
    return ProgressFile(
        folder, "_run/progress.json", facts, clock=clock, now=lambda: 1000.0 + clock()
    )


def written(folder, file):
    """Return the document once the thread has written it."""
    if file._writing is not None:
        file._writing.result(timeout=10)
    return folder.read_json("_run/progress.json")


def test_the_file_says_how_the_run_goes(folder, clock):
    file = progress_file(folder, clock)
    file.note(SNAPSHOT)
    found = written(folder, file)
    assert found["state"] == "running"
    assert (found["rows"], found["rows_done_before"], found["rows_done"]) == (120, 20, 42)
    assert found["statuses"] == {"ok": 40, "timeout": 2}
    assert (found["rows_per_second"], found["seconds_left"], found["cost"]) == (4.0, 14.5, 1.25)
    assert (found["actors"], found["nodes"], found["cpus"]) == (2, 2, 8.0)
    assert found["updated"] == found["began"] == 1100.0
    file.close("stopped", SNAPSHOT)
    assert folder.read_json("_run/progress.json")["state"] == "stopped"


def test_it_is_written_every_ten_seconds(folder, clock):
    file = progress_file(folder, clock)
    times = []
    for _ in range(25):
        file.note(SNAPSHOT)
        times.append(written(folder, file)["updated"])
        clock.now += 1
    assert sorted(set(times)) == [1100.0, 1110.0, 1120.0]
    file.close("finished", SNAPSHOT)


def test_a_slow_store_does_not_hold_the_run_up(folder, clock):
    release = threading.Event()
    writes = []

    class Slow:
        def write_json(self, name, document):
            writes.append(json.dumps(document))
            assert release.wait(10)

    file = progress_file(Slow(), clock)
    for _ in range(5):
        file.note(SNAPSHOT)  # returns although the first write hangs
        clock.now += 60
    release.set()
    file.close("finished", SNAPSHOT)
    assert len(writes) == 2  # the first and the last


def test_a_store_that_refuses_does_not_end_the_run(clock):
    class Refusing:
        def write_json(self, name, document):
            raise PermissionError("no")

    file = progress_file(Refusing(), clock)
    file.note(SNAPSHOT)
    file.close("finished", SNAPSHOT)
