"""Every kind of selection against a slow, plain reference in pandas, row for row."""

from __future__ import annotations

import pytest

from iqa_core.evaluation.labelling import rank_for_labelling
from iqa_core.selecting import labels
from tests.iqa_core.selecting.references import OK, REFERENCES, in_order, lowest


def identities(rows):
    return [(row["manifest_file"], row["manifest_row"]) for row in rows]


@pytest.mark.parametrize("kind", REFERENCES)
def test_each_kind_is_the_reference(kind, frame, select):
    request, reference = REFERENCES[kind]
    rows, counts = select(**request)
    expected = in_order(reference(frame))
    assert identities(rows) == expected
    assert counts.kept == len(expected)
    assert counts.rows == len(frame)
    assert sum(left.rows for left in counts.left) == len(frame) - len(expected)


def test_columns_are_those_of_the_output(frame, select):
    rows, _ = select(best=1, where=("class = 'bird'",))
    [expected] = lowest(g := frame.query(f"{OK} and `class` == 'bird'"), -g.score, 1).to_dict(
        "records"
    )
    assert rows[0]["uri"] == expected["uri"]
    assert rows[0]["score"] == pytest.approx(expected["score"])
    assert rows[0]["scores"]["noise"] == pytest.approx(expected["noise"])
    assert {"status", "margins", "width", "class", "mos", "copies"} <= rows[0].keys()


def test_counts_say_why(frame, select):
    _, counts = select(where=("mos > 40",), top="10%")
    lines = counts.lines()
    failed = frame[frame.status != "ok"].status.value_counts()
    assert lines[0] == "20,000 rows"
    assert f"{failed.sum():,} left out: status is not ok" in lines[1]
    assert f"timeout {failed['timeout']:,}" in lines[1]
    low = frame.query(f"{OK} and not mos > 40")
    assert f"{len(low):,} left out: --where 'mos > 40'" in lines[2]
    assert f"({low.mos.isna().sum():,} of them null" in lines[2]
    threshold = lowest(g := frame.query(f"{OK} and mos > 40"), -g.score, len(g) // 10).score.min()
    assert counts.threshold == pytest.approx(threshold)
    assert "--top 10% (score of the last one kept: " in lines[3]


def test_rows_for_labelling_are_those_of_the_ranking(frame, select):
    usable = frame.query(OK).sort_values(["manifest_file", "manifest_row"]).reset_index(drop=True)
    pairs = usable[["quality", "noise"]] if "quality" in usable else usable[["score", "noise"]]
    chosen = rank_for_labelling(usable.score, pairs, 50, seed=3)
    rows, counts = select(for_labelling=50, seed=3)
    assert identities(rows) == in_order(usable.loc[chosen])
    assert counts.kept == 50
    assert counts.threshold is None
    assert counts.left[-1].reason == "--for-labelling 50"
    assert counts.left[-1].rows == len(usable) - 50
    others, _ = select(for_labelling=50, seed=4)
    assert identities(others) != identities(rows)


def test_rows_for_labelling_cover_the_scores_and_come_from_a_sample(frame, select, monkeypatch):
    monkeypatch.setattr(labels, "_AMONG", 500)
    rows, counts = select(for_labelling=60, where=("class = 'cat'",))
    assert counts.kept == len(rows) == 60
    assert {row["class"] for row in rows} == {"cat"}
    scores = sorted(row["score"] for row in rows)
    usable = frame.query(f"{OK} and `class` == 'cat'").score
    low, high = usable.quantile([0.02, 0.98])
    assert scores[0] < low + 0.1
    assert scores[-1] > high - 0.1
    drawn, _ = select(sample="500", where=("class = 'cat'",))
    assert set(identities(rows)) <= set(identities(drawn))


def test_rows_for_labelling_are_at_most_all(frame, select):
    rows, counts = select(for_labelling=100, where=("score > 0.935",))
    usable = frame.query(f"{OK} and score > 0.935")
    assert 0 < len(usable) < 100
    assert identities(rows) == in_order(usable)
    assert counts.kept == len(usable)
    rows, counts = select(for_labelling=100, where=("score > 2",))
    assert rows == []
    assert counts.kept == 0
