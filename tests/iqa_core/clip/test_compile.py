"""The compiled image tower: what `torch.compile` makes of it here, and the graph that a GPU would get."""

from __future__ import annotations

import shutil
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.preprocess import Preprocess

PREPROCESS = Preprocess(size=(32, 32), mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))

can_compile = pytest.mark.skipif(
    not (shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").exists()),
    reason="torch.compile needs g++ and Python's headers to compile for CPUs",
)


@pytest.fixture
def tower(random_clips) -> ImageTower:
    visual = random_clips["small-vit-quickgelu"].visual
    return ImageTower(visual, PREPROCESS, width=64, digest="0" * 64)


def pixels(rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)


@pytest.mark.slow
@can_compile
def test_full_batches_are_compiled_and_others_are_not(tower):
    images = pixels(6)
    plain = tower.encode(images)
    torch._dynamo.reset()
    counters.clear()
    tower.compile_for(4)
    assert counters["stats"]["unique_graphs"] == 1, "another graph would be a break"
    torch.testing.assert_close(tower.encode(images[:4]), plain[:4], rtol=0, atol=1e-5)
    images.flags.writeable = False  # as arrays from Ray are
    torch.testing.assert_close(tower.encode(images[:4]), plain[:4], rtol=0, atol=1e-5)
    torch.testing.assert_close(tower.encode(images), plain, rtol=0, atol=0)
    torch.testing.assert_close(tower.encode(images[:3]), plain[:3], rtol=0, atol=1e-5)

    seen = []  # an actor scores in several threads
    thread = threading.Thread(target=lambda: seen.append(tower.encode(images[:4])))
    thread.start()
    thread.join()
    torch.testing.assert_close(seen[0], plain[:4], rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1, "nothing was compiled again"


@pytest.mark.parametrize("name", ["tiny", "small-rn", "small-vit", "small-vit-quickgelu"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_off_the_cpu_a_tower_is_one_graph(random_clips, name, precision):
    """On torch's device without data, whose branches are those of a GPU: a break would cost its gain."""
    if name == "tiny":
        tower = load_towers(name).image
    else:
        visual = random_clips[name].visual
        size = (64, 64) if "rn" in name else (32, 32)
        preprocess = Preprocess(size=size, mean=PREPROCESS.mean, std=PREPROCESS.std)
        tower = ImageTower(visual, preprocess, width=64, digest="0" * 64)
    tower = tower.to_device("meta", precision)
    torch._dynamo.reset()
    batch = torch.empty((4, *tower.preprocess.size, 3), dtype=torch.uint8, device="meta")
    compute = torch.compile(tower._features, dynamic=False, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        features = compute(batch)
    assert (features.shape, features.dtype) == ((4, tower.width), torch.float32)


def test_images_of_any_size_can_not_be_compiled():
    tower = load_towers("tiny", "native").image.to_device("cpu")
    with pytest.raises(InputError, match="needs images of one size, but with resolution native"):
        tower.compile_for(4)
