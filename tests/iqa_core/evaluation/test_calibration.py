"""Tests of iqa_core/evaluation/calibration.py and calibration_file.py."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.errors import InputError
from iqa_core.evaluation.calibration import calibrate, fit_isotonic
from iqa_core.evaluation.calibration_file import CalibrationFile, calibration_columns
from iqa_core.tables.schema import table_with


def study(count, rng, noise=0.3, curve=lambda x: 1 + 4 / (1 + np.exp(-8 * (x - 0.5)))):
    """Return scores in [0, 1] and labels from 1 to 5, with normal errors."""
    x = rng.uniform(0, 1, count)
    return x, curve(x) + rng.normal(size=count) * noise


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_intervals_hold_the_share_of_new_labels_that_they_state(kind, coverage):
    """On average over studies of 200 labels; the error's distribution does not matter."""
    rng = np.random.default_rng(0)
    held = []
    for repetition in range(25):
        x, y = study(200, rng)
        found = calibrate(x, y, kind=kind, coverage=coverage, seed=repetition)
        new, label = study(2000, rng)
        _, low, high = found.predict(new)
        held.append(np.mean((low <= label) & (label <= high)))
    assert abs(np.mean(held) - coverage) < 0.02, (np.mean(held), np.std(held))


def test_the_curve_is_chosen_by_cross_validation():
    rng = np.random.default_rng(1)
    smooth = calibrate(*study(400, rng))
    assert smooth.kind == "logistic"
    assert smooth.rmse["logistic"] < smooth.rmse["isotonic"]
    np.testing.assert_allclose(smooth.rmse["logistic"], 0.3, rtol=0.15)
    np.testing.assert_allclose(smooth.half_width, 1.645 * 0.3, rtol=0.15)
    np.testing.assert_allclose(smooth.predict([0.5])[0], 3, atol=0.1)
    steps = calibrate(*study(400, rng, 0.05, lambda x: np.floor(5 * x)))
    assert steps.kind == "isotonic"
    assert steps.rmse["isotonic"] < steps.rmse["logistic"]
    for found in (smooth, steps):
        curve = found.predict(np.linspace(-1, 2, 200))[0]
        assert (np.diff(curve) >= 0).all()
        assert found.increasing


def test_labels_of_which_a_low_one_is_good():
    x, y = study(100, np.random.default_rng(2))
    for kind in ("logistic", "isotonic"):
        found = calibrate(x, 6 - y, kind=kind, lower_is_better=True)
        assert (np.diff(found.predict(np.linspace(0, 1, 50))[0]) <= 0).all()
        assert found.srcc > 0.9


def test_what_can_not_be_calibrated_is_refused():
    x, y = study(100, np.random.default_rng(3))
    for scores, labels, options, message in [
        (
            x[:29],
            y[:29],
            {},
            "29 images have a score and a label, but a calibration needs at least",
        ),
        (
            x,
            np.full(100, 3.0),
            {},
            "the labels of all 100 images are 3: a calibration needs images",
        ),
        (np.full(100, 0.5), y, {}, "the scores of all 100 images are 0.5"),
        (x, -y, {}, r"labels fall where scores rise \(SRCC -0.9.* on 100 images\): give lower_is"),
        (x, y, {"lower_is_better": True}, "leave out lower_is_better if that is how the labels"),
        (x, y, {"coverage": 0.995}, r"coverage \(0.995\) must be at most 0.990 with 100 labels"),
    ]:
        with pytest.raises(InputError, match=message):
            calibrate(scores, labels, **options)


@pytest.mark.parametrize("labels", [30, 31, 99, 100, 127])
def test_the_highest_coverage_that_is_named_is_accepted(labels):
    x, y = study(labels, np.random.default_rng(8))
    with pytest.raises(InputError, match=f"at most 0.* with {labels} labels") as caught:
        calibrate(x, y, kind="isotonic", coverage=0.999)
    named = float(caught.value.limit.split()[2])
    assert calibrate(x, y, kind="isotonic", coverage=named).coverage == named


