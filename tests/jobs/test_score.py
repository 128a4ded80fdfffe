"""Tests of jobs/score.py with jobs/scoring/run.py and dataset.py: real Ray, images and processes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core import Scorer
from jobs.cli import main

pytestmark = pytest.mark.ray

#: Images in a tar shard, in a folder and in a Parquet column; `.ci/run` has 1,000.
SHARD = int(os.environ.get("IQA_SHARD_IMAGES", "60"))


def scored(folder) -> pa.Table:
    """Return all rows of an output, in the manifest's order."""
    parts = [pq.read_table(path) for path in sorted(Path(folder).glob("part-*.parquet"))]
    table = pa.concat_tables(parts)
    return table.sort_by([("manifest_file", "ascending"), ("manifest_row", "ascending")])


def image_size(path):
    with Image.open(path) as image:
        return image.size


def write_crops(folder, photos, count):
    """Write differently sized crops as JPEG and PNG; return their names."""
    rng = np.random.default_rng(0)
    names = []
    for number in range(count):
        photo = list(photos.values())[number % len(photos)]
        side = int(rng.integers(96, 290))
        top, left = (int(rng.integers(0, edge - side)) for edge in photo.shape[:2])
        crop = photo[top : top + side, left : left + int(side * rng.uniform(0.7, 1.0))]
        name = f"{number:04d}.{'png' if number % 5 == 0 else 'jpg'}"
        Image.fromarray(crop).save(folder / name)
        names.append(name)
    return names


@pytest.fixture(scope="module")
def collection(tmp_path_factory, photos):
    """A folder of 90 images and 5 bad rows, with a manifest of two files and a kept column."""
    folder = tmp_path_factory.mktemp("collection")
    names = write_crops(folder, photos, 90)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "cut.jpg").write_bytes((folder / names[1]).read_bytes()[:900])
    uris = [*names[:40], None, "empty.jpg", "page.jpg", *names[40:], "cut.jpg", "gone.jpg"]
    numbers = list(range(len(uris)))
    manifest = folder / "manifest"
    manifest.mkdir()
    for place, part in enumerate((slice(0, 33), slice(33, None))):
        table = pa.table({"uri": uris[part], "image_id": numbers[part], "mos": numbers[part]})
        # Relative paths count from the manifest's folder.
        paths = [uri and f"../{uri}" for uri in uris[part]]
        table = table.set_column(0, "uri", pa.array(paths, pa.string()))
        pq.write_table(table, manifest / f"{place}.parquet", row_group_size=20)
    return manifest


@pytest.fixture(scope="module")
def first_run(ray_cluster, collection, tmp_path_factory):
    """The collection scored with default options."""
    output = tmp_path_factory.mktemp("first") / "scores"
    options = ["--manifest", str(collection), "--output", str(output), "--keep", "mos"]
    assert main(["score", *options, "--max-error-rate", "0.1"]) == 0
    return output


def test_every_row_is_there_once_with_its_status(first_run, collection, capsys):
    table = scored(first_run)
    assert table.column("manifest_file").to_pylist() == ["0.parquet"] * 33 + ["1.parquet"] * 62
    assert table.column("manifest_row").to_pylist() == [*range(33), *range(62)]
    assert table.column("image_id").to_pylist() == list(range(95))
    assert table.column("mos").to_pylist() == list(range(95))
    statuses = table.column("status").to_pylist()
    bad = {place: status for place, status in enumerate(statuses) if status != "ok"}
    assert bad == {
        40: "invalid_row",
        41: "empty",
        42: "unsupported",
        93: "decode_error",
        94: "not_found",
    }
    for place in range(95):
        row = table.slice(place, 1).to_pylist()[0]
        if place in bad:
            assert row["score"] is row["scores"] is row["margins"] is None
            assert row["error"]
        else:
            assert row["error"] is None
            assert 0 < row["score"] < 1
            assert row["score"] == pytest.approx(np.mean(list(row["scores"].values())), abs=1e-6)
    assert main(["verify", "--scores", str(first_run), "--manifest", str(collection)]) == 0
    assert "none missing, none twice" in capsys.readouterr().out


def test_scores_are_those_of_the_library(first_run, collection):
    table = scored(first_run).filter(pa.compute.field("status") == "ok")
    paths = [(collection / uri).resolve() for uri in table.column("uri").to_pylist()]
    scores = Scorer("tiny").score(paths)
    assert table.column("scores").type.names == list(scores.names)
    np.testing.assert_allclose(table.column("score").to_numpy(), scores.score, atol=1e-5)
    for place, name in enumerate(scores.names):
        column = table.column("margins").combine_chunks().field(name).to_numpy()
        np.testing.assert_allclose(column, scores.margins[:, place], atol=1e-4)
    columns = (table.column(name).to_pylist() for name in ("width", "height"))
    assert list(zip(*columns, strict=True)) == [image_size(path) for path in paths]


