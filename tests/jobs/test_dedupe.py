"""Tests of `iqa score --hash --dedupe` and `iqa duplicates`: real Ray, images and processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.clip.load import load_towers
from iqa_core.duplicates.content_hash import content_hash
from iqa_core.duplicates.descriptor import describe_pixels
from iqa_core.images.decode import decode_image
from jobs.cli import main

pytestmark = pytest.mark.ray


def rows_of(folder) -> pa.Table:
    parts = [pq.read_table(path) for path in sorted(Path(folder).glob("part-*.parquet"))]
    return pa.concat_tables(parts).sort_by("manifest_row")


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory):
    """36 rows of 12 images: by the same URI, by copies under other names, and a damaged image twice."""
    folder = tmp_path_factory.mktemp("copies")
    names = []
    for number in range(12):
        photo = list(photos.values())[number % len(photos)]
        side = 200 + 10 * number
        name = f"{number}.jpg"
        Image.fromarray(photo[number : number + side, :side]).save(folder / name)
        copy = folder / f"copy-{number}.jpg"
        copy.write_bytes((folder / name).read_bytes())
        names += [name, copy.name]
    (folder / "cut.jpg").write_bytes((folder / "0.jpg").read_bytes()[:900])
    uris = [*names, *names[:10], "cut.jpg", "cut.jpg"]
    pq.write_table(pa.table({"uri": uris}), folder / "m.parquet")
    return folder


@pytest.fixture(scope="module")
def scored(ray_cluster, folder):
    """Outputs without and with --dedupe."""
    for name, options in (("plain", []), ("deduped", ["--dedupe"])):
        words = ["--manifest", str(folder / "m.parquet"), "--output", str(folder / name)]
        more = ["--descriptors", "--num-actors", "1", *options]
        status = main(["score", *words, "--hash", "--embeddings", *more])
        assert status == 3  # 2 of 36 rows are damaged
    return folder


def test_the_output_is_the_same(scored):
    plain, deduped = rows_of(scored / "plain"), rows_of(scored / "deduped")
    assert plain.schema == deduped.schema
    exact = ["uri", "status", "error", "width", "height", "content_hash", "descriptor"]
    assert plain.select(exact).equals(deduped.select(exact))
    # The last bits of a score depend on how many images went through the tower together.
    values = [table.column("score").drop_null().to_numpy() for table in (plain, deduped)]
    np.testing.assert_allclose(*values, rtol=0, atol=1e-6)
    copies = deduped.to_pandas().dropna(subset="score").groupby("content_hash").score.nunique()
    assert (copies == 1).all()


def test_hashes_are_those_of_the_files(scored):
    table, preprocess = rows_of(scored / "deduped"), load_towers("tiny").preprocess
    for row in table.select(["uri", "status", "content_hash", "descriptor"]).to_pylist():
        data = (scored / row["uri"]).read_bytes()
        assert row["content_hash"] == content_hash(data)
        if row["status"] == "ok":
            pixels = decode_image(data, preprocess).pixels
            assert row["descriptor"] == list(np.frombuffer(describe_pixels(pixels), np.int8))
        else:
            assert row["descriptor"] is None


def test_near_copies_of_the_output_are_found(scored, capsys):
    words = ["--scores", str(scored / "plain"), "--output", str(scored / "c.parquet")]
    assert main(["duplicates", *words]) == 0
    assert "34 rows" in capsys.readouterr().out
    table = pq.read_table(scored / "c.parquet")
    assert set(table.column("kind").to_pylist()) == {"exact"}


def test_the_summary_counts_the_repeats(scored):
    summary = json.loads((scored / "deduped/_run/summary.json").read_text())
    assert summary["last_run"]["repeated"] == 22  # of 34 good rows, 12 were encoded
    summary = json.loads((scored / "plain/_run/summary.json").read_text())
    assert summary["last_run"]["repeated"] is None


def test_an_output_can_be_continued_with_or_without_it(scored, capsys):
    words = ["--manifest", str(scored / "m.parquet"), "--output", str(scored / "plain")]
    assert main(["score", *words, "--hash", "--descriptors", "--embeddings", "--dedupe"]) == 3
    assert "nothing to do" in capsys.readouterr().out
    assert main(["score", *words, "--embeddings"]) == 1  # without --hash it has other columns
    assert "columns" in capsys.readouterr().err


def test_degraded_views_and_dedupe_exclude_each_other(scored, capsys):
    words = ["--manifest", str(scored / "m.parquet"), "--output", str(scored / "embedded")]
    assert main(["embed", *words, "--views", "2", "--dedupe"]) == 1
    assert "--dedupe can't be used with --views 2" in capsys.readouterr().err