def test_an_isotonic_curve_is_the_best_monotone_one():
    """Against the pools of adjacent violators, one by one."""
    rng = np.random.default_rng(4)
    x = np.repeat(np.arange(12.0), 2)
    y = x + rng.normal(size=24) * 4
    pools = [[np.mean(y[x == value]), 2.0] for value in np.unique(x)]
    place = 0
    while place < len(pools) - 1:
        if pools[place][0] > pools[place + 1][0]:
            mean, weight = pools.pop(place + 1)
            total = pools[place][1] + weight
            pools[place] = [(pools[place][0] * pools[place][1] + mean * weight) / total, total]
            place = max(0, place - 1)
        else:
            place += 1
    wanted = np.repeat([mean for mean, _ in pools], [int(weight) // 2 for _, weight in pools])
    np.testing.assert_allclose(fit_isotonic(x, y)(np.arange(12.0)), wanted)


@pytest.fixture
def file():
    found = calibrate(*study(60, np.random.default_rng(5)), kind="isotonic")
    made_by = {"model": "tiny", "weights": "w" * 64, "prompts": "p" * 64, "logit_scale": 100.0}
    return CalibrationFile.of(found, "mos", {**made_by, "columns": ["score"]})


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_a_file_is_read_back(tmp_path, kind):
    found = calibrate(*study(60, np.random.default_rng(6)), kind=kind)
    written = CalibrationFile.of(found, "quality", {"weights": "w"})
    path = str(tmp_path / "c.json")
    written.write(path)
    read = CalibrationFile.read(path)
    assert read.digest == written.digest
    scores = np.linspace(0, 1, 20)
    np.testing.assert_array_equal(read.calibration.predict(scores), found.predict(scores))
    (tmp_path / "c.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(InputError, match=r"calibration .* is not a calibration .*its format is 2"):
        CalibrationFile.read(path)
    with pytest.raises(InputError, match="is not a calibration"):
        CalibrationFile.read(str(tmp_path / "gone.json"))


def test_a_file_is_json_also_without_a_logistic_curve(tmp_path):
    """Labels that rise in rank, but fall by least squares: NaN is no JSON, so it is null there."""
    x = np.linspace(0, 1, 60)
    found = calibrate(x, np.where(x > 0.94, -100, x))
    assert np.isnan(found.rmse["logistic"])
    path = tmp_path / "c.json"
    CalibrationFile.of(found, "mos", {}).write(str(path))
    stored = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert stored["rmse"] == {"logistic": None, "isotonic": found.rmse["isotonic"]}
    read = CalibrationFile.read(str(path))
    assert np.isnan(read.calibration.rmse["logistic"])
    assert read.calibration.rmse["isotonic"] == found.rmse["isotonic"]
    # files of earlier versions hold NaN
    path.write_text(path.read_text().replace("null", "NaN"))
    assert CalibrationFile.read(str(path)).digest == read.digest


def test_scores_of_other_prompts_are_refused(file):
    made_by = dict(file.scored_by)
    file.check(made_by | {"columns": "any", "resolution": "native"})
    for key in ("weights", "prompts", "logit_scale"):
        with pytest.raises(InputError, match=f"is for scores with {key} "):
            file.check(made_by | {key: "other"})


def test_scores_of_other_views_are_refused(file):
    """Without the key, as in files and outputs of earlier versions, scores are of one view."""
    one = dict(file.scored_by)
    assert "crops" not in one
    five = CalibrationFile.of(file.calibration, "mos", one | {"crops": 5})
    file.check(one | {"crops": 1})
    five.check(one | {"crops": 5})
    with pytest.raises(InputError, match="is for scores with crops 1, but these have 5: calibrate"):
        file.check(one | {"crops": 5})
    for scores in (one, one | {"crops": 10}):
        with pytest.raises(InputError, match=r"is for scores with crops 5, but these have 10?:"):
            five.check(scores)


def test_columns(file):
    columns = calibration_columns(file)
    score = pa.array([0.1, None, 0.9], pa.float32())
    table = table_with(pa.table({"score": score}), columns)
    assert table.column_names == ["score", "mos", "mos_low", "mos_high"]
    assert table["mos"].is_null().to_pylist() == [False, True, False]
    width = file.calibration.half_width
    rows = table.drop_null().to_pandas()
    np.testing.assert_allclose(rows.mos_high - rows.mos_low, 2 * width, rtol=1e-5)
    assert columns[0].field.metadata[b"digest"] == file.digest.encode()
    other = dataclasses.replace(file, label="other")
    assert other.digest != file.digest
