"""Weights that can't be scored with are refused, and unusual scales are noted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.scoring.scorer import Scorer


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("visual.attnpool.c_proj.bias", torch.nan, "not-a-number"),
        ("transformer.resblocks.1.mlp.c_fc.weight", torch.inf, "infinity"),
        ("positional_embedding", -torch.inf, "infinity"),
    ],
)
@pytest.mark.parametrize("form", ["{}@", "openai@"])
def test_weights_that_are_not_finite_are_refused(form, key, value, words, random_clips, tmp_path):
    state = {name: one.clone() for name, one in random_clips["small-rn"].state_dict().items()}
    state[key].view(-1)[3] = value  # one number is enough
    state["ln_final.bias"][:] = value
    torch.save({"model": state}, tmp_path / "w.pt")
    with pytest.raises(InputError) as caught:
        load_towers(f"{form.format('small-rn')}{tmp_path / 'w.pt'}")
    message = str(caught.value)
    first = min((key, "ln_final.bias"), key=list(state).index)
    floats = sum(one.is_floating_point() for one in state.values())
    assert f"hold {words} in 2 of {floats} tensors, {first} the first" in message
    assert "use an earlier checkpoint" in message


@pytest.mark.parametrize("key", ["ln_final.weight", "token_embedding.weight", "logit_scale"])
def test_a_tensor_that_is_all_not_a_number_is_refused(key, random_clips, tmp_path):
    """As a diverged training leaves them: in the text tower alone, or in the scale."""
    state = dict(random_clips["small-vit"].state_dict())
    save_file(state | {key: state[key] * torch.nan}, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as caught:
        Scorer(f"small-vit@{tmp_path / 'w.safetensors'}")
    message = str(caught.value)
    assert "hold not-a-number in 1 of" in message
    assert f"{key} the first" in message


def test_float64_weights_beyond_float32_are_refused(random_clips, tmp_path):
    state = {name: one.double() for name, one in random_clips["small-vit"].state_dict().items()}
    state["visual.proj"][0, 0] = 1e300
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"hold infinity in 1 of \d+ tensors, visual\.proj the first"
    ):
        load_towers(f"small-vit@{tmp_path / 'w.pt'}")


def with_scale(random_clips, tmp_path, stored):
    state = dict(random_clips["small-vit"].state_dict()) | {"logit_scale": torch.tensor(stored)}
    torch.save(state, tmp_path / "w.pt")
    return f"small-vit@{tmp_path / 'w.pt'}"


def test_a_scale_that_overflows_is_refused(random_clips, tmp_path):
    with pytest.raises(
        InputError, match=r"logit_scale of 100, .*\(a scale of 100 is stored as 4.605"
    ):
        load_towers(with_scale(random_clips, tmp_path, 100.0))
    with pytest.raises(InputError, match="logit_scale of -200, whose exponential is no scale"):
        load_towers(with_scale(random_clips, tmp_path, -200.0))


@pytest.mark.parametrize(("stored", "near"), [(14.3, "0 or 1"), (-2.0, "0.5")])
def test_a_scale_that_no_training_gives_is_told(stored, near, random_clips, tmp_path, caplog):
    towers = load_towers(with_scale(random_clips, tmp_path, [stored]))
    assert towers.logit_scale == pytest.approx(np.exp(stored), rel=1e-6)
    assert f"so scores will be near {near}: give --logit-scale" in caplog.text
