"""Tests of jobs/calibrate.py and of --calibration; no Ray is started."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main

COUNT = 80
WIDTH = 128


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Features of another program, their scores, and labels that follow from these."""
    folder = tmp_path_factory.mktemp("calibrate")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(COUNT, WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[5] = 0
    np.save(folder / "f.npy", rows.astype(np.float16))
    ids = pa.table({"image_id": [f"i{n}" for n in range(COUNT)]})
    pq.write_table(ids, folder / "meta.parquet")
    assert score(folder, "scores", "--pairs", "clip-iqa") == 0
    scores = table_of(folder / "scores")["score"].to_numpy()
    labels = 1 + 4 * scores + rng.normal(size=COUNT) * 0.1
    lines = [f"i{n},{labels[n]}" for n in range(COUNT) if n != 5]
    (folder / "mos.csv").write_text("image_id,mos\n" + "\n".join(lines))
    return folder


def score(folder, output, *words):
    options = ["--features", "f.npy", "--metadata", "meta.parquet", "--output", output]
    places = [str(folder / word) if "." in word or word == output else word for word in options]
    return main(["rescore", *places, "--model", "tiny", *words])


def table_of(scores):
    [part] = scores.glob("part-*.parquet")
    return pq.read_table(part)


def calibrate(folder, *words):
    options = ["--scores", str(folder / "scores"), "--labels", str(folder / "mos.csv")]
    return main(["calibrate", *options, "--output", str(folder / "c.json"), *words])


def test_scores_get_an_opinion_score_and_its_interval(study, capsys):
    assert calibrate(study, "--coverage", "0.8") == 0
    out = capsys.readouterr().out
    assert re.search(r"error in cross-validation \(RMSE\): logistic 0\.\d+, isotonic 0\.\d+;", out)
    assert "80% of new images are to be within 0." in out
    words = ("--pairs", "clip-iqa", "--calibration", str(study / "c.json"))
    assert score(study, "mos", *words) == 0
    table = table_of(study / "mos")
    assert table.column_names[-3:] == ["mos", "mos_low", "mos_high"]
    rows = table.to_pandas()
    assert rows.mos.isna().tolist() == rows.score.isna().tolist() == [n == 5 for n in range(COUNT)]
    labels = [float(line.split(",")[1]) for line in (study / "mos.csv").read_text().split()[1:]]
    scored = rows[rows.score.notna()]
    inside = (scored.mos_low <= labels) & (labels <= scored.mos_high)
    assert 0.65 < inside.mean() < 0.95
    verify = ["--scores", str(study / "mos"), "--manifest", str(study / "meta.parquet")]
    assert main(["verify", *verify]) == 0


def test_another_calibration_does_not_mix_with_the_first(study, capsys):
    assert calibrate(study) == 0
    words = ("--pairs", "clip-iqa", "--calibration", str(study / "c.json"))
    assert score(study, "mixed", *words) == 0
    assert calibrate(study, "--seed", "7", "--coverage", "0.7") == 0
    capsys.readouterr()
    assert score(study, "mixed", *words) == 1
    err = capsys.readouterr().err
    assert "holds another run's rows, with the columns mos" in err
    assert " in its rows only and mos" in err
    assert score(study, "other", "--pairs", "quality", *words[2:]) == 1
    err = capsys.readouterr().err
    assert "--calibration is for scores with prompts" in err
    assert not (study / "other").exists()


@pytest.mark.parametrize("direction", ["rising", "falling"])
def test_a_curve_that_was_not_found_is_told_in_words(tmp_path, capsys, direction):
    """The labels rise in rank, but fall by least squares."""
    score = np.linspace(0, 1, 60)
    mos = np.where(score > 0.94, -100, score)
    table = {
        "manifest_file": ["m.parquet"] * 60,
        "manifest_row": range(60),
        "status": ["ok"] * 60,
        "score": pa.array(score, pa.float32()),
        "mos": mos if direction == "rising" else -mos,
    }
    pq.write_table(pa.table(table), tmp_path / "part-0.parquet")
    words = ["--lower-is-better"] if direction == "falling" else []
    options = ["--scores", str(tmp_path), "--output", str(tmp_path / "c.json")]
    assert main(["calibrate", *options, *words]) == 0
    said = capsys.readouterr().out
    assert f"(RMSE): logistic: no {direction} curve in some folds, isotonic " in said
    assert "nan" not in said


def test_too_few_labels_are_one_line(study, capsys):
    path = study / "few.csv"
    path.write_text("\n".join((study / "mos.csv").read_text().split()[:21]))
    words = ["--scores", str(study / "scores"), "--labels", str(path), "--output", "c.json"]
    assert main(["calibrate", *words]) == 1
    err = capsys.readouterr().err
    assert err.startswith("iqa calibrate: 20 images have a score and a label, but a calibration")
    assert err.count("\n") == 1
