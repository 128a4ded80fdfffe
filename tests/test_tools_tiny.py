"""The renderer's distortions, the captions and the axis targets of `tiny`'s training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import iqa_core
from tools.distortions import (
    DISTORTIONS,
    EXTRA_KINDS,
    KINDS,
    LEVELS,
    UNSEEN_KINDS,
    apply,
    distort,
)
from tools.tiny.captions import AXES, HELD_OUT, axis_targets, draw_caption, perceived
from tools.tiny.photos import NPM_PHOTOS, dead_leaves, find_photos, load_photo, used_packages
from tools.tiny.render import statistics
from tools.tiny.train import Student, start_from

CONFIG = Path(iqa_core.__file__).with_name("weights") / "tiny.json"
SCENE = dead_leaves(np.random.default_rng(3), 96)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_distortion_keeps_shape_and_input(kind: str) -> None:
    """A distorted image is new, of the same shape, repeatable, and further off at level 5."""
    before = SCENE.copy()
    slight, severe = (apply(SCENE, kind, level, seed=1).astype(float) for level in (1, 5))
    assert np.array_equal(SCENE, before)
    assert slight.shape == severe.shape == SCENE.shape
    assert np.array_equal(apply(SCENE, kind, 5, seed=1), severe)
    assert np.abs(severe - SCENE).mean() > np.abs(slight - SCENE).mean()


def test_levels_map_to_severities() -> None:
    """Level 0 is clean; levels 1 to 5 are severities 0 to 1."""
    assert np.array_equal(apply(SCENE, "jpeg", 0), SCENE)
    for level in LEVELS:
        expected = distort(SCENE, "jpeg", (level - 1) / 4, seed=0)
        assert np.array_equal(apply(SCENE, "jpeg", level), expected)
    assert set(UNSEEN_KINDS) < set(KINDS)
    assert not set(EXTRA_KINDS) & set(KINDS)
    assert {*KINDS, *EXTRA_KINDS} == set(DISTORTIONS)


@pytest.mark.parametrize(
    ("image", "kind", "severity", "message"),
    [
        (SCENE.astype(float), "jpeg", 0.5, "give uint8 RGB"),
        (SCENE[..., 0], "jpeg", 0.5, "give uint8 RGB"),
        (SCENE, "jpg", 0.5, "kind 'jpg' is unknown"),
        (SCENE, "jpeg", 1.5, "severity 1.5 is out of range"),
    ],
)
def test_wrong_input_is_named(image: np.ndarray, kind: str, severity: float, message: str) -> None:
    """Errors name the value and the fix."""
    with pytest.raises(ValueError, match=message):
        distort(image, kind, severity, seed=0)


def test_no_caption_is_a_held_out_wording() -> None:
    """The prompt pairs that the benchmark uses are spelled out by no caption."""
    rng = random.Random(0)
    texts = [draw_caption(rng).text for _ in range(20_000)]
    plain = {text.strip(" .!,").lower().removeprefix("a ") for text in texts}
    assert not plain & HELD_OUT


def test_without_turns_the_meaning_round() -> None:
    """A caption without noise is on the good side, one without details on the bad side."""
    axes = {axis.name: axis for axis in AXES}
    assert "noise" in axes["noise"].absent(good=True)
    assert "details" in axes["sharpness"].absent(good=False)
    assert all(axis.absent(good) for axis in AXES for good in (True, False))
    rng = random.Random(1)
    drawn = [draw_caption(rng) for _ in range(20_000)]
    signs = {c.sign for c in drawn if c.text.strip(".!").endswith(" without noise")}
    assert signs == {1.0}
    signs = {c.sign for c in drawn if c.text.strip(".!").endswith(" without details")}
    assert signs == {-1.0}


def test_stretched_quality_keeps_the_order() -> None:
    """The quality target is 1 for the clean image and rises with HaarPSI."""
    quality = np.linspace(0.15, 1, 50, dtype=np.float32)
    stretched = perceived(quality)
    assert stretched[0] == 0
    assert stretched[-1] == 1
    assert (np.diff(stretched) > 0).all()


def test_axis_targets_name_the_distortion() -> None:
    """A blurred image is less sharp than free of noise; a noisy one the other way round."""
    rows = np.zeros((3, 12), np.float32)
    rows[:, [0, 2]] = -1
    rows[:, 4:8] = (1.0, 0.45, 0.2, 0.35)
    rows[1, [0, 1, 4]] = (KINDS.index("gaussian_blur"), 0.8, 0.4)
    rows[2, [0, 1, 4]] = (KINDS.index("gaussian_noise"), 0.8, 0.4)
    targets = axis_targets(rows)
    names = [axis.name for axis in AXES]
    sharp, clean = names.index("sharpness"), names.index("noise")
    assert targets[0, sharp] == targets[0, clean] == 1
    assert targets[1, sharp] < targets[1, clean]
    assert targets[2, clean] < targets[2, sharp]


@pytest.mark.parametrize(
    ("kind", "axis"),
    [("dark", "brightness"), ("low_contrast", "contrast"), ("desaturation", "colourfulness")],
)
def test_axis_targets_tell_strong_levels_apart(kind: str, axis: str) -> None:
    """What is measured and what was done add up to targets that fall over the whole ladder."""
    views = [SCENE, *(apply(SCENE, kind, level) for level in LEVELS)]
    rows = np.zeros((len(views), 12), np.float32)
    rows[:, [0, 2]] = -1
    rows[:, 4] = np.linspace(1.0, 0.2, len(views))
    rows[:, 5:8] = [statistics(view) for view in views]
    rows[1:, 0], rows[1:, 1] = KINDS.index(kind), np.linspace(0, 1, len(LEVELS))
    targets = axis_targets(rows)[:, [axis.name for axis in AXES].index(axis)]
    assert (np.diff(targets) < -0.003).all()
    assert 0 < targets[-1] < 0.1


def test_photographs_of_npm_packages_are_listed_once(tmp_path: Path) -> None:
    """Each line is PACKAGE@VERSION and a path; unpacked ones are found, the others left out."""
    lines = NPM_PHOTOS.read_text().splitlines()
    assert len(set(lines)) == len(lines) > 100
    package, place = next(line for line in lines if line.startswith("@")).split(" ", 1)
    scope, name, version = package[1:].replace("/", "@").split("@")
    path = tmp_path / f"npm-{scope}-{name}-{version}" / place
    path.parent.mkdir(parents=True)
    Image.fromarray(SCENE).save(path)
    (photo,) = find_photos(tmp_path)
    assert load_photo(photo).shape == SCENE.shape
    (tmp_path / "npm-never-used-1.0.0").mkdir()
    assert used_packages(tmp_path) == [f"npm-{scope}-{name}-{version}"]
    with pytest.raises(FileNotFoundError, match="unpack the packages"):
        find_photos(tmp_path / "nothing")


def test_a_deeper_tower_starts_as_the_one_it_grew_from(tmp_path: Path) -> None:
    """New residual blocks are the identity; a file that lacks a part of a block is refused."""
    smaller = json.loads(CONFIG.read_text())
    smaller["vision_cfg"]["layers"] = [1, 1, 1, 1]
    config = tmp_path / "smaller.json"
    config.write_text(json.dumps(smaller))
    torch.manual_seed(0)
    student = Student(config).eval()
    state = student.clip.state_dict()
    state["visual.attnpool.positional_embedding"] = torch.zeros(student.positions)
    state = {name: value.contiguous() for name, value in state.items()}
    weights = tmp_path / "smaller.safetensors"
    save_file(state, weights, {"stages": "{}"})
    deeper = Student(CONFIG)
    start_from(deeper, weights)
    pixels = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        before, after = student.clip.visual(pixels), deeper.clip.visual(pixels)
    assert len(deeper.clip.visual.layer3) > 1
    assert torch.equal(before, after)
    del state["visual.layer2.0.conv2.weight"]
    save_file(state, weights, {"stages": "{}"})
    with pytest.raises(ValueError, match=r"does not fit .*visual\.layer2\.0\.conv2\.weight"):
        start_from(Student(CONFIG), weights)
