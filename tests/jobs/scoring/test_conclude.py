"""Tests of jobs/scoring/conclude.py: what a run prints, keeps and returns at its end."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema
from jobs.config import OutputOptions
from jobs.scoring.conclude import conclude, conclude_without_work, options_as_json
from jobs.scoring.meter import Steady
from jobs.scoring.outcome import Outcome
from jobs.scoring.pool import ActorPool

DONE = Outcome(4, {"ok": 3, "empty": 1}, 2.0, {"model": 1.0}, "model")


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"uri": [f"{number}.jpg" for number in range(4)]}), path)
    return open_manifest(str(path))


def end(manifest, folder, outcome=DONE, rows=4, max_error_rate=0.3, pool=None):
    """Write rows, the last of them failed, and end the run."""
    output = Output(str(folder), manifest, {"model": "tiny"})
    schema = output_schema(manifest, (), pairs=["p"])
    statuses = ["ok"] * (rows - 1) + ["empty"]
    table = [
        {
            "manifest_file": "m.parquet",
            "manifest_row": number,
            "status": status,
            "score": 0.5 if status == "ok" else None,
        }
        for number, status in enumerate(statuses)
    ]
    with output.start({}):
        output.write(pa.Table.from_pylist(table, schema=schema))
        return conclude(output, outcome, pool, max_error_rate)


def test_a_complete_run(manifest, tmp_path, capsys):
    assert end(manifest, tmp_path / "o", pool=ActorPool(2, 1.0, 0.0)) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 rows in 2 s, 2.0 rows/s; bottleneck: model; empty 1, ok 3\n")
    assert out.endswith("4 rows in, 4 rows out: none missing, none twice\n")
    summary = json.loads((tmp_path / "o/_run/summary.json").read_text())
    assert summary["complete"]
    assert summary["statuses"] == {"ok": 3, "empty": 1}
    assert summary["actors"] == {
        "most": 2,
        "at_start": 2,
        "cpus": 1.0,
        "gpus": 0.0,
        "left_out": [],
    }
    assert summary["last_run"]["rows"] == 4


def test_the_steady_state_and_the_driver(manifest, tmp_path):
    busy = {"fetch": 6.0, "decode": 24.0, "model": 84.0}
    steady = Steady(20.0, 60.0, 1200.0, 2, busy, 0.036, 12.0)
    workers = dict.fromkeys(busy, 2.0)
    outcome = replace(DONE, steady=steady, start_up=9.5, driver_seconds=1.25, workers=workers)
    assert end(manifest, tmp_path / "o", outcome) == 0
    summary = json.loads((tmp_path / "o/_run/summary.json").read_text())
    assert summary["steady_images_per_second"] == 20.0
    assert summary["steady_seconds"] == 60.0
    assert summary["start_up_seconds"] == 9.5
    assert summary["utilisation"] == {"fetch": 0.05, "decode": 0.2, "model": 0.7}
    assert summary["driver_cpu_seconds"] == 1.25
    assert summary["driver_ms_per_1000_images"] == 30.0


def test_a_run_too_short_for_a_steady_state(manifest, tmp_path):
    assert end(manifest, tmp_path / "o") == 0
    summary = json.loads((tmp_path / "o/_run/summary.json").read_text())
    assert summary["steady_images_per_second"] is None
    assert summary["driver_ms_per_1000_images"] is None
    assert summary["utilisation"] == {}


def test_too_many_failed_rows(manifest, tmp_path, capsys):
    assert end(manifest, tmp_path / "o", max_error_rate=0.2) == 3
    assert "1 of 4 rows could not be scored (25.0%), more than --max-error-rate 0.2 allows" in (
        capsys.readouterr().out
    )
    output = Output(str(tmp_path / "o"), manifest, {"model": "tiny"})
    options = OutputOptions(output="s3://bucket/o", max_error_rate=0.2)
    assert conclude_without_work(output, manifest, options) == 3
    assert "nothing to do: all 4 rows are in s3://bucket/o\n" in capsys.readouterr().out
    options = OutputOptions(output="s3://bucket/o", max_error_rate=0.3)
    assert conclude_without_work(output, manifest, options) == 0


def test_a_manifest_without_rows(tmp_path, capsys):
    pq.write_table(pa.table({"uri": pa.array([], pa.string())}), tmp_path / "m.parquet")
    manifest = open_manifest(str(tmp_path / "m.parquet"))
    output = Output(str(tmp_path / "o"), manifest, {"model": "tiny"})
    assert conclude_without_work(output, manifest, OutputOptions(output="o")) == 0
    assert "the manifest has no rows, and nothing is written to o\n" in capsys.readouterr().out
    assert not (tmp_path / "o").exists()


def test_missing_rows(manifest, tmp_path, capsys):
    assert end(manifest, tmp_path / "o", rows=3, max_error_rate=1) == 1
    assert "1 missing (such as m.parquet:3)" in capsys.readouterr().out
    assert not json.loads((tmp_path / "o/_run/summary.json").read_text())["complete"]


def test_a_stopped_run(manifest, tmp_path, capsys):
    assert end(manifest, tmp_path / "o", replace(DONE, stopped=True), rows=3) == 143
    assert "; the same command resumes\n" in capsys.readouterr().out


def test_an_outage(manifest, tmp_path, capsys):
    outcome = replace(DONE, broken="300 of the last 300 rows of a failed", out_of_memory=2)
    assert end(manifest, tmp_path / "o", outcome, rows=3) == 3
    out = capsys.readouterr().out
    assert "memory was full 2 times, and batches were halved: a smaller --batch-size avoids" in out
    assert "300 of the last 300 rows of a failed. Stopped: " in out


@dataclass(frozen=True)
class Config:
    manifest: str = "https://user:secret@host/m?X-Amz-Signature=abc"
    keep: tuple[str, ...] = ("mos",)
    timeout: float = 30.0


def test_options_are_kept_without_secrets():
    kept = options_as_json(Config())
    assert kept["keep"] == ["mos"]
    assert kept["timeout"] == 30.0
    assert "secret" not in kept["manifest"]
    assert "abc" not in kept["manifest"]
