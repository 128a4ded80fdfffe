"""Encoders of other packages: `--model mine:anything` by the entry points of a package of a test's own."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_core import Scorer
from iqa_core.clip.encoder import Towers, check_offers, context_encoder
from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import PromptPair

ROOT = Path(__file__).parents[3]
PAIRS = [PromptPair("light", "bright", "dark"), PromptPair("warmth", "red", "blue")]
MODULE = '''
"""Features are the mean colour, so that a score follows by hand."""

import numpy as np
import torch

from iqa_core.clip.encoder import Towers
from iqa_core.errors import InputError
from iqa_core.preprocess import Preprocess

DIRECTIONS = {"bright": (1, 1, 1), "dark": (-1, -1, -1), "red": (1, 0, -1), "blue": (-1, 0, 1)}


def unit(values):
    values = np.asarray(values, dtype=np.float32)
    return torch.from_numpy(values / np.linalg.norm(values, axis=-1, keepdims=True))


class Colours:
    width = 3
    digest = "c" * 64
    preprocess = Preprocess(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)

    def to_device(self, device, precision="auto"):
        self.device = device
        return self

    def encode(self, pixels):
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (8, 8, 3), pixels.shape
        return unit(pixels.mean(axis=(1, 2)) - 127.5)


class Words:
    def encode(self, prompts):
        return unit([DIRECTIONS[prompt] for prompt in prompts])


def load(argument):
    if argument == "refused":
        raise InputError("--model mine:refused: there is no such file")
    if argument == "broken":
        raise KeyError("weights")
    if argument == "nothing":
        return None
    return Towers(name=argument, image=Colours(), load_text=Words, logit_scale=float(argument))
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip installs it, with an entry point."""
    site = tmp_path / "site"
    info = site / "colours-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "colours.py").write_text(textwrap.dedent(MODULE))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[iqa.encoders]\nmine = colours:load\ngone = no_such_module:load\n"
    )
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield site
    sys.modules.pop("colours", None)


def test_scores_of_an_encoder_of_ones_own(package, tmp_path):
    colour = np.array([191, 128, 96]) - 127.5
    image = np.full((20, 30, 3), (191, 128, 96), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    scorer = Scorer("mine:5", PAIRS, device="cpu")
    found = scorer.score(tmp_path / "x.png")
    feature = colour / np.linalg.norm(colour)
    light = 5 * 2 * feature.sum() / np.sqrt(3)
    warmth = 5 * 2 * (feature[0] - feature[2]) / np.sqrt(2)
    np.testing.assert_allclose(found.margins, [[light, warmth]], rtol=1e-5)
    assert (scorer.width, scorer.preprocess.size, scorer.tower.device) == (3, (8, 8), "cpu")


def test_what_the_loader_gets_and_gives(package):
    towers = load_towers("mine:2.5")
    assert isinstance(towers, Towers)
    assert (towers.name, towers.logit_scale, towers.digest) == ("mine:2.5", 2.5, "c" * 64)
    assert pickle.loads(pickle.dumps(towers.image)).width == 3  # noqa: S301


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mine:refused", "^model mine:refused: there is no such file$"),
        ("mine:broken", r"the encoder colours:load failed \(KeyError: 'weights'\): correct it"),
        ("mine:nothing", "colours:load returned a NoneType, but must return .*encoder.Towers"),
        (
            "gone:x",
            r"no_such_module:load failed \(ModuleNotFoundError: .*\): correct it, or reinst",
        ),
        ("their:x", "'their:x' is not a model .*: use tiny .*NAME@FILE, gone:ARGUMENT or mine:ARG"),
        ("their:a/b@c", "'their:a/b@c' is not a model .* mine:ARGUMENT$"),
        ("mine", "'mine' is not a model that can be loaded: use .* or mine:ARGUMENT$"),
    ],
)
def test_what_can_not_be_loaded_is_one_line(package, model, message):
    with pytest.raises(InputError, match=message) as caught:
        load_towers(model)
    assert "\n" not in str(caught.value)


def test_native_resolution_is_refused(package):
    with pytest.raises(InputError, match=r"native is not for encoders of other .* mine:1: use res"):
        load_towers("mine:1", "native")


def test_prompts_are_not_learned_for_an_encoder_without_token_embeddings(package):
    text = load_towers("mine:1").text
    for refused in (context_encoder, lambda tower: PromptLearner(tower, PAIRS)):
        with pytest.raises(InputError, match=r"not of CLIP's causal kind .* use another model"):
            refused(text)


def test_options_that_need_more_of_an_encoder_refuse_it(package):
    own, theirs = load_towers("tiny").image.to_device("cpu"), load_towers("mine:1").image
    for name, option in (("compile_for", "compile"), ("takes_tensors", "decode gpu")):
        check_offers(own, name, f"--{option}")
        with pytest.raises(
            InputError, match=f"{option} needs an encoder with {name}, and Colours has"
        ):
            check_offers(theirs, name, f"--{option}")


@pytest.mark.slow
def test_open_clip_is_not_imported_for_it(package):
    code = (
        "import sys; from iqa_core.clip.load import load_towers; load_towers('mine:1'); "
        "print('open_clip' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": f"{ROOT}:{package}"}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert run.stdout == "False\n"


def test_the_forms_of_models_are_distinct():
    import re

    from iqa_core.clip.load import LOADERS

    forms = {
        "tiny": "tiny",
        "ViT-B-32/openai": "NAME/TAG",
        "hf-hub:timm/vit@x": "hf-hub:",
        "RN50@/a/b.pt": "NAME@FILE",
        "openai@C:/x.pt#ema": "NAME@FILE",
        "mine:a/b@c:d": "PREFIX:",
        "mine:": "PREFIX:",
    }
    for model, form in forms.items():
        (found,) = [loader for loader in LOADERS if re.fullmatch(loader.pattern, model)]
        assert found.form.startswith(form)