def test_scores_depend_on_neither_batches_nor_actors_nor_order(first_run, collection, tmp_path):
    whole = pa.concat_tables(pq.read_table(path) for path in sorted(collection.glob("*.parquet")))
    order = np.random.default_rng(1).permutation(len(whole))
    uris = [uri and str(collection / uri) for uri in whole.column("uri").to_pylist()]
    whole = whole.set_column(0, "uri", pa.array(uris, pa.string()))
    pq.write_table(whole.take(order), tmp_path / "shuffled.parquet")
    output = tmp_path / "scores"
    options = ["--manifest", str(tmp_path / "shuffled.parquet"), "--output", str(output)]
    options += ["--batch-size", "7", "--num-actors", "2", "--cpus-per-actor", "0.5"]
    assert main(["score", *options, "--max-error-rate", "0.1"]) == 0
    first = scored(first_run)
    second = scored(output).sort_by("image_id")
    assert second.column("status").to_pylist() == first.column("status").to_pylist()
    difference = first.column("score").to_numpy() - second.column("score").to_numpy()
    assert np.nanmax(np.abs(difference)) <= 1e-5


def test_the_same_command_again_does_nothing(first_run, collection, capsys):
    before = {path: path.stat().st_mtime_ns for path in first_run.rglob("*")}
    options = ["--manifest", str(collection), "--output", str(first_run), "--keep", "mos"]
    assert main(["score", *options, "--max-error-rate", "0.1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in first_run.rglob("*")} == before


def test_too_many_failed_rows_end_with_status_3(first_run, collection, capsys):
    options = ["--manifest", str(collection), "--output", str(first_run), "--keep", "mos"]
    assert main(["score", *options, "--max-error-rate", "0.05"]) == 3
    assert "5 of 95 rows could not be scored (5.3%)" in capsys.readouterr().out


def test_the_run_folder_says_what_was_done(first_run, collection):
    read = {path.stem: json.loads(path.read_text()) for path in (first_run / "_run").iterdir()}
    assert set(read) == {"plan", "config", "fingerprint", "summary", "progress"}
    assert [file["rows"] for file in read["plan"]["files"]] == [33, 62]
    assert read["config"]["keep"] == ["mos"]
    assert (read["progress"]["state"], read["progress"]["rows_done"]) == ("finished", 95)
    assert read["fingerprint"]["model"] == "tiny"
    summary = read["summary"]
    assert summary["complete"]
    assert summary["statuses"]["ok"] == 90
    assert summary["images_per_second"] > 0
    assert summary["bottleneck"] in summary["stage_seconds"]
    assert all(seconds > 0 for seconds in summary["stage_seconds"].values())


def test_files_that_come_later_are_scored_by_the_next_run(
    ray_cluster, collection, tmp_path, capsys
):
    manifest, output = tmp_path / "manifest", tmp_path / "scores"
    manifest.mkdir()
    first, later = (pq.read_table(collection / f"{place}.parquet") for place in (0, 1))

    def absolute(table):
        uris = [uri and str(collection / uri) for uri in table.column("uri").to_pylist()]
        return table.set_column(0, "uri", pa.array(uris, pa.string()))

    options = ["--manifest", str(manifest), "--output", str(output), "--max-error-rate", "0.1"]
    pq.write_table(absolute(first), manifest / "a.parquet")
    assert main(["score", *options]) == 0
    parts = set(output.glob("part-*.parquet"))
    pq.write_table(absolute(later).slice(0, 12), manifest / "b.parquet")
    assert main(["score", *options, "--max-error-rate", "1"]) == 0
    assert parts < set(output.glob("part-*.parquet"))
    assert len(scored(output)) == 45
    pq.write_table(absolute(later).slice(0, 11), manifest / "b.parquet")
    capsys.readouterr()
    assert main(["score", *options]) == 1
    error = capsys.readouterr().err
    assert "manifest file b.parquet of" in error
    assert "rows changed from 12 to" in error


@pytest.mark.timeout(900)
def test_folders_tar_shards_and_embedded_bytes_give_the_same_scores(ray_cluster, photos, tmp_path):
    images, manifest = tmp_path / "images", tmp_path / "manifest"
    images.mkdir()
    manifest.mkdir()
    names = sorted(write_crops(images, photos, SHARD))
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name in names:
            shard.add(images / name, name)
            text = tarfile.TarInfo(f"{Path(name).stem}.json")  # as WebDataset has it beside each
            text.size = 2
            shard.addfile(text, io.BytesIO(b"{}"))
    for source in ("images", "shard.tar"):
        words = [str(tmp_path / source), "--output", str(manifest / f"{source}.parquet")]
        assert main(["manifest", *words, "--release", "none"]) == 0
    content = [{"bytes": (images / name).read_bytes(), "path": name} for name in names]
    table = pa.table({"image": content, "image_id": names})
    pq.write_table(table, manifest / "embedded.parquet")
    output = tmp_path / "scores"
    assert main(["score", "--manifest", str(manifest), "--output", str(output)]) == 0
    rows = scored(output).to_pandas()
    assert (rows.status == "ok").all()
    by_form = {form: part.score.to_numpy() for form, part in rows.groupby(rows.manifest_file)}
    assert sorted(by_form) == ["embedded.parquet", "images.parquet", "shard.tar.parquet"]
    for found in by_form.values():
        assert len(found) == SHARD
        np.testing.assert_allclose(found, by_form["images.parquet"], atol=1e-5)
