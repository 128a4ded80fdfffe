"""Tests of `iqa score --crops`: mean, lowest and spread are those of the views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core import Scorer
from iqa_core.images.decode import decode_image
from jobs.cli import main

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(ray_cluster, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    for number, photo in enumerate(photos.values()):
        Image.fromarray(photo).save(folder / f"{number}.png")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:5000])
    uris = [f"{number}.png" for number in range(len(photos))] + ["cut.png", "0.png"]
    pq.write_table(pa.table({"uri": uris}), folder / "m.parquet")
    words = ["--manifest", str(folder / "m.parquet"), "--output", str(folder / "scores")]
    assert main(["score", *words, "--crops", "5", "--dedupe"]) == 3
    return folder


def test_columns_are_those_of_the_views(folder):
    parts = [pq.read_table(path) for path in (folder / "scores").glob("part-*.parquet")]
    table = pa.concat_tables(parts).sort_by("manifest_row")
    scorer = Scorer("tiny")
    for row in table.to_pylist():
        if row["uri"] == "cut.png":
            assert row["status"] == "decode_error"
            assert row["score"] is row["score_low"] is row["score_spread"] is None
            continue
        data = Path(folder, row["uri"]).read_bytes()
        views = scorer.score(list(decode_image(data, scorer.preprocess, crops=5).pixels))
        assert row["score"] == pytest.approx(views.score.mean(), abs=1e-5)
        assert row["score_low"] == pytest.approx(views.score.min(), abs=1e-5)
        assert row["score_spread"] == pytest.approx(views.score.std(), abs=1e-5)
        expected = dict(zip(views.names, views.scores.mean(axis=0), strict=True))
        assert row["scores"] == pytest.approx(expected, abs=1e-5)
        assert row["score_spread"] > 0
    assert np.isfinite(table.column("score").drop_null().to_numpy()).all()


def test_the_number_of_crops_belongs_to_the_fingerprint(folder, capsys):
    words = ["--manifest", str(folder / "m.parquet"), "--output", str(folder / "scores")]
    assert main(["score", *words, "--crops", "10"]) == 1
    assert "crops" in capsys.readouterr().err
    assert main(["score", *words]) == 1


def test_a_number_without_a_grid(folder, capsys):
    words = ["--manifest", str(folder / "m.parquet"), "--output", str(folder / "other")]
    assert main(["score", *words, "--crops", "4"]) == 1
    assert "--crops 4 must be 1, 5, 10, 17 or 26" in capsys.readouterr().err
    assert main(["score", *words, "--crops", "5", "--resolution", "native"]) == 1
    assert "leave out --resolution native" in capsys.readouterr().err
