"""Tests of iqa_core/tables/reasons.py."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.tables.reasons import REASONS
from iqa_core.tables.schema import table_with


def test_the_lowest_pair_and_the_spread():
    rows = [{"sharpness": 0.9, "noise": 0.2, "colour": 0.4}, None]
    rows += [{"sharpness": 0.5, "noise": 0.5, "colour": 0.5}]
    kind = pa.struct([(name, pa.float32()) for name in rows[0]])
    chunks = [pa.array(rows[:1], kind), pa.array(rows[1:], kind)]
    table = table_with(pa.table({"scores": pa.chunked_array(chunks)}), REASONS)
    assert table["worst_pair"].to_pylist() == ["noise", None, "sharpness"]
    spread = table["spread"].to_pylist()
    assert spread[0] == pytest.approx(np.std([0.9, 0.2, 0.4]), rel=1e-6)
    assert spread[1:] == [None, 0.0]


def test_one_pair_has_no_spread():
    scores = pa.array([{"quality": 0.3}], pa.struct([("quality", pa.float32())]))
    table = table_with(pa.table({"scores": scores}), REASONS)
    assert table.select(["worst_pair", "spread"]).to_pylist() == [
        {"worst_pair": "quality", "spread": 0.0}
    ]
