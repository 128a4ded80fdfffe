"""Every kind of selection against a slow, plain reference in pandas, row for row."""

from __future__ import annotations

import pytest

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
