"""Every kind of selection against a slow, plain reference in pandas, row for row."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pandas as pd
import pytest

ID = ["manifest_file", "manifest_row"]


def identities(rows):
    return [(row["manifest_file"], row["manifest_row"]) for row in rows]


def in_order(frame):
    return list(frame.sort_values(ID)[ID].itertuples(index=False, name=None))


def uniform(frame, seed):
    """The random number of each row, in (0, 1)."""
    texts = (
        f"{seed}:{f}:{r}" for f, r in zip(frame.manifest_file, frame.manifest_row, strict=True)
    )
    digits = [int(hashlib.md5(t.encode()).hexdigest()[:13], 16) for t in texts]  # noqa: S324
    return (np.array(digits, float) + 0.5) / 2**52


def lowest(frame, key, count):
    """The rows with the lowest keys; NaN is none."""
    ordered = frame.assign(key=key).dropna(subset="key").sort_values(["key", *ID])
    return ordered.head(count)


def of_groups(frame, key, by, count_of):
    groups = frame.assign(key=key).dropna(subset="key").groupby(by, dropna=False)
    return pd.concat([lowest(g, g.key, count_of(len(g))) for _, g in groups])


OK = "status == 'ok'"
REFERENCES = {
    "all that are ok": ({}, lambda f: f.query(OK)),
    "any status": ({"statuses": ("any",)}, lambda f: f),
    "failed rows": (
        {"statuses": ("timeout", "not_found"), "where": ("status = 'timeout'",)},
        lambda f: f.query("status == 'timeout'"),
    ),
    "an expression": (
        {"where": ("score > 0.6 and scores.noise > 0.5 and width >= 512 and status = 'ok'",)},
        lambda f: f.query("score > 0.6 and noise > 0.5 and width >= 512 and status == 'ok'"),
    ),
    "two conditions": (
        {"where": ("score > 0.5", "class in ('cat', 'dog')")},
        lambda f: f.query(f"{OK} and score > 0.5 and `class` in ['cat', 'dog']"),
    ),
    "a window": (
        {"where": ("score > avg(score) over (partition by class)",)},
        lambda f: f[f.score > f.groupby("class", dropna=False).score.transform("mean")].query(OK),
    ),
    "top": (
        {"top": "20%"},
        lambda f: lowest(g := f.query(OK), -g.score, len(g) // 5),
    ),
    "top, by another rank": (
        {"top": "12.5%", "rank": "mos", "where": ("width < 3000",)},
        lambda f: lowest(
            g := f.query(f"{OK} and width < 3000"), -g.mos, int(g.mos.notna().sum() / 8)
        ),
    ),
    "bottom": ({"bottom": "777"}, lambda f: lowest(g := f.query(OK), g.score, 777)),
    "best": ({"best": 100}, lambda f: lowest(g := f.query(OK), -g.score, 100)),
    "more than there are": ({"best": 10**6}, lambda f: f.query(OK)),
    "best of each class": (
        {"best": 50, "by": ("class",)},
        lambda f: of_groups(g := f.query(OK), -g.score, "class", lambda n: min(n, 50)),
    ),
    "top of each of two columns": (
        {"top": "10%", "by": ("class", "width > 2000")},
        lambda f: of_groups(
            g := f.query(OK).assign(wide=f.width > 2000),
            -g.score,
            ["class", "wide"],
            lambda n: n // 10,
        ),
    ),
    "many groups": (
        {"best": 1, "by": ("width",)},
        lambda f: of_groups(g := f.query(OK), -g.score, "width", lambda n: 1),
    ),
    "sample": (
        {"sample": "500", "seed": 3},
        lambda f: lowest(g := f.query(OK), uniform(g, 3), 500),
    ),
    "sample of each class": (
        {"sample": "40", "by": ("class",)},
        lambda f: of_groups(g := f.query(OK), uniform(g, 0), "class", lambda n: min(n, 40)),
    ),
    "weighted sample": (
        {"sample": "500", "weight": "greatest(mos - 50, 0)"},
        lambda f: lowest(
            g := f.query(f"{OK} and mos > 50"), -np.log(uniform(g, 0)) / (g.mos - 50), 500
        ),
    ),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_each_kind_is_the_reference(kind, frame, select):
    request, reference = REFERENCES[kind]
    rows, counts = select(**request)
    expected = in_order(reference(frame))
    assert identities(rows) == expected
    assert counts.kept == len(expected)
    assert counts.rows == len(frame)
    assert sum(left.rows for left in counts.left) == len(frame) - len(expected)


def test_stratified_sample(frame, select):
    rows, _ = select(sample="1000", stratify="score")
    scored = frame.query(OK).sort_values("score")
    values = scored.score.to_numpy()
    ends = [values[math.ceil(i * len(values) / 10) - 1] for i in range(1, 10)]
    strata = np.searchsorted(ends, scored.score, side="left")
    expected = of_groups(
        scored.assign(stratum=strata), uniform(scored, 0), "stratum", lambda n: 100
    )
    assert identities(rows) == in_order(expected)


def test_keep_best_of(frame, select):
    rows, counts = select(keep_best_of="copies", where=("score > 0.3",))
    passing = frame.query(f"{OK} and score > 0.3").assign(minus=lambda f: -f.score)
    grouped = passing.dropna(subset="copies").sort_values(["minus", *ID]).groupby("copies")
    expected = pd.concat([passing[passing.copies.isna()], grouped.head(1)])
    assert identities(rows) == in_order(expected)
    assert counts.left[-1].rows == len(passing) - len(expected) > 1000


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
