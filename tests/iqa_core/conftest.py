"""Small CLIPs of random weights in the formats that real weights come in."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

import iqa_core.clip.open_clip  # noqa: F401  (open_clip knows `tiny` from here on)

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "small-rn": {"embed_dim": 64, "vision_cfg": RESNET, "text_cfg": TEXT},
    "small-vit": {"embed_dim": 64, "vision_cfg": VIT, "text_cfg": TEXT},
}
ARCHITECTURES |= {
    f"{name}-quickgelu": {**config, "quick_gelu": True} for name, config in ARCHITECTURES.items()
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep OpenMP's threads from spinning: on a busy machine they make tests take eight times as long."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def architectures(tmp_path_factory) -> list[str]:
    """Names of small architectures that open_clip then knows."""
    folder = tmp_path_factory.mktemp("architectures")
    for name, config in ARCHITECTURES.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return list(ARCHITECTURES)


@pytest.fixture(scope="session")
def random_clips(architectures, photos) -> dict[str, nn.Module]:
    """By architecture: open_clip's model with random weights that float16 can represent.

    Both activations get the same weights. The ResNet's are such that photographs differ in their
    features as they do with trained weights.
    """
    clips = {}
    for name in architectures:
        torch.manual_seed(0)
        clip = open_clip.create_model(name).eval()
        nn.init.normal_(clip.token_embedding.weight)  # the usual 0.02 makes all prompts the same
        nn.init.zeros_(clip.token_embedding.weight[-1])  # so does end-of-text, seen by itself
        if "rn" in name:
            fit_to_photos(clip.visual, photos)
        for tensor in clip.state_dict().values():
            tensor.copy_(tensor.half())
        clips[name] = clip.eval()
    return clips


@torch.no_grad()
def fit_to_photos(visual: nn.Module, photos: dict[str, np.ndarray]) -> None:
    """Give a ResNet the statistics of photographs, and centre their features."""
    norms = [module for module in visual.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.normal_(norm.weight, mean=1, std=0.3)  # open_clip starts the third ones at zero
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1
    crops = np.stack([photo[:288, :288] for photo in photos.values()])
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 64 - 2
    visual.train()
    for part in (visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = part(x)
    visual.eval()
    pool = visual.attnpool
    learned = pool.positional_embedding
    pool.positional_embedding = nn.Parameter(torch.zeros_like(learned[:1]))
    pool.c_proj.bias -= pool(x).mean(dim=0)
    pool.positional_embedding = learned


def in_openai_layout(clip: nn.Module) -> dict[str, torch.Tensor]:
    """Return weights as OpenAI's archives hold them: partly float16, and three sizes with them."""
    state = {key: value.clone() for key, value in clip.state_dict().items()}
    low = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)
    prefixes = tuple(f"{key}." for key, part in clip.named_modules() if isinstance(part, low))
    for key, value in state.items():
        if key.startswith(prefixes) or key in {"text_projection", "visual.proj"}:
            state[key] = value.half()
    sizes = {
        "input_resolution": np.max(clip.visual.image_size),
        "context_length": clip.context_length,
        "vocab_size": clip.vocab_size,
    }
    return state | {key: torch.as_tensor(size) for key, size in sizes.items()}


def write_torchscript(state: dict[str, torch.Tensor], path: Path) -> Path:
    """Write weights as a TorchScript archive of modules that do nothing but hold them."""
    root = nn.Module()
    for key, value in state.items():
        *parents, name = key.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        module.register_buffer(name, value)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        torch.jit.script(root).save(str(path))
    return path


@pytest.fixture(scope="session")
def openai_archives(random_clips, tmp_path_factory) -> dict[str, Path]:
    """By architecture: the same weights as a file in OpenAI's format."""
    folder = tmp_path_factory.mktemp("openai")
    return {
        name: write_torchscript(in_openai_layout(clip), folder / f"{name}.pt")
        for name, clip in random_clips.items()
        if name.endswith("-quickgelu")
    }
