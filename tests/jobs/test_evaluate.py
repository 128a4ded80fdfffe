"""Tests of jobs/evaluate.py: text, JSON and figure of the command, and its own errors."""

from __future__ import annotations

import json

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy import stats

from iqa_core.evaluation.results import METRICS
from jobs.cli import main

COUNT = 60


@pytest.fixture
def study(tmp_path):
    """Two runs over one CSV of opinions: the second is noisier; both fail on an image."""
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, COUNT)
    rows = "".join(f"i{i},{mos[i]},{('blur', 'noise')[i % 2]},r{i % 6}\n" for i in range(COUNT))
    (tmp_path / "mos.csv").write_text("image_id,mos,distortion,reference\n" + rows)
    for name, noise in (("good", 0.3), ("bad", 3.0)):
        (tmp_path / name).mkdir()
        score = mos + noise * rng.normal(size=COUNT)
        table = {
            "manifest_file": ["m.parquet"] * COUNT,
            "manifest_row": range(COUNT),
            "image_id": [f"i{i}" for i in range(COUNT)],
            "status": ["ok"] * (COUNT - 1) + ["not_found"],
            "score": pa.array([*score[:-1], None], pa.float32()),
        }
        pq.write_table(pa.table(table), tmp_path / name / "part-0.parquet")
    return tmp_path


