"""What the scripts share: their arguments, open_clip's model with prompts, and their output."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["PROMPTS", "arguments", "clip_with_prompts", "probabilities", "transform", "write"]

PROMPTS = ("Good photo.", "Bad photo.")


def arguments() -> argparse.Namespace:
    """Parse ``IMAGES OUTPUT MODEL WEIGHTS`` and the options of ``scorer``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path, help="folder of JPEG files")
    parser.add_argument("output", type=Path, help="folder to write Parquet files to")
    parser.add_argument("model", help="as open_clip names it")
    parser.add_argument("weights", type=Path, help="state dict in OpenAI's names")
    parser.add_argument("--resolution", default="model")
    parser.add_argument("--pairs", default="clip-iqa")
    parser.add_argument("--decode", default="fast")
    return parser.parse_args()


def transform() -> Any:
    """Return open_clip's transform of a PIL image to (3, 224, 224) float32."""
    import open_clip

    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return open_clip.image_transform(224, is_train=False, mean=mean, std=std)


def clip_with_prompts(model: str, weights: str | Path) -> tuple[Any, Any]:
    """Return open_clip's model, and the unit features of both prompts, (2, D)."""
    import open_clip
    import torch

    clip = open_clip.create_model(model, pretrained=str(weights)).eval()
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(model)(list(PROMPTS))
        return clip, clip.encode_text(tokens, normalize=True)


def probabilities(clip: Any, prompts: Any, images: Any) -> Any:
    """Return the probability of the first prompt for images of (N, 3, H, W): (N,) in [0, 1]."""
    features = clip.encode_image(images, normalize=True)
    return (clip.logit_scale.exp() * features @ prompts.T).softmax(dim=-1)[:, 0]


def write(output: Path, paths: list[str], scores: list[float]) -> None:
    """Write one Parquet file of paths and scores."""
    output.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"path": paths, "score": scores}), output / "scores.parquet")
