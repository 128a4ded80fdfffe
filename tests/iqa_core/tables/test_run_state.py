"""Tests of iqa_core/tables/run_state.py: the state of a run from its report, its lease and their ages."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import fsspec
import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
from iqa_core.tables.run_state import RunState, progress_name, read_runs, together

REPORT = {
    "host": "node-a",
    "process": 12,
    "state": "running",
    "rows": 100,
    "rows_done_before": 10,
    "rows_done": 40,
    "statuses": {"ok": 35, "timeout": 5},
    "rows_per_second": 4.0,
    "seconds_left": 12.5,
    "cost": 0.5,
}
LEASE = {"host": "node-a", "process": 12, "place": "elsewhere", "seconds": 30.0}
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        yield Folder.of(str(tmp_path / "o"))
        return
    yield Folder.of("memory://run-state/o")
    fsspec.filesystem("memory").store.clear()


def put(folder, name, document, age):
    """Write a document that is so many seconds old at NOW."""
    folder.write_json(name, document)
    moment = NOW - timedelta(seconds=age)
    if folder.is_local:
        os.utime(folder.path(name), (moment.timestamp(), moment.timestamp()))
    else:
        folder.fs.store[folder.path(name)].modified = moment


def only(folder):
    (run,) = read_runs(folder, NOW)
    return run


def test_a_run_with_a_heartbeat_runs(folder):
    put(folder, "_run/progress.json", REPORT, age=4)
    put(folder, "_run/lease-1.json", LEASE, age=6)
    run = only(folder)
    assert run.state == "running"
    assert run.runs
    assert (run.rows, run.rows_done) == (100, 50)
    assert (run.age, run.heartbeat) == (4.0, 6.0)
    assert run.seconds_left == 8.5  # four of them are over
    assert run.failed_rows == {"timeout": 5}


@pytest.mark.parametrize(
    "lease", [None, (LEASE, 31), (LEASE | {"process": 13}, 1), (LEASE | {"host": "node-b"}, 1)]
)
def test_a_run_without_its_own_fresh_heartbeat_is_lost(folder, lease):
    put(folder, "_run/progress.json", REPORT, age=4)
    if lease:
        put(folder, "_run/lease-1.json", *lease)
    run = only(folder)
    assert run.state == "lost"
    assert run.rows_per_second == 0
    assert run.seconds_left is None


def test_a_killed_process_of_this_machine_is_lost_at_once(folder):
    with OutputLease(folder) as lease:
        document = folder.read_json(lease._name)
    gone = 2**22 + 1  # above the largest process id of Linux
    put(folder, "_run/lease-1.json", document | {"process": gone}, age=1)
    put(
        folder,
        "_run/progress.json",
        REPORT | {k: document[k] for k in ("host",)} | {"process": gone},
        1,
    )
    assert only(folder).state == "lost"
    put(folder, "_run/lease-1.json", document, age=1)  # this very process
    put(folder, "_run/progress.json", REPORT | {k: document[k] for k in ("host", "process")}, 1)
    assert only(folder).state == "running"


def test_a_run_that_waits_says_for_what(folder):
    put(folder, "_run/progress.json", REPORT | {"waiting": "waiting for a node"}, age=1)
    put(folder, "_run/lease-1.json", LEASE, age=1)
    assert only(folder).state == "waiting"
    assert only(folder).waiting == "waiting for a node"


@pytest.mark.parametrize("state", ["finished", "stopped", "outage", "failed"])
def test_an_ended_run_needs_no_heartbeat(folder, state):
    put(folder, "_run/progress.json", REPORT | {"state": state, "waiting": "for a node"}, age=9000)
    run = only(folder)
    assert run.state == state
    assert run.waiting is None


def test_shards_together(folder):
    for index, state in enumerate(("finished", "running")):
        report = REPORT | {"shard": f"{index}/2", "state": state, "process": 20 + index}
        put(folder, progress_name(f"000{index}-of-0002"), report, age=2 + index)
    put(folder, "_run/lease-1.json", LEASE | {"process": 21}, age=1)
    runs = read_runs(folder, NOW)
    assert [run.shard for run in runs] == ["0/2", "1/2"]
    whole = together(runs)
    assert whole.state == "running"
    assert (whole.rows, whole.rows_done, whole.rows_per_second) == (200, 100, 4.0)
    assert whole.statuses == {"ok": 70, "timeout": 10}
    assert whole.cost == 1.0
    assert whole.seconds_left == 9.5
    lost = RunState("1/2", "lost", 1, 0, {})
    assert together([runs[0], lost]).state == "lost"


def test_shards_that_have_not_begun(folder):
    for index in range(3):
        report = REPORT | {"shard": f"{index}/8", "state": "finished", "process": 20 + index}
        put(folder, progress_name(f"000{index}-of-0008"), report, age=2)
    whole = together(read_runs(folder, NOW))
    assert (whole.state, whole.not_begun) == ("incomplete", 5)
    failed = RunState("3/8", "failed", 1, 0, {})
    assert together([*read_runs(folder, NOW), failed]).state == "failed"


def test_outputs_of_earlier_versions_have_a_summary(folder):
    summary = {"rows": 8, "complete": False, "statuses": {"ok": 8}, "audit": {"missing": 2}}
    put(folder, "_run/summary.json", summary, age=5)
    run = only(folder)
    assert (run.state, run.rows, run.rows_done) == ("stopped", 10, 8)


def test_a_folder_without_runs_is_refused(folder):
    with pytest.raises(InputError, match="holds no report of a run"):
        read_runs(folder)


def test_half_a_report_is_none(folder):
    folder.write("_run/progress.json", b'{"state": "run')
    with pytest.raises(InputError, match="no report"):
        read_runs(folder)


def test_shards_of_another_number_that_ended_do_not_count(folder):
    for index, state in enumerate(("finished", "running")):  # the second was killed
        report = REPORT | {"shard": f"{index}/8", "state": state, "process": 20 + index}
        put(folder, progress_name(f"000{index}-of-0008"), report, age=900)
    put(folder, "_run/progress.json", REPORT | {"state": "finished", "rows": 800}, age=5)
    assert (only(folder).state, only(folder).rows) == ("finished", 800)
    report = REPORT | {"shard": "5/8", "process": 30}
    put(folder, progress_name("0005-of-0008"), report, age=9)
    put(folder, "_run/lease-1.json", LEASE | {"process": 30}, age=1)
    assert {run.shard for run in read_runs(folder, NOW)} == {None, "5/8"}
