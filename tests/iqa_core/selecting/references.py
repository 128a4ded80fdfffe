"""Every kind of selection as a slow, plain reference in pandas; the benchmark compares with it, too."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pandas as pd

__all__ = ["ID", "OK", "REFERENCES", "in_order", "lowest"]

ID = ["manifest_file", "manifest_row"]


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
    """The rows with the lowest keys of each group, as many as its size says; nulls are a group."""
    ordered = frame.assign(key=key).dropna(subset="key").sort_values(["key", *ID])
    groups = ordered.groupby(by, dropna=False)
    sizes = groups.key.transform("size")
    return ordered[groups.cumcount() < sizes.map(count_of)]


def of_deciles(frame, count):
    """As many rows of each decile of the score, drawn by the numbers of seed 0."""
    values = np.sort(frame.score.to_numpy())
    ends = [values[math.ceil(i * len(values) / 10) - 1] for i in range(1, 10)]
    strata = np.searchsorted(ends, frame.score, side="left")
    groups = frame.assign(stratum=strata)
    return of_groups(groups, uniform(frame, 0), "stratum", lambda n: count)


def best_of(frame, column):
    """Rows without a value, and the one with the highest score of each value."""
    grouped = frame.dropna(subset=column).assign(minus=lambda f: -f.score)
    best = grouped.sort_values(["minus", *ID]).groupby(column).head(1)
    return pd.concat([frame[frame[column].isna()], best])


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
    "sample of each decile": (
        {"sample": "1000", "stratify": "score"},
        lambda f: of_deciles(f.query(OK), 100),
    ),
    "the best of each cluster": (
        {"keep_best_of": "copies", "where": ("score > 0.3",)},
        lambda f: best_of(f.query(f"{OK} and score > 0.3"), "copies"),
    ),
}
