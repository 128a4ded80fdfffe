"""Tests of iqa_core/training/state.py: the form of a checkpoint."""

from __future__ import annotations

import io
import pickle

import pytest
import torch

from iqa_core.training.state import State


def test_a_state_survives_a_file():
    context = torch.arange(6.0).reshape(2, 3)
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    state = State(3, context, optimizer, [{"loss": 0.5}], "steps")
    again = State.from_bytes(state.to_bytes())
    assert torch.equal(again.context, state.context)
    assert again.optimizer == optimizer
    for name in ("step", "history", "ended"):
        assert getattr(again, name) == getattr(state, name)


def test_a_file_that_would_run_something_is_refused():
    buffer = io.BytesIO()
    torch.save({"step": print}, buffer)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        State.from_bytes(buffer.getvalue())
