"""Tests of `iqa rescore` with features of other programs: equal scores, and what is refused. No Ray."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.clip.load import load_towers
from iqa_core.images.decode import decode_image
from jobs.cli import main

COUNT = 60
WIDTH = 128


@pytest.fixture(scope="module")
def towers():
    return load_towers("tiny")


@pytest.fixture(scope="module")
def photos_folder(photos, tmp_path_factory):
    """Images on disk."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        photo = list(photos.values())[number % len(photos)]
        Image.fromarray(photo[number : number + 80, :80]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def halves(photos_folder, towers):
    """Their features as `tiny` makes them, (60, 128) float16; rows 7 and 8 have none."""
    pixels = [
        decode_image((photos_folder / f"{n}.png").read_bytes(), towers.preprocess).pixels
        for n in range(COUNT)
    ]
    rows = towers.image.encode(np.stack(pixels)).numpy().astype(np.float16)
    rows[7], rows[8] = 0, np.nan
    return rows


@pytest.fixture(scope="module")
def metadata():
    """What other programs write beside features."""
    return pa.table(
        {
            "uri": [f"{n}.png" for n in range(COUNT)],
            "caption": [f"photo {n}" for n in range(COUNT)],
        }
    )


def lists(rows, kind):
    return pa.array(list(rows), pa.list_(kind))


def fixed(rows):
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def write_cache(folder, rows, metadata, towers):
    """Write what `iqa embed` leaves."""
    (folder / "_run").mkdir(parents=True)
    made_by = {"model": "tiny", "weights": towers.digest}
    (folder / "_run/fingerprint.json").write_text(json.dumps(made_by))
    plan = {"manifest": "m", "files": [{"name": "m", "size": 1, "row_groups": [COUNT]}]}
    (folder / "_run/plan.json").write_text(json.dumps(plan))
    columns = {
        "manifest_file": ["m"] * COUNT,
        "manifest_row": pa.array(range(COUNT), pa.int64()),
        "image_id": pa.nulls(COUNT, pa.string()),
        "uri": metadata["uri"],
        "status": ["ok"] * COUNT,
        "error": pa.nulls(COUNT, pa.string()),
        "width": pa.nulls(COUNT, pa.int32()),
        "height": pa.nulls(COUNT, pa.int32()),
        "embedding": fixed(rows),
        "caption": metadata["caption"],
    }
    pq.write_table(pa.table(columns), folder / "part-0.parquet", row_group_size=25)


def write_numbered(folder, rows, metadata):
    """Write what clip-retrieval leaves: numbered arrays, and metadata of the same numbers."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(COUNT), 11)):
        np.save(folder / f"img_emb/img_emb_{number}.npy", rows[part])
        pq.write_table(metadata.take(part), folder / f"metadata/metadata_{number}.parquet")
    return folder / "img_emb", ["--metadata", folder / "metadata"]


def write_forms(folder, rows, metadata):
    """Write the same features in every form; return options by form."""
    folder.mkdir()
    pq.write_table(metadata, folder / "meta.parquet", row_group_size=17)
    beside = ["--metadata", folder / "meta.parquet"]
    np.save(folder / "one.npy", rows)
    np.save(folder / "wide.npy", rows.astype(np.float32))
    np.savez_compressed(folder / "datacomp.npz", l14_img=rows, l14_txt=-rows)
    for name, column in {
        "hf": lists(rows.astype(np.float32), pa.float32()),
        "half": lists(rows, pa.float16()),
        "fixed": fixed(rows),
    }.items():
        table = metadata.append_column("image_features", column)
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=20)
    numbered, options = write_numbered(folder / "numbered", rows, metadata)
    return {
        "npy": ["--features", folder / "one.npy", *beside],
        "float32": ["--features", folder / "wide.npy", *beside],
        "numbered": ["--features", numbered, *options],
        "npz": ["--features", folder / "datacomp.npz", "--features-column", "l14_img", *beside],
        "hf": ["--features", folder / "hf.parquet"],
        "half": ["--features", folder / "half.parquet"],
        "fixed": ["--features", folder / "fixed.parquet", "--features-column", "image_features"],
    }


def rescore(words, output, *more):
    words = [*words, "--output", output, "--max-error-rate", "1", *more]
    return main(["rescore", *map(str, words)])


def rows_of(output):
    parts = [pq.read_table(path) for path in output.glob("part-*.parquet")]
    return pa.concat_tables(parts).sort_by([("caption", "ascending")])


def test_every_form_gives_the_scores_of_our_own(tmp_path, halves, metadata, towers, capsys):
    write_cache(tmp_path / "cache", halves, metadata, towers)
    assert rescore(["--features", tmp_path / "cache"], tmp_path / "own") == 0
    own = rows_of(tmp_path / "own")
    compared = ["uri", "status", "error", "score", "scores", "margins", "caption"]
    assert own["status"].to_pylist().count("model_error") == 2
    assert own["score"].null_count == 2
    forms = write_forms(tmp_path / "foreign", halves, metadata)
    for name, words in forms.items():
        output = tmp_path / name
        assert rescore(words, output, "--model", "tiny") == 0, capsys.readouterr().err
        found = rows_of(output)
        assert found.schema.names == own.schema.names
        assert found.select(compared).equals(own.select(compared)), name
        place = words[-1] if "--metadata" in words else words[1]
        assert main(["verify", "--scores", str(output), "--manifest", str(place)]) == 0
        assert rescore(words, output, "--model", "tiny") == 0
        assert "nothing to do: all 60 rows" in capsys.readouterr().out
    page = tmp_path / "report.html"
    assert main(["report", "--scores", str(tmp_path / "npz"), "--output", str(page)]) == 0
    assert ".png" in page.read_text(encoding="utf-8")


def test_arrays_without_metadata_are_their_own_manifest(tmp_path, halves, capsys):
    np.save(tmp_path / "a.npy", halves)
    words = ["--features", tmp_path / "a.npy", "--model", "tiny"]
    assert rescore(words, tmp_path / "o") == 0
    [part] = (tmp_path / "o").glob("part-*.parquet")
    table = pq.read_table(part)
    assert set(table["manifest_file"].to_pylist()) == {"a.npy"}
    assert table["manifest_row"].to_pylist() == list(range(COUNT))
    verify = ["verify", "--scores", str(tmp_path / "o"), "--manifest", str(tmp_path / "a.npy")]
    assert main(verify) == 0
    np.save(tmp_path / "a.npy", halves[::-1])
    capsys.readouterr()
    assert main(verify) == 1
    assert "digest changed from sample" in capsys.readouterr().err
    assert rescore(words, tmp_path / "o") == 1
    assert "holds another run's rows, with features" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("npy", [], "does not say which model made it: name that by --model"),
        ("npy", ["--model", "tiny", "--keep", "x"], "--keep x must be a column that the features"),
        ("cache", ["--model", "tiny"], "--model is for features of other programs, but --features"),
        (
            "gone",
            ["--model", "tiny"],
            "holds no features: give the output folder of `iqa embed`, or *.npy",
        ),
    ],
)
def test_options_that_do_not_fit(
    tmp_path, halves, metadata, towers, capsys, form, options, message
):
    if form == "cache":
        write_cache(tmp_path / form, halves, metadata, towers)
    elif form == "npy":
        np.save(tmp_path / "npy.npy", halves)
    name = "npy.npy" if form == "npy" else form
    assert rescore(["--features", tmp_path / name, *options], tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def spoilt(rows, kind):
    rows = rows.astype(np.float32)
    if kind == "transposed":
        return np.ascontiguousarray(rows.T)
    if kind == "narrow":
        return rows[:, :64]
    return rows * 3 if kind == "long" else rows


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("transposed", "has the shape (128, 60), and --model tiny makes 128 values for an image"),
        ("narrow", "has 64 values in a row, but --model tiny makes 128"),
        ("long", "rows are not of length 1 (the median is 3"),
    ],
)
def test_features_that_can_not_be_the_model_s(tmp_path, halves, capsys, kind, message):
    np.save(tmp_path / "a.npy", spoilt(halves, kind))
    words = ["--features", tmp_path / "a.npy", "--model", "tiny"]
    assert rescore(words, tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "o").exists()
    if kind == "long":
        assert rescore(words, tmp_path / "o", "--normalise") == 0


def test_a_canary_tells_the_model_s_features_from_others(
    tmp_path, halves, metadata, photos_folder, capsys
):
    for name in photos_folder.glob("*.png"):
        (tmp_path / name.name).symlink_to(name)
    pq.write_table(metadata, tmp_path / "meta.parquet")
    np.save(tmp_path / "right.npy", halves)
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    others = (halves.astype(np.float64) @ turned).astype(np.float16)
    np.save(tmp_path / "other.npy", others)
    np.save(tmp_path / "shifted.npy", np.roll(halves, 1, axis=0))
    some = pa.table({"uri": [f"{n}.png" for n in (3, 40, 59)]})
    pq.write_table(some, tmp_path / "some.parquet")

    def check(name, images):
        words = ["--features", tmp_path / name, "--metadata", tmp_path / "meta.parquet"]
        words += ["--model", "tiny", "--check-images", images]
        status = rescore(words, tmp_path / f"output-{len(list(tmp_path.glob('output-*')))}")
        said = capsys.readouterr()
        return status, said.out, said.err

    status, out, err = check("right.npy", 5)
    assert status == 0, err
    assert "--check-images: 5 images have a cosine of 1.0000 (median" in out
    status, out, _ = check("right.npy", tmp_path / "some.parquet")
    assert status == 0
    assert "3 images have a cosine of 1.0000" in out
    # The metadata have no image_id, as those of other programs, and a manifest may have one.
    pq.write_table(some.append_column("image_id", [["a", "b", "c"]]), tmp_path / "some.parquet")
    status, out, err = check("right.npy", tmp_path / "some.parquet")
    assert status == 0, err
    assert "3 images have a cosine of 1.0000" in out
    for name in ("other.npy", "shifted.npy"):
        status, _, err = check(name, 5)
        assert status == 1
        assert "another model made the features, their rows are in another order, or images" in err
    pq.write_table(pa.table({"uri": ["nowhere.png"]}), tmp_path / "some.parquet")
    status, _, err = check("right.npy", tmp_path / "some.parquet")
    assert status == 1
    assert "no image could be compared (no row of the features names one of them)" in err
