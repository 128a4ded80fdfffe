"""The embedded model, and files of weights in each format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from iqa_core.clip.load import load_towers


@pytest.fixture(scope="module")
def tiny():
    return load_towers("tiny")


@pytest.fixture(scope="module")
def files(random_clips, openai_archives, tmp_path_factory) -> dict[str, Path]:
    """The weights of ``small-vit`` in each format, and files that are none."""
    folder = tmp_path_factory.mktemp("files")
    state = random_clips["small-vit"].state_dict()
    torch.save(state, folder / "state.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
               folder / "checkpoint.pt")  # fmt: skip
    save_file(state, folder / "state.safetensors")
    (folder / "page.pt").write_text("<html>404</html>")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "cut.safetensors").write_bytes((folder / "state.safetensors").read_bytes()[:5000])
    torch.save({"a": Path()}, folder / "objects.pt")
    found = {path.name: path for path in folder.iterdir()}
    return found | {"archive.pt": openai_archives["small-vit-quickgelu"]}
