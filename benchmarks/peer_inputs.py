"""What ``benchmarks.peers`` scores: folders of photographs with a manifest, and random weights."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["image_folder", "random_weights"]


def image_folder(place: Path, files: list[bytes], rows: int) -> Path:
    """Write a folder of JPEG files, and ``FOLDER.parquet`` with the URIs beside it.

    Args:
        place: Of the folder and the manifest.
        files: Encoded images; the names of the folder are links to them in turn.
        rows: Names in the folder.

    Returns:
        The folder.
    """
    folder = place / f"{rows}"
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    for number, content in enumerate(files):
        (place / f"{number}.jpg").write_bytes(content)
    names = [f"{row:06}.jpg" for row in range(rows)]
    for row, name in enumerate(names):
        os.link(place / f"{row % len(files)}.jpg", folder / name)
    pq.write_table(pa.table({"uri": [f"{rows}/{name}" for name in names]}), f"{folder}.parquet")
    return folder


def random_weights(path: Path, model: str) -> Path:
    """Write a state dict of random weights that every peer can load, with names as OpenAI's.

    Values are ones of float16, to which some peers round. The scale of logits is that of trained
    models. A ResNet's batch norms get the statistics of photographs and its features are centred, so
    that scores differ from image to image.
    """
    import open_clip
    import torch

    torch.manual_seed(0)
    clip = open_clip.create_model(model).eval()
    with torch.no_grad():
        torch.nn.init.normal_(clip.token_embedding.weight)  # 0.02 makes all prompts the same
        torch.nn.init.zeros_(clip.token_embedding.weight[-1])  # so does end-of-text
        clip.logit_scale.fill_(math.log(100))
        if hasattr(clip.visual, "attnpool"):
            _fit_to_photographs(clip.visual)
        for tensor in clip.state_dict().values():
            tensor.copy_(tensor.half())
    torch.save(clip.state_dict(), path)
    return path


def _fit_to_photographs(visual: Any) -> None:
    import numpy as np
    import torch

    from benchmarks.photos import photographs

    for module in visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, mean=1, std=0.3)
            torch.nn.init.normal_(module.bias, std=0.3)
            module.momentum = 1
    images = np.stack([np.asarray(image.resize((224, 224))) for image in photographs()])
    features = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 64 - 2
    visual.train()
    for part in (visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        features = part(features)
    visual.eval()
    # At native size towers leave the positional embedding out.
    learned = visual.attnpool.positional_embedding.clone()
    visual.attnpool.positional_embedding.zero_()
    visual.attnpool.c_proj.bias -= visual.attnpool(features).mean(dim=0)
    visual.attnpool.positional_embedding.copy_(learned)