def evaluate(study, capsys, *words, scores=("good",)):
    sources = [str(study / name) for name in scores]
    status = main(["evaluate", "--scores", *sources, "--labels", str(study / "mos.csv"), *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_text(study, capsys):
    status, out, err = evaluate(study, capsys, "--resamples", "50", "--by", "distortion")
    assert (status, err) == (0, "")
    assert "good: 59 of 60 rows used; left out: 1 not scored\njoined by image_id" in out
    assert "95% bootstrap intervals from 50 resamples of images" in out
    assert all(title in out for title in METRICS.values())
    assert "\nblur " in out


def test_json(study, capsys):
    words = ("--json", "--resamples", "50", "--by", "distortion", "--resample-by", "reference")
    status, out, _ = evaluate(study, capsys, *words, scores=("good", "bad"))
    assert status == 0
    found = json.loads(out)
    good, bad = (str(study / name) for name in ("good", "bad"))
    assert found["images"] == 59
    assert found["scores"][good] == {"rows": 60, "used": 59, "left_out": {"not scored": 1}}
    assert found["bootstrap"] == {"resamples": 50, "clusters": 6, "confidence": 0.95, "seed": 0}
    table = pq.read_table(study / "good" / "part-0.parquet")
    labels = [float(line.split(",")[1]) for line in (study / "mos.csv").read_text().split()[1:]]
    wanted = stats.spearmanr(table["score"].to_numpy()[:-1], labels[:-1]).statistic
    assert found["metrics"][good]["srcc"]["value"] == pytest.approx(wanted, abs=1e-9)
    first = found["comparisons"][0]
    assert (first["first"], first["second"], first["metric"]) == (good, bad, "srcc")
    assert (first["test"], first["p_holm"]) == ("", first["p_bootstrap"])  # with clusters
    assert set(found["groups"]) == {"blur", "noise"}


def test_how_labels_were_read_is_told_in_both_forms(study, capsys):
    text = (study / "mos.csv").read_text().replace("image_id,mos", "Image,MOS")
    lines = [line.replace(",", ".png,", 1) if i else line for i, line in enumerate(text.split())]
    (study / "mos.csv").write_text("\n".join([*lines, "i60.png,n/a,blur,r0"]))
    status, out, err = evaluate(study, capsys, "--resamples", "0")
    assert (status, err) == (0, "")
    notes = [line for line in out.splitlines() if "mos.csv" in line or "joined" in line]
    assert [note.rpartition(study.name)[2] for note in notes] == [
        "/mos.csv: column 'MOS' is taken for 'mos'",
        "/mos.csv: 1 cell read as missing: 'n/a' (1)",
        "/mos.csv",
        "/good: 60 rows joined ignoring the suffix, such as 'i0' with 'i0.png'",
        "joined by image_id",
    ]
    _, out, _ = evaluate(study, capsys, "--resamples", "0", "--json")
    assert json.loads(out)["notes"] == notes[:-1]


def test_a_column_name_twice_is_one_line(study, capsys):
    (study / "mos.csv").write_text("image_id,mos,mos\ni0,1,2\ni1,2,3\ni2,3,4\n")
    status, out, err = evaluate(study, capsys, "--resamples", "0")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "mos.csv has the column 'mos' 2 times: rename or remove all but one" in err


def test_direction(study, capsys):
    _, out, _ = evaluate(study, capsys, "--json", "--resamples", "0", "--lower-is-better")
    found = json.loads(out)
    metrics = found["metrics"][str(study / "good")]
    assert metrics["srcc"] == {"value": pytest.approx(-0.95, abs=0.05), "low": None, "high": None}
    assert found["lower_is_better"] is True
    _, out, _ = evaluate(study, capsys, "--json", "--resamples", "0", "--by", "distortion")
    found = json.loads(out)
    assert [each["lower_is_better"] for each in (found, found["groups"]["blur"])] == [False] * 2


def test_no_form_shows_the_password_of_a_uri(study, capsys):
    """Text, JSON and figure; `iqa calibrate` takes such URIs, too."""
    memory = fsspec.filesystem("memory")
    memory.put(str(study / "good"), "/me:hunter2@box/good", recursive=True)
    uri, labels = "memory://me:hunter2@box/good", str(study / "mos.csv")
    figure = study / "plot.svg"
    words = ["--scores", uri, "--labels", labels]
    try:
        for form in (["--json"], ["--figure", str(figure)]):
            assert main(["evaluate", *words, "--resamples", "0", *form]) == 0
            said = capsys.readouterr()
            assert "memory://box/good" in said.out
            assert "hunter2" not in said.out + said.err
        assert "hunter2" not in figure.read_text()
        assert main(["calibrate", *words, "--output", str(study / "c.json")]) == 0
        said = capsys.readouterr()
        assert "hunter2" not in said.out + said.err
    finally:
        memory.rm("/me:hunter2@box", recursive=True)


def test_figure(study, capsys):
    target = study / "figures" / "plot.svg"
    assert evaluate(study, capsys, "--figure", str(target), "--resamples", "10")[0] == 0
    assert target.read_text().startswith("<svg")
    assert [one.name for one in target.parent.iterdir()] == ["plot.svg"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--figure", "plot.png"], "--figure plot.png must be an .svg file: let its name"),
        (
            ["--label-column", "dmos"],
            "has no column 'dmos', but image_id, mos, distortion, reference",
        ),
        (["--labels", "nope://x.csv"], "--labels nope://x.csv can't be read: Protocol not known"),
        (["--labels", "nope://x"], "--labels nope://x can't be opened: Protocol not known: nope"),
        (["--scores", "nope://x"], "--scores nope://x can't be opened: Protocol not known: nope"),
        (["--figure", "nope://x/y.svg"], "--figure nope://x can't be opened: Protocol not known"),
        (["--confidence", "1"], "--confidence 1.0 must be at most 0.999"),
        (["--confidence", "0"], "--confidence 0.0 must be above 0"),
        (["--resamples", "-1"], "--resamples -1 must be at least 0"),
        (
            ["--where", "distortion=jpeg"],
            "0 images have a label and a score, but at least 3 are needed",
        ),
    ],
)
def test_errors_are_one_line(study, capsys, words, text):
    status, out, err = evaluate(study, capsys, *words)
    assert (status, out) == (1, "")
    assert text in err
    assert err.count("\n") == 1


def test_a_figure_that_can_not_be_written(study, capsys):
    (study / "file").write_text("")
    target = str(study / "file" / "plot.svg")
    status, _, err = evaluate(study, capsys, "--figure", target, "--resamples", "0")
    assert status == 1
    assert f"--figure {target} can't be written: " in err


def test_a_single_pair(study, capsys):
    part = study / "good" / "part-0.parquet"
    table = pq.read_table(part)
    turned = pc.subtract(1.0, table["score"].combine_chunks()).cast(pa.float32())
    pairs = pa.StructArray.from_arrays(
        [table["score"].combine_chunks(), turned], ["plain", "turned"]
    )
    pq.write_table(table.append_column("scores", pairs), part)
    values = {}
    for pair in ("plain", "turned"):
        status, out, _ = evaluate(study, capsys, "--json", "--resamples", "0", "--pair", pair)
        assert status == 0
        values[pair] = json.loads(out)["metrics"][str(study / "good")]["srcc"]["value"]
    assert values["turned"] == pytest.approx(-values["plain"])
    status, _, err = evaluate(study, capsys, "--pair", "noise")
    assert status == 1
    assert "--pair 'noise' is no prompt pair of --scores" in err
    assert "which has plain, turned" in err
