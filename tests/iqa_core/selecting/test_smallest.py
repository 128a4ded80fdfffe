"""The rows with the k smallest keys, against sorting, on keys that are hard to put into bins."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from iqa_core.selecting.engine import Engine
from iqa_core.selecting.smallest import find_limits, is_within

RNG = np.random.default_rng(4)
COUNT = 3000
KEYS = {
    "all equal": np.full(COUNT, 0.5),
    "two values": RNG.integers(0, 2, COUNT).astype(float),
    "crowded at one end": np.concatenate([RNG.random(COUNT - 1) * 1e-9, [1e9]]),
    "the whole range of doubles": RNG.choice([-1.7e308, -1.0, 0.0, 5e-324, 1.7e308], COUNT),
    "denormals": RNG.integers(0, 3, COUNT) * 5e-324,
    "uniform": RNG.random(COUNT),
}


@pytest.mark.parametrize("keys", KEYS)
def test_limits_of_groups(keys):
    key = KEYS[keys]
    rows = RNG.permutation(COUNT)
    group = RNG.integers(0, 3, COUNT)
    table = pa.table(
        {
            "key": pa.array(key, mask=RNG.random(COUNT) < 0.05),
            "grp": group,
            "manifest_file": ["ab"[i % 2] for i in range(COUNT)],
            "manifest_row": rows,
        }
    )
    with Engine("200MB", threads=1) as engine:
        engine.register("keyed", ds.dataset(table))
        find_limits(engine, "limits", "keyed", "[0, 1, n // 3, n - 1, n + 5]")
        columns = "l.target, r.grp, r.manifest_file, r.manifest_row"
        found = engine.run(
            f"SELECT {columns} FROM keyed r JOIN limits l USING (grp) WHERE {is_within('r', 'l')}"  # noqa: S608
        )
    frame = table.to_pandas().dropna(subset="key")
    expected = set()
    for name, part in frame.groupby("grp"):
        part = part.sort_values(["key", "manifest_file", "manifest_row"])
        size = len(part)
        for target, count in enumerate((0, 1, size // 3, size - 1, size), start=1):
            head = part.head(count)
            places = zip(head.manifest_file, head.manifest_row, strict=True)
            expected |= {(target, name, *place) for place in places}
    assert len(found) == len(expected)
    assert set(found) == expected


def test_rows_are_never_held_for_a_join_with_their_groups():
    """Arrow does not say how many rows there are: DuckDB would take the many for the few."""
    count = 3_000_000
    keys = RNG.random(count)
    table = pa.table(
        {
            "key": keys,
            "grp": np.zeros(count, np.int8),
            "manifest_file": pa.repeat("a", count),
            "manifest_row": np.arange(count),
        }
    )
    with Engine("50MB", threads=2) as engine:
        engine.register("keyed", ds.dataset(table))
        find_limits(engine, "limits", "keyed", "[n // 5]")
        limit = engine.value("SELECT key FROM limits")
    assert limit == np.partition(keys, count // 5 - 1)[count // 5 - 1]
