"""Outputs, features and prompts that version 0.1 wrote are resumed, verified, reported and rescored."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.tables.output import digest
from jobs.cli import main

DATA = Path(__file__).parents[1] / "data/v0.1"


def rows_of(folder) -> pa.Table:
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    table = pa.concat_tables(parts)
    return table.sort_by([("manifest_file", "ascending"), ("manifest_row", "ascending")])


@pytest.fixture
def version_0_1(tmp_path):
    """A copy, as if it had been written with the packages that are installed now."""
    folder = shutil.copytree(DATA, tmp_path / "v0.1")
    for run in ("scores", "features", "rescored"):
        path = folder / run / "_run/fingerprint.json"
        before = json.loads(path.read_text())
        after = before | {"versions": {name: version(name) for name in before["versions"]}}
        if after == before:
            continue
        path.write_text(json.dumps(after))
        for part in (folder / run).glob("part-*.parquet"):
            table = pq.read_table(part)
            stated = json.loads(table.schema.metadata[b"iqa"]) | {"fingerprint": digest(after)}
            pq.write_table(
                table.replace_schema_metadata({b"iqa": json.dumps(stated).encode()}), part
            )
    return folder


@pytest.mark.ray
def test_an_output_is_resumed_verified_and_reported(ray_cluster, version_0_1, capsys):
    output = version_0_1 / "scores"
    (old,) = output.glob("part-*.parquet")
    content = old.read_bytes()
    place = ["--manifest", str(version_0_1 / "manifest")]
    words = ["--keep", "mos", "kind", "--embeddings", "--max-error-rate", "1"]
    assert main(["score", *place, "--output", str(output), *words]) == 0
    assert "8 rows to do, 20 done before; tiny in fp32" in capsys.readouterr().out
    assert old.read_bytes() == content
    assert json.loads((output / "_run/summary.json").read_text())["last_run"]["rows"] == 8
    rows = rows_of(output)
    assert rows.column("manifest_file").to_pylist() == ["a.parquet"] * 20 + ["b.parquet"] * 8
    assert rows.column("manifest_row").to_pylist() == [*range(20), *range(8)]
    assert rows.schema.names == pq.read_schema(old).names
    # `features` is of both files, and was written at once.
    features = rows_of(version_0_1 / "features")
    for name in ("status", "width", "height", "image_id"):
        assert rows.column(name).to_pylist() == features.column(name).to_pylist()
    new = rows.slice(20)
    scored = [status == "ok" for status in new.column("status").to_pylist()]
    assert any(scored)
    assert [score is not None for score in new.column("score").to_pylist()] == scored

    assert main(["verify", "--scores", str(output), *place]) == 0
    assert "28 rows in, 28 rows out: none missing, none twice" in capsys.readouterr().out
    page = version_0_1 / "report.html"
    assert main(["report", "--scores", str(output), "--output", str(page), *place]) == 0
    assert f"{page}: 28 rows, " in capsys.readouterr().out
    assert page.read_text().lstrip().lower().startswith("<!doctype html")


@pytest.mark.parametrize("command", ["rescore", "score"])
def test_features_are_rescored_with_its_prompt_file(command, version_0_1, capsys):
    output = version_0_1 / "again"
    words = ["--features", version_0_1 / "features", "--output", output]
    words += ["--prompts", version_0_1 / "prompts.safetensors", "--max-error-rate", "1"]
    assert main([command, *map(str, words)]) == 0
    assert "28 rows in, 28 rows out" in capsys.readouterr().out
    again, before = rows_of(output), rows_of(version_0_1 / "rescored")
    assert again.schema.names == before.schema.names
    for name in ("status", "error", "score", "scores", "margins", "mos"):
        assert again.column(name).equals(before.column(name)), name


def test_a_rescored_output_has_nothing_left_to_do(version_0_1, capsys):
    output = version_0_1 / "rescored"
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    words = ["--features", version_0_1 / "features", "--output", output]
    words += ["--prompts", version_0_1 / "prompts.safetensors", "--max-error-rate", "1"]
    assert main(["rescore", *map(str, words)]) == 0
    assert "nothing to do: all 28 rows are in" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
