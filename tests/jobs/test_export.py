"""Tests of jobs/export.py; the formats have theirs in tests/iqa_core/exporting."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from tests.iqa_core.exporting.outputs import table_of, write_images, write_output


def export(scores, target, *words):
    return main(["export", "--scores", str(scores), "--output", str(target), *words])


def test_an_export_and_its_refusals(tmp_path, capsys):
    scores = write_output(tmp_path)
    target = tmp_path / "all.parquet"
    assert export(scores, target, "--to", "parquet") == 0
    assert f"60 rows in {target} (parquet)" in capsys.readouterr().out
    assert pq.read_table(target).replace_schema_metadata(None).equals(table_of(scores))
    for words, message in [
        (["--to", "parquet"], f"--output {target} exists: remove it, or give another path"),
        (["--to", "csv", "--append"], "--append is not for --to csv, which has no atomic append"),
    ]:
        assert export(scores, target, *words) == 1
        err = capsys.readouterr().err.splitlines()
        assert err[-1].startswith(f"iqa export: {message}")


def test_images_are_found_beside_the_scored_manifest(tmp_path, capsys):
    pytest.importorskip("webdataset")
    scores = write_output(tmp_path, 12, 1)
    write_images(tmp_path, 12)
    assert export(scores, tmp_path / "shards", "--to", "webdataset") == 0
    assert "11 images in 1 shards; left out: 1 not scored" in capsys.readouterr().out
