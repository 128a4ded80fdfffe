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


@pytest.mark.parametrize("name", ["plan.json", "fingerprint.json"])
@pytest.mark.parametrize("content", ["", '{"files": [{"na', "[]", '{"files": [{"name": 1}]}'])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_records_that_are_damaged(kind, name, content, tmp_path, capsys):
    scores = write_output(tmp_path)
    file = scores / "_run" / name
    file.write_text(content)
    assert export(scores, tmp_path / f"all.{kind}", "--to", kind) == 1
    err = capsys.readouterr().err
    is_other = name == "fingerprint.json" and content.endswith("}")  # an object, of another run
    assert ("fingerprints" if is_other else f"{file} is damaged (") in err
    assert err.count("\n") == 1
    assert main(["verify", "--scores", str(scores), "--manifest", str(tmp_path)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_plan_that_lacks_what_an_export_needs(tmp_path, capsys):
    scores = write_output(tmp_path)
    file = scores / "_run/plan.json"
    file.write_text(file.read_text().replace("row_groups", "groups"))
    assert export(scores, tmp_path / "all.csv", "--to", "csv") == 1
    assert f"{file} is damaged (it lacks 'row_groups')" in capsys.readouterr().err
