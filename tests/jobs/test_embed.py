"""Tests of jobs/embed.py and jobs/rescore.py: features once, then scores without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core import Scorer
from iqa_core.images.decode import decode_image
from iqa_core.images.degrade import LEVELS, degraded_views
from iqa_core.tables.feature_cache import FeatureCache, features_of, views_of
from jobs.cli import main

pytestmark = pytest.mark.ray


def rows_of(folder) -> pa.Table:
    parts = [pq.read_table(path) for path in sorted(Path(folder).glob("part-*.parquet"))]
    return pa.concat_tables(parts).sort_by("manifest_row")


@pytest.fixture(scope="module")
def features(ray_cluster, photos, tmp_path_factory):
    """The features of 24 images and one missing file, with a kept column."""
    folder = tmp_path_factory.mktemp("embed")
    for number in range(24):
        photo = list(photos.values())[number % len(photos)]
        Image.fromarray(photo[number : number + 250, :250]).save(folder / f"{number}.png")
    uris = [f"{number}.png" for number in range(24)] + ["gone.png"]
    table = pa.table({"uri": uris, "mos": [float(n) for n in range(25)]})
    pq.write_table(table, folder / "manifest.parquet")
    options = ["--manifest", str(folder / "manifest.parquet"), "--output", str(folder / "features")]
    assert main(["embed", *options, "--keep", "mos", "--views", "3"]) == 0
    return folder / "features"


def test_features_are_those_of_the_library(features):
    cache = FeatureCache(str(features))
    assert (cache.width, cache.kept) == (128, ["mos"])
    table = rows_of(features)
    assert "score" not in table.column_names
    assert table.column("mos").to_pylist() == [float(n) for n in range(25)]
    found = features_of(table)
    expected = Scorer("tiny").score([features.parent / f"{n}.png" for n in range(24)]).features
    np.testing.assert_allclose(found[:24], expected, atol=1e-3)  # stored as float16
    assert np.isnan(found[24]).all()


def test_views_are_features_of_degraded_copies(features):
    assert FeatureCache(str(features)).views == 3
    table = rows_of(features)
    views, levels = views_of(table)
    assert views.shape == (25, 3, 128)
    assert set(np.unique(levels[:24])) <= set(LEVELS)
    assert (levels[24] == 0).all()
    assert np.isnan(views[24]).all()
    # The copies that the row's place fixes, through the same tower.
    scorer = Scorer("tiny")
    for row in (0, 7):
        pixels = decode_image(
            (features.parent / f"{row}.png").read_bytes(), scorer.preprocess
        ).pixels
        copies, stated = degraded_views(pixels, 3, f"manifest.parquet:{row}")
        assert levels[row].tolist() == stated
        expected = scorer.tower.encode(np.stack(copies)).numpy()
        np.testing.assert_allclose(views[row], expected, atol=1e-3)


def test_scores_from_features_are_those_from_images(features, tmp_path, capsys):
    output = tmp_path / "scores"
    options = ["--features", str(features), "--output", str(output), "--pairs", "pyiqa"]
    assert main(["score", *options]) == 0
    assert "25 rows in, 25 rows out" in capsys.readouterr().out
    table = rows_of(output)
    expected = Scorer("tiny", "pyiqa").score([features.parent / f"{n}.png" for n in range(24)])
    np.testing.assert_allclose(
        table.column("score").to_numpy()[:24], expected.score, atol=2e-3
    )  # float16 features
    assert table.column("score").to_pylist()[24] is None
    assert table.column("status").to_pylist() == ["ok"] * 24 + ["not_found"]
    assert table.column("mos").to_pylist() == [float(n) for n in range(25)]
    assert main(["score", *options]) == 0
    assert "nothing to do" in capsys.readouterr().out
    manifest = str(features.parent / "manifest.parquet")
    assert main(["verify", "--scores", str(output), "--manifest", manifest]) == 0


def test_rescoring_resumes(features, tmp_path):
    output = tmp_path / "scores"
    options = ["--features", str(features), "--output", str(output)]
    assert main(["score", *options]) == 0
    (part,) = output.glob("part-*.parquet")
    whole = rows_of(output)
    pq.write_table(pq.read_table(part).slice(0, 10), part)
    assert main(["score", *options]) == 0
    assert len(list(output.glob("part-*.parquet"))) == 2
    assert rows_of(output).equals(whole)


def test_features_of_other_weights_are_refused(features, tmp_path, capsys):
    copy = tmp_path / "features"
    copy.mkdir()
    (copy / "_run").mkdir()
    for path in [*features.glob("part-*.parquet"), *features.glob("_run/*.json")]:
        target = copy / path.relative_to(features)
        content = path.read_bytes()
        target.write_bytes(content.replace(b'"weights": "', b'"weights": "0'))
    assert main(["score", "--features", str(copy), "--output", str(tmp_path / "o")]) == 1
    assert "run `iqa embed` again" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_folders_without_features_are_refused(tmp_path, capsys):
    assert main(["score", "--features", str(tmp_path), "--output", str(tmp_path / "o")]) == 1
    assert "holds no features: give the output folder of `iqa embed`" in capsys.readouterr().err
