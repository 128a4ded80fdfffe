"""What ``benchmarks.peers`` accepts as a run, and how it compares runs."""

from __future__ import annotations

import json

import pytest

from benchmarks.peer_inputs import image_folder
from benchmarks.peers import OURS, Round, kept_results, largest_difference, table
from benchmarks.results import machine

EXACT = [0.25, 0.75]


@pytest.fixture
def images(tmp_path):
    return image_folder(tmp_path, [b"first", b"second"], 3)


def rows(*scores):
    return [(f"{row:06}.jpg", score) for row, score in enumerate(scores)]


def test_a_folder_names_the_files_in_turn(images):
    contents = [path.read_bytes() for path in sorted(images.iterdir())]
    assert contents == [b"first", b"second", b"first"]


def test_rows_in_any_order_are_compared_with_their_own_photograph(images):
    scores = rows(0.25, 0.75, 0.26)[::-1]
    assert largest_difference(scores, EXACT, images, 0.05) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (rows(0.25, 0.75), "3 images in, 2 rows out"),
        (rows(0.25, 0.75, 0.25) + rows(0.25), "3 images in, 4 rows out"),
        ([*rows(0.25, 0.75), ("000001.jpg", 0.75)], "or others"),
        (rows(0.25, None, 0.25), "no score"),
        (rows(0.25, 0.75, 0.75), "more than 0.05"),
        (rows(0.25, float("nan"), 0.25), "more than 0.05"),
    ],
    ids=["lost", "more", "twice", "null", "another's score", "nan"],
)
def test_a_run_that_lost_or_changed_a_row_does_not_count(images, scores, message):
    with pytest.raises(RuntimeError, match=message):
        largest_difference(scores, EXACT, images, 0.05)


def test_the_best_peer_is_that_of_each_round():
    def of(*seconds):
        return [Round((40, 10), pair, 0.0) for pair in seconds]

    rounds = {
        OURS: of((10.0, 7.0), (20.0, 17.0)),  # 0.1 s an image in both rounds
        "one": of((30.0, 15.0), (40.0, 25.0)),  # 0.5 s
        "other": of((40.0, 31.0), (30.0, 21.0)),  # 0.3 s
    }
    found = {row[0]: row[4:6] for row in table("images", rounds).rows}
    assert found["one"] == ["2.50 (2.00 to 3.00)", "5.00 (5.00 to 5.00)"]
    assert found["other"] == ["2.75 (1.50 to 4.00)", "3.00 (3.00 to 3.00)"]
    assert found["best peer"] == ["2.25 (1.50 to 3.00)", "3.00 (3.00 to 3.00)"]


@pytest.fixture
def stored(tmp_path):
    """Write a file of two settings by another version of Ray; return its path."""

    def write(**changes):
        here = machine() | changes
        here["packages"] = here["packages"] | {"ray": "2.1"}
        notes = ["one: piq failed", "two: piq failed", "Daft was not installed."]
        result = {"machine": here, "raw": {"one": {}, "two": {}}, "notes": notes}
        result |= {"date": "2026-01-02", "command": "python -m benchmarks.peers"}
        path = tmp_path / "peers.json"
        path.write_text(json.dumps(result), encoding="utf-8")
        return path

    return write


def test_settings_that_are_not_measured_again_are_kept_with_their_versions(stored):
    raw, notes = kept_results(stored(), ["two"])
    assert raw == {"one": {}}
    measured = "one: measured on 2026-01-02 by `python -m benchmarks.peers` with ray 2.1."
    assert notes == ["one: piq failed", measured]


def test_results_of_another_machine_are_not_kept(stored):
    assert kept_results(stored(cores=1000), ["two"]) == ({}, [])
