"""Sizes of architectures, read off the shapes of their weights."""

from __future__ import annotations

import open_clip
import torch

from iqa_core.clip.sizes import ClipSizes


def test_each_architecture_of_open_clips_is_read_off_its_own_weights():
    """RN50x4 and ViT-B-16 without their numbers: shapes are enough."""
    for name in ("RN50x4", "ViT-B-16", "ViT-L-14-336"):
        config = open_clip.get_model_config(name)
        with torch.device("meta"):
            tensors = open_clip.CLIP(**config).state_dict()
        assert ClipSizes.of_tensors(tensors) == ClipSizes.of_config(config)
