"""Tests of jobs/select.py: from finished scores to a manifest that is read again; no Ray is started."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.fetch.fetcher import Fetcher
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import DATA, read_slice
from iqa_core.tables.rows import RowSet
from iqa_core.tables.slices import plan_slices
from jobs.cli import main
from tests.iqa_core.selecting.outputs import made_up, write_output

ROOT = Path(__file__).parents[2]
COUNT = 40


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Photos, a manifest in a folder of its own, and its scores; the working folder is above them."""
    rows = made_up(COUNT, seed=5).sort_values(["manifest_file", "manifest_row"])
    rows = rows.assign(
        manifest_file="m.parquet",
        manifest_row=range(COUNT),
        uri=[f"photos/{i}.png" for i in range(COUNT)],
        status="ok",
        error=None,
        score=np.linspace(0.1, 0.9, COUNT, dtype=np.float32),
        noise=np.float32(0.5),
        width=30,
        height=20,
    )
    (tmp_path / "lists/photos").mkdir(parents=True)
    for i in range(COUNT):
        Image.new("RGB", (30, 20), (6 * i, 90, 0)).save(tmp_path / f"lists/photos/{i}.png")
    pq.write_table(pa.table({"uri": rows.uri}), tmp_path / "lists/m.parquet")
    write_output(tmp_path / "scores", rows, manifest=tmp_path / "lists/m.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def images_of(manifest_uri):
    """The encoded bytes of a manifest's images, as a run reads them."""
    manifest = open_manifest(manifest_uri)
    fetcher = Fetcher(manifest.folder.uri)
    found = []
    for row_slice in plan_slices(manifest, RowSet()):
        for table in read_slice(manifest.folder, row_slice, (), manifest.image_id_type, 100):
            for row in table.to_pylist():
                found.append(row[DATA] or fetcher.fetch(row["uri"]))
    return found


def test_a_selection_is_a_manifest_wherever_it_lies(home, capsys):
    for output in ("best.parquet", "lists/best.parquet", "deep/er/best.parquet"):
        words = ["select", "--scores", "scores", "--output", output, "--where", "score > 0.3"]
        assert main([*words, "--top", "10%"]) == 0
        said = capsys.readouterr().out
        assert "left out: --top 10% (score of the last one kept: 0.8" in said
        assert f"{output}: 3 rows" in said
        expected = [(home / f"lists/photos/{i}.png").read_bytes() for i in (37, 38, 39)]
        assert images_of(output) == expected
    assert pq.read_table("lists/best.parquet")["uri"][0].as_py() == "photos/37.png"


def test_columns_can_be_kept_by_the_next_run_and_facts_are_in_the_file(home):
    assert main(["select", "--scores", "scores", "--output", "s.parquet", "--bottom", "5"]) == 0
    manifest = open_manifest("s.parquet", ("class", "mos"))
    assert manifest.rows == 5
    facts = json.loads(pq.read_schema("s.parquet").metadata[b"iqa"])["selection"]
    assert facts["scores"][0]["fingerprint"] == "f" * 16
    assert facts["options"] == {"scores": ["scores"], "output": "s.parquet", "bottom": "5"}
    assert (facts["rows"], facts["selected"]) == (COUNT, 5)
    assert facts["left_out"][-1] == {
        "reason": "--bottom 5",
        "rows": COUNT - 5,
        "detail": f"score of the last one kept: {facts['threshold']:.6g}",
    }


def test_images_within_the_manifest_are_taken_along(home):
    data = [(home / f"lists/photos/{i}.png").read_bytes() for i in range(COUNT)]
    pq.write_table(pa.table({"image": data}), "lists/m.parquet", row_group_size=7)
    rows = pd.concat([pq.read_table(p).to_pandas() for p in sorted(home.glob("scores/part*"))])
    again = rows.assign(uri=None, noise=np.float32(0.5))
    again = again.drop(columns=["scores", "margins"])
    write_output(home / "inline", again)
    plan = open_manifest(str(home / "lists/m.parquet")).plan()
    (home / "inline/_run/plan.json").write_text(json.dumps(plan))
    words = ["select", "--scores", "inline", "--output", "out/i.parquet", "--best", "6"]
    assert main(words) == 0
    assert images_of("out/i.parquet") == data[-6:]


def test_several_files(home):
    words = ["select", "--scores", "scores", "--output", "many", "--rows-per-file", "15"]
    assert main(words) == 0
    assert sorted(path.name for path in (home / "many").iterdir()) == [
        f"rows-{i:05d}.parquet" for i in range(3)
    ]
    assert len(images_of("many")) == COUNT


def test_a_dry_run_shows_both_sides_and_writes_no_manifest(home, capsys):
    words = ["select", "--scores", "scores", "--output", "s.parquet", "--top", "25%"]
    assert main([*words, "--where", "score > 0.2", "--dry-run", "--sheet-images", "4"]) == 0
    assert "s.html: images on both sides" in capsys.readouterr().out
    assert not (home / "s.parquet").exists()
    page = (home / "s.html").read_text()
    assert page.count("data:image/webp") == 3 * 4
    at = [page.index(f'alt="{i}.png, score') for i in (32, 35, 31, 28, 4, 1)]
    assert at == sorted(at)  # kept ones from the limit up, lost ones from the limit down
    assert "iqa select --scores scores --output s.parquet --where" in page


def test_json_alone_is_printed(home, capsys):
    words = ["select", "--scores", "scores", "--output", "s.parquet", "--json", "--best", "3"]
    assert main([*words, "--sheet", "s.html"]) == 0
    assert json.loads(capsys.readouterr().out)["selected"] == 3


def test_on_a_store(home):
    fs = fsspec.filesystem("memory")
    fs.put("scores", "memory://select/scores", recursive=True)
    words = ["select", "--scores", "memory://select/scores", "--best", "3"]
    try:
        assert main([*words, "--output", "memory://select/s.parquet"]) == 0
        with fs.open("memory://select/s.parquet") as file:
            uris = pq.read_table(file)["uri"].to_pylist()
        assert uris == [f"{home}/lists/photos/{i}.png" for i in (37, 38, 39)]
    finally:
        fs.rm("memory://select", recursive=True)


def test_the_best_of_duplicates_that_were_found(home, capsys):
    rows = pd.concat([pq.read_table(p).to_pandas() for p in sorted(home.glob("scores/part*"))])
    rows = rows.sort_values("manifest_row").drop(columns=["scores", "margins"])
    hashed = rows.assign(
        content_hash=[f"{i // 4:032x}" for i in range(COUNT)], noise=np.float32(0.5)
    )
    write_output(home / "hashed", hashed, manifest=home / "lists/m.parquet")
    assert main(["duplicates", "--scores", "hashed", "--output", "clusters.parquet"]) == 0
    words = ["select", "--scores", "hashed", "--clusters", "clusters.parquet"]
    assert main([*words, "--keep-best-of", "duplicates", "--output", "u.parquet"]) == 0
    kept = pq.read_table("u.parquet")
    assert kept["manifest_row"].to_pylist() == list(range(3, COUNT, 4))
    assert set(kept["kind"].to_pylist()) == {"exact"}
    capsys.readouterr()
    assert main([*words, "--output", "all.parquet"]) == 0
    assert "--clusters only adds its columns to the rows" in capsys.readouterr().err
    words = ["select", "--scores", "hashed", "--keep-best-of", "content_hash"]
    assert main([*words, "--output", "h.parquet"]) == 0
    assert pq.read_table("h.parquet")["manifest_row"].equals(kept["manifest_row"])


def test_a_file_of_clusters_with_the_name_of_another_output(home, capsys):
    rows = {"manifest_file": ["m.parquet"], "manifest_row": [0], "cluster": [0], "late": [7]}
    pq.write_table(pa.table(rows), "clusters.parquet")
    words = ["select", "--scores", "scores", "late=scores", "--clusters", "clusters.parquet"]
    assert main([*words, "--output", "s.parquet"]) == 1
    err = capsys.readouterr().err
    assert "has a column late, and an output of --scores is known as late" in err
    words[3] = "second=scores"
    assert main([*words, "--output", "s.parquet"]) == 0
    names = pq.read_schema("s.parquet").names
    assert len(set(names)) == len(names)


def test_scores_of_version_0_1(tmp_path, capsys):
    old = ROOT / "tests/data/v0.1"
    words = ["select", "--scores", str(old / "scores"), "--top", "50%"]
    output = str(tmp_path / "s.parquet")
    assert main([*words, "--output", output]) == 1
    assert "can't be read: give it as --manifest" in capsys.readouterr().err
    assert main([*words, "--output", output, "--manifest", str(old / "manifest")]) == 0
    assert all(data.startswith((b"\xff\xd8", b"\x89PNG")) for data in images_of(output))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "score > 2"], "no row is selected: loosen the conditions"),
        (["--where", "skore > 0"], "--where 'skore > 0': there is no column 'skore': did you mean"),
        (["--top", "20%", "--best", "2"], "not allowed with argument --top"),
        (["--memory", "lots"], "--memory lots must be an amount of memory"),
        (
            ["--rank", "width"],
            "--rank has an effect with --top, --bottom, --best, --for-labelling, --keep",
        ),
        (["--rank", "score", "--sample", "3"], "--rank has an effect with --top, --bottom, --best"),
        (["--sheet", "s.html", "--sheet-images", "0"], "--sheet-images 0 makes no page"),
        (["--sheet-images", "24"], "--sheet-images has an effect with --sheet and --dry-run only"),
        (
            ["--allow-prefix", "/photos/"],
            "--allow-prefix has an effect with a page only: add --sheet or --dry-run",
        ),
        (
            ["--allow-scheme", "ftp"],
            "--allow-scheme has an effect with a page only: add --sheet or --dry-run",
        ),
        (["--clusters", "none.parquet"], "--clusters none.parquet can't be read"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(words, message, home, capsys):
    try:
        status = main(["select", "--scores", "scores", "--output", "s.parquet", *words])
    except SystemExit as error:
        status = error.code
    assert status in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(home.glob("s.parquet*"))


@pytest.mark.parametrize(
    "words",
    [
        ["--best", "3"],
        ["--for-labelling", "3"],
        ["--keep-best-of", "class"],
        ["--sample", "3", "--sheet", "s.html", "--sheet-images", "1"],
        ["--dry-run"],
    ],
)
def test_a_rank_is_for_whatever_goes_by_it(words, home):
    words = ["select", "--scores", "scores", "--output", "s.parquet", "--rank", "score", *words]
    assert main(words) == 0


@pytest.mark.parametrize("ranked", [[], ["--best", "3"]])
def test_the_command_on_the_page_can_be_given_again(ranked, home):
    words = ["select", "--scores", "scores", "--output", "s.parquet", "--rank=-score", *ranked]
    assert main([*words, "--where", "score > 0.2", "--sheet", "s.html"]) == 0
    written = images_of("s.parquet")
    shown = html.unescape((home / "s.html").read_text())
    (line,) = re.findall(r"iqa (select --scores scores --output s.parquet [^<]*)", shown)
    assert ("--rank" in line) == bool(ranked)
    (home / "s.parquet").unlink()
    assert main(shlex.split(line)) == 0
    assert images_of("s.parquet") == written
