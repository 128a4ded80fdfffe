"""Tests of jobs/verify.py on outputs of this version and of others."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema
from jobs.cli import main


@pytest.fixture
def scored(tmp_path):
    """A manifest of six rows and an output that has them all; returns the command that verifies."""
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"uri": [f"{number}.jpg" for number in range(6)]}), path)
    manifest = open_manifest(str(path))
    output = Output(str(tmp_path / "o"), manifest, {"model": "tiny"})
    schema = output_schema(manifest, (), pairs=["p"])
    with output.start({}):
        for numbers in ([0, 1, 2], [3, 4, 5]):
            rows = [
                {"manifest_file": "m.parquet", "manifest_row": number, "status": "ok", "score": 0.5}
                for number in numbers
            ]
            output.write(pa.Table.from_pylist(rows, schema=schema))
    return ["verify", "--scores", str(tmp_path / "o"), "--manifest", str(path)]


def parts(folder):
    return sorted((folder / "o").glob("part-*.parquet"))


def test_a_whole_output_passes(scored, capsys):
    assert main(scored) == 0
    assert "6 rows in, 6 rows out: none missing, none twice\nok 6" in capsys.readouterr().out
    assert main([*scored, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["rows"], found["parts"], found["statuses"]) == (
        (True, 6, 2, {"ok": 6})
    )


def test_output_of_a_version_that_stated_less(scored, tmp_path):
    for path in parts(tmp_path):
        table = pq.read_table(path, columns=["manifest_file", "manifest_row", "status"])
        pq.write_table(table.replace_schema_metadata(None), path)
    (tmp_path / "o/_run/fingerprint.json").unlink()
    (tmp_path / "o/_run/plan.json").unlink()
    assert main(scored) == 0


def test_a_lost_fingerprint_is_no_contradiction(scored, tmp_path):
    (tmp_path / "o/_run/fingerprint.json").unlink()
    assert main(scored) == 0


def test_rows_of_another_fingerprint_do_not_pass(scored, tmp_path, capsys):
    path = parts(tmp_path)[1]
    table = pq.read_table(path)
    stated = json.loads(table.schema.metadata[b"iqa"]) | {"fingerprint": "another"}
    metadata = {b"iqa": json.dumps(stated).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert main(scored) == 1
    assert "1 other fingerprints among 2 part files: not equal" in capsys.readouterr().out


def test_rows_twice_missing_or_unreadable_do_not_pass(scored, tmp_path, capsys):
    first, second = parts(tmp_path)
    copy = first.with_name("part-copy.parquet")
    copy.write_bytes(first.read_bytes())
    assert main(scored) == 1
    assert "3 twice" in capsys.readouterr().out
    copy.unlink()
    content = second.read_bytes()
    second.unlink()
    assert main(scored) == 1
    assert "3 missing (such as m.parquet:3, m.parquet:4" in capsys.readouterr().out
    # Damage in the middle of the data, which the footer does not show.
    place = len(content) // 4
    second.write_bytes(content[:place] + bytes(40) + content[place + 40 :])
    assert main(scored) == 1
    assert f"part file {second.name} of" in capsys.readouterr().err


def test_a_manifest_that_has_changed_does_not_pass(scored, tmp_path, capsys):
    uris = [f"{number}.jpg" for number in (0, 2, 1, 3, 4, 5)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    assert main(scored) == 1
    assert "manifest file m.parquet of" in capsys.readouterr().err
