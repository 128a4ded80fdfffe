"""Tests of iqa_core/selecting/engine.py that are not about a selection."""

from __future__ import annotations

import pytest

from iqa_core.selecting.engine import _errors_in_one_line


def test_what_duckdb_raises_at_ctrl_c_is_an_interrupt():
    """Not provoked by a signal: within a long statement DuckDB 2.0.1 misses one now and then."""
    with pytest.raises(KeyboardInterrupt), _errors_in_one_line():
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="else"), _errors_in_one_line():
        raise RuntimeError("something else")
