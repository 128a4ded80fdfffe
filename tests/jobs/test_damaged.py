"""Scoring a manifest of which a file is damaged: one line, or the rest with --skip-damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, photos):
    """A sound file of 30 rows, and one of 90 in three row groups, the second damaged."""
    Image.fromarray(photos["coffee"][:64, :64]).save(tmp_path / "x.jpg")
    (tmp_path / "m").mkdir()
    for name, rows in (("a.parquet", 30), ("b.parquet", 90)):
        table = pa.table(
            {"uri": ["../x.jpg"] * rows, "image_id": [f"{n:040}" for n in range(rows)]}
        )
        pq.write_table(table, tmp_path / "m" / name, row_group_size=30, compression="snappy",
                       write_page_checksum=True)  # fmt: skip
    path = tmp_path / "m/b.parquet"
    (tmp_path / "sound").write_bytes(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    data[chunk.dictionary_page_offset + chunk.total_compressed_size - 5] ^= 0x11
    path.write_bytes(data)
    return tmp_path


def parts(output):
    files = sorted(Path(output).glob("part-*.parquet"))
    return pa.concat_tables(map(pq.read_table, files)).to_pylist()


def test_the_run_ends_in_one_line_and_goes_on_once_the_file_is_restored(
    folder, ray_cluster, capsys
):
    words = ["--manifest", str(folder / "m"), "--output", str(folder / "o")]
    run = subprocess.run(
        [sys.executable, "-m", "jobs", "score", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 1
    *lines, last = run.stderr.strip().splitlines()
    assert last.startswith(
        f"iqa score: {folder}/m/b.parquet, row group 1 (rows 30 to 59): the data"
    )
    assert last.endswith("restore the file, or add --skip-damaged to score the rest")
    assert "max_map_retries" not in run.stderr
    assert "Traceback" not in run.stderr
    assert len(lines) < 19
    (folder / "m/b.parquet").write_bytes((folder / "sound").read_bytes())
    assert main(["score", *words]) == 0
    assert main(["verify", "--scores", str(folder / "o"), "--manifest", str(folder / "m")]) == 0
    assert "120 rows in, 120 rows out: none missing, none twice" in capsys.readouterr().out
    assert {row["status"] for row in parts(folder / "o")} == {"ok"}


def test_the_rest_is_scored_and_what_was_lost_is_counted(folder, ray_cluster, capsys):
    words = ["--manifest", str(folder / "m"), "--output", str(folder / "o")]
    verify = ["verify", "--scores", str(folder / "o"), "--manifest", str(folder / "m")]
    assert main(["score", *words, "--skip-damaged"]) == 3
    said = capsys.readouterr().out
    assert "120 rows in, 120 rows out" in said
    assert "30 rows are lost: their data in the manifest are damaged (status unreadable)" in said
    summary = json.loads((folder / "o/_run/summary.json").read_text())
    assert (summary["lost_rows"], summary["statuses"]) == (30, {"ok": 90, "unreadable": 30})
    lost = [row for row in parts(folder / "o") if row["status"] == "unreadable"]
    assert sorted(row["manifest_row"] for row in lost) == list(range(30, 60))
    assert {row["manifest_file"] for row in lost} == {"b.parquet"}
    assert all(
        row["error"].startswith("row group 1 (rows 30 to 59) of the manifest") for row in lost
    )
    assert {(row["uri"], row["image_id"], row["score"]) for row in lost} == {(None, None, None)}
    assert main(verify) == 0
    assert "30 rows are lost" in capsys.readouterr().out
    assert main([*verify, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["missing"], found["lost"]) == (True, 0, 30)
    # Nothing more is lost by another run; a higher limit accepts what is.
    assert main(["score", *words, "--max-error-rate", "0.3"]) == 0
    (folder / "m/b.parquet").write_bytes((folder / "sound").read_bytes())
    assert main(verify) == 0
    assert main(["score", *words, "--retry-errors", "unreadable"]) == 0
    assert "30 rows to do, 90 done before" in capsys.readouterr().out
    assert main(verify) == 0
    assert "lost" not in capsys.readouterr().out
