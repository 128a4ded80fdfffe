"""Tests of jobs/duplicates.py: the command, its file and its messages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from tests.iqa_core.duplicates.outputs import WIDTH, write_output

CONTENTS = [b"a", b"b", b"a", b"c", b"d"]
FEATURES = np.array([[1, 0], [0, 1], [1, 0], [0.05, 1], [-1, 0]]) @ np.eye(2, WIDTH)
FEATURES /= np.linalg.norm(FEATURES, axis=1, keepdims=True)


@pytest.fixture
def scores(tmp_path):
    return write_output(tmp_path, CONTENTS, FEATURES)


def test_clusters_by_bytes_and_by_features(scores, tmp_path, capsys):
    output = tmp_path / "clusters.parquet"
    words = ["--scores", scores, "--features", scores, "--output", str(output)]
    assert main(["duplicates", *words, "--threshold", "0.99"]) == 0
    assert capsys.readouterr().out == (
        f"{output}: of 5 images, 4 rows in 2 clusters; 2 share their bytes with another row; 2 are near "
        "(cosine at least 0.99); the largest cluster has 2\n"
    )
    table = pq.read_table(output)
    assert table.column_names == [
        "manifest_file",
        "manifest_row",
        "image_id",
        "uri",
        "cluster",
        "similarity",
        "lowest_similarity",
        "kind",
    ]
    found = [(row["uri"], row["cluster"], row["kind"]) for row in table.to_pylist()]
    assert found == [
        ("0.jpg", 0, "exact"),
        ("1.jpg", 1, "near"),
        ("2.jpg", 0, "exact"),
        ("3.jpg", 1, "near"),
    ]
    facts = json.loads(table.schema.metadata[b"iqa_duplicates"])
    assert facts == {"scores": scores, "features": scores, "threshold": 0.99, "rows": 5}


def test_without_features_only_bytes_are_compared(scores, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["duplicates", "--scores", scores, "--output", "c.parquet"]) == 0
    assert "near" not in capsys.readouterr().out
    assert pq.read_table("c.parquet").column("uri").to_pylist() == ["0.jpg", "2.jpg"]


def test_near_copies_by_descriptors(tmp_path, capsys):
    descriptors = np.random.default_rng(0).integers(-127, 128, (5, 168), np.int8)
    descriptors[4] = descriptors[1]
    scores = write_output(tmp_path, CONTENTS, descriptors=descriptors)
    output = str(tmp_path / "c.parquet")
    assert main(["duplicates", "--scores", scores, "--output", output]) == 0
    assert "4 rows in 2 clusters" in capsys.readouterr().out
    assert main(["duplicates", "--scores", scores, "--output", output, "--no-near"]) == 0
    assert "2 rows in 1 clusters" in capsys.readouterr().out


def test_what_is_missing_is_said_in_one_line(tmp_path, capsys):
    scores = write_output(tmp_path, CONTENTS, hashes=False)
    output = str(tmp_path / "c.parquet")
    assert main(["duplicates", "--scores", scores, "--output", output]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert (
        "score with --hash to find equal files, with --descriptors to find near copies" in message
    )
    words = ["--scores", scores, "--features", scores, "--output", output]
    assert main(["duplicates", *words]) == 1
    assert "--features need a --threshold" in capsys.readouterr().err
    assert main(["duplicates", *words, "--threshold", "0.9"]) == 1
    assert "has no column embedding" in capsys.readouterr().err
    assert not (tmp_path / "c.parquet").exists()


def test_an_output_that_can_t_be_written(scores, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    output = str(tmp_path / "file" / "c.parquet")
    assert main(["duplicates", "--scores", scores, "--output", output]) == 1
    assert "can't be written" in capsys.readouterr().err


def test_features_that_can_t_be_reached(scores, tmp_path, capsys):
    words = ["duplicates", "--scores", scores, "--output", str(tmp_path / "c.parquet")]
    features = "http://127.0.0.1:9/features"
    assert main([*words, "--threshold", "0.9", "--features", features]) == 1
    err = capsys.readouterr().err
    assert f"iqa duplicates: --features {features} can't be read: " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.json", ""),
        ("plan.json", '{"manifest": "m", "files": [{"name": "a'),
        ("plan.json", "[]"),
        ("plan.json", "{}"),
        ("plan.json", '{"rows": "many", "files": []}'),
        ("plan.json", '{"rows": 5, "files": [{"name": "0.parquet", "rows": "2"}]}'),
        ("plan.json", '{"rows": 5, "files": ["0.parquet"]}'),
        ("fingerprint.json", ""),
    ],
)
def test_records_that_are_damaged(name, content, tmp_path, capsys):
    scores = write_output(tmp_path, CONTENTS)
    features = write_output(tmp_path, CONTENTS, FEATURES, name="f")
    words = ["duplicates", "--scores", scores, "--output", str(tmp_path / "c.parquet")]
    words += ["--features", features, "--threshold", "0.9"]
    assert main(words) == 0
    for folder in (features, scores):
        (Path(folder) / "_run" / name).write_text(content)
        capsys.readouterr()
        if folder == scores and name == "fingerprint.json":
            break  # which duplicates do not follow from
        assert main(words) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"iqa duplicates: {folder}/_run/{name} is damaged (")
        assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["--threshold", "0.5"], ["--compare-all", "200000"]])
def test_options_of_near_copies_where_there_are_none(words, tmp_path, capsys):
    scores = write_output(tmp_path, CONTENTS)
    output = str(tmp_path / "c.parquet")
    command = ["duplicates", "--scores", scores, "--output", output]
    assert main([*command, *words]) == 1
    said = (
        f"{words[0]}: there is no near copy to find, as --scores {scores} has no column descriptor"
    )
    assert said in capsys.readouterr().err
    for more in (words, ["--features", scores], ["--features", scores, *words]):
        assert main([*command, *more, "--no-near"]) == 1
        flags = " and ".join(word for word in more if word.startswith("--"))
        said = f"--no-near finds no near copies, which {flags} would be for: leave out"
        assert said in capsys.readouterr().err
    assert main([*command, "--no-near"]) == main(command) == 0
    descriptors = np.random.default_rng(0).integers(-127, 128, (5, 168), np.int8)
    described = write_output(tmp_path, CONTENTS, descriptors=descriptors, name="described")
    command[2] = described
    assert main([*command, *words]) == 0
