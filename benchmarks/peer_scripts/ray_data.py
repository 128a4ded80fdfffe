"""Ray Data's template of image inference: read_images, map, map_batches with an actor, write_parquet.

One actor for each CPU, which asks for half of one: so reading and transforms always find a CPU, and
whatever an image costs in each step, no core is idle. An actor of a whole CPU beside the readers would
leave one of two cores idle where images are small.
"""

import os
from typing import Any

import numpy as np
import ray
from PIL import Image

from benchmarks.peer_scripts.common import arguments, clip_with_prompts, probabilities, transform


def preprocess(row: dict[str, Any]) -> dict[str, Any]:
    """Replace an image of (H, W, 3) uint8 by what the model takes."""
    return {"path": row["path"], "pixels": transform()(Image.fromarray(row["image"])).numpy()}


class Clip:
    """An actor with the model."""

    def __init__(self, model: str, weights: str) -> None:
        self.clip, self.prompts = clip_with_prompts(model, weights)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return paths and scores of a batch."""
        import torch

        with torch.inference_mode():
            scores = probabilities(self.clip, self.prompts, torch.as_tensor(batch["pixels"]))
        return {"path": batch["path"], "score": scores.numpy()}


if __name__ == "__main__":
    options = arguments()
    images = ray.data.read_images(str(options.images), mode="RGB", include_paths=True)
    images.map(preprocess).map_batches(
        Clip,
        fn_constructor_args=(options.model, str(options.weights)),
        batch_size=32,
        num_cpus=0.5,
        compute=ray.data.ActorPoolStrategy(size=os.cpu_count()),
    ).write_parquet(str(options.output))
