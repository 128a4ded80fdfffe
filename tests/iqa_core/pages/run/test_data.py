"""Tests of iqa_core/pages/run/data.py, on part files written here."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.pages.run.data import load_run
from iqa_core.pages.run.page import write_report
from tests.iqa_core.pages.run.runs import SCHEMA, another, failed, many, ok


def test_a_sample_counts_all_rows_and_never_misses_the_extremes(make, tmp_path):
    facts, page = make(many(), sample=200, rows=60)
    assert (facts.rows, facts.scored, facts.failed, facts.listed) == (3000, 2999, 1, 60)
    held = int(re.search(r"are of (\d+) of the run's 3,000 rows", page.text)[1])
    assert 200 < held <= 301  # the sample, 50 at each end, the failure
    names = page.column("Image")
    assert names[0] == "worst.jpg"
    assert names[-2:] == ["best.jpg", "only-failure.jpg"]
    assert "1 of 3,000 rows without a score" in page.text
    bars = [int(n) for n in re.findall(r": (\d+) image", page.text)]
    assert sum(bars) == 3 * (held - 1)
    # a random sample: what it says of the middle is near what all rows say
    mean = float(re.search(r"Score, mean over the pairs mean ([\d.]+)", page.text)[1])
    assert mean == pytest.approx(0.5, abs=0.03)


def test_a_sample_has_every_scored_row_of_a_run_that_has_few(tmp_path):
    rows = [failed(i) for i in range(3000)]
    scored = list(range(150, 3000, 300))
    for i in scored:
        rows[i] = ok(i, i / 3000)
    run = load_run(another(tmp_path / "scores", rows), sample=20)
    assert run.sampled
    assert run.place[run.ok].tolist() == scored


def test_no_sample_is_taken_of_fewer_rows(make):
    _, page = make(many(), sample=3000)
    assert "drawn at random" not in page.text


def test_damaged_and_foreign_part_files(tmp_path):
    (tmp_path / "part-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="can't be read"):
        write_report(str(tmp_path), str(tmp_path / "r.html"))
    pq.write_table(pa.table({"uri": ["a"]}), tmp_path / "part-0.parquet")
    with pytest.raises(InputError, match="without the column 'manifest_file'"):
        write_report(str(tmp_path), str(tmp_path / "r.html"))


def damaged(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:  # the footer is whole, and no page is
        footer = int.from_bytes(content[-8:-4], "little") + 8
        path.write_bytes(b"PAR1" + b"\xff" * (len(content) - footer - 4) + content[-footer:])


@pytest.mark.parametrize("how", ["truncated", "overwritten"])
@pytest.mark.parametrize("option", ["scores", "compare"])
def test_a_damaged_part_file_is_named(option, how, tmp_path):
    folders = {}
    for name in ("scores", "compare"):
        folders[name] = another(tmp_path / name, [ok(0, 0.5, "a.jpg")])
        rows = pa.Table.from_pylist([ok(i, i / 100, f"{i}.jpg") for i in range(1, 50)], SCHEMA)
        pq.write_table(rows, tmp_path / name / "part-1.parquet")
    damaged(tmp_path / option / "part-1.parquet", how)
    page = tmp_path / "r.html"
    with pytest.raises(InputError) as no:
        write_report(folders["scores"], str(page), compare=folders["compare"])
    line = no.value.on_command_line()
    assert line.startswith(
        f"part file part-1.parquet of --{option} {folders[option]} can't be read ("
    )
    assert line.endswith("): score again, or restore it")
    assert not page.exists()
