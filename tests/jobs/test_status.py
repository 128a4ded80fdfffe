"""Tests of jobs/status.py and iqa_core/pages/status.py: the line, the JSON, the page, the exit status."""

from __future__ import annotations

import json
import os
import platform

import pytest

from iqa_core.pages.status import status_page
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
from iqa_core.tables.run_state import RunState
from jobs.cli import main
from jobs.status import describe

REPORT = {
    "host": platform.node(),
    "process": os.getpid(),
    "command": "score",
    "model": "RN50/openai",
    "state": "running",
    "rows": 1000,
    "rows_done": 250,
    "statuses": {"ok": 240, "not_found": 7, "timeout": 3},
    "rows_per_second": 12.5,
    "seconds_left": 60.0,
    "actors": 2,
    "nodes": 1,
    "cost": 1.5,
}


@pytest.fixture
def output(tmp_path):
    folder = Folder.of(str(tmp_path / "o"))
    folder.write_json("_run/progress.json", REPORT)
    return folder


def test_a_running_run_in_one_line(output, capsys):
    with OutputLease(output):
        assert main(["status", "--scores", output.uri]) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"{output.uri}: running; 250 of 1,000 rows (25 %); 12.5 rows/s; ")
    assert line.endswith(
        " left; 2 actors on 1 node; 10 not scored: not_found 7, timeout 3; cost so far 1.50"
    )


def test_a_lost_run_is_exit_status_1(output, capsys):
    assert main(["status", "--scores", output.uri]) == 1
    line = capsys.readouterr().out
    assert ": lost; 250 of 1,000 rows (25 %)" in line
    assert "no heartbeat, last report 0 s ago; the same command resumes" in line


def test_json_has_everything(output, capsys):
    with OutputLease(output):
        assert main(["status", "--scores", output.uri, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["whole"]["rows_done"] == 250
    assert found["runs"][0]["facts"]["model"] == "RN50/openai"


def test_a_page(output, tmp_path, capsys):
    page = tmp_path / "status.html"
    with OutputLease(output):
        assert main(["status", "--scores", output.uri, "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<title>Running: " in text
    for part in ("250 (25.0%) of 1,000", "not_found", "RN50/openai", "12.5"):
        assert part in text
    assert "<script" not in text


def test_what_a_report_says_is_text():
    run = RunState(
        "0/2", "waiting", 10, 1, {"<b>": 1}, waiting="<i>a node</i>", facts={"model": "<u>"}
    )
    text = status_page("s3://b/o", [run, RunState("1/2", "lost", 10, 0, {})], now=0)
    assert "&lt;i&gt;a node&lt;/i&gt;" in text
    assert "&lt;b&gt;" in text
    assert not {"<b>", "<i>", "<u>"} & set(text.replace(">", "> ").split())
    assert "1970-01-01 00:00:00 UTC" in text
    assert "shard 1/2: no heartbeat any more" in text
    assert "2 shards" in text


def test_shards_have_a_line_each(output, capsys):
    for index in range(2):
        report = REPORT | {"shard": f"{index}/2", "state": "finished", "rows_done": 1000}
        output.write_json(f"_run/progress-000{index}-of-0002.json", report)
    output.remove("_run/progress.json")
    assert main(["status", "--scores", output.uri]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("all shards: finished; 2,000 of 2,000 rows (100 %)")
    assert [line.partition(":")[0] for line in rest] == ["shard 0/2", "shard 1/2"]


def test_a_folder_without_a_run_is_one_line(tmp_path, capsys):
    assert main(["status", "--scores", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("iqa status: --scores ")
    assert "holds no report of a run" in error
    assert error.count("\n") == 1


def test_a_wait_is_in_the_line():
    run = RunState(None, "waiting", 5, 0, {}, waiting="waiting for a node with 1 GPU")
    assert describe(run, "o") == "o: waiting; 0 of 5 rows (0 %); waiting for a node with 1 GPU"
