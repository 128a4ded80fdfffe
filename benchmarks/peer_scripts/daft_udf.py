"""Daft as its own image benchmark does it: download, decode, a row-wise transform, a class UDF."""

from typing import Any

import daft
import numpy as np
from daft import DataType, col
from PIL import Image

from benchmarks.peer_scripts.common import arguments, clip_with_prompts, probabilities, transform

to_pixels = transform()


@daft.func(return_dtype=DataType.tensor(DataType.float32(), (3, 224, 224)))
def preprocess(image: Any) -> Any:
    """Turn (H, W, 3) uint8 into what the model takes."""
    return to_pixels(Image.fromarray(np.asarray(image))).numpy()


@daft.cls
class Clip:
    """The model, loaded once."""

    def __init__(self, model: str, weights: str) -> None:
        self.clip, self.prompts = clip_with_prompts(model, weights)

    @daft.method.batch(return_dtype=DataType.float32(), batch_size=32)
    def __call__(self, pixels: Any) -> Any:
        """Return the scores of a batch."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(pixels.to_pylist()))
            return probabilities(self.clip, self.prompts, batch).numpy()


if __name__ == "__main__":
    options = arguments()
    files = daft.from_glob_path(f"{options.images}/*.jpg").select("path")
    images = files.with_column("image", col("path").download().decode_image(mode="RGB"))
    images = images.with_column("pixels", preprocess(col("image")))
    clip = Clip(options.model, str(options.weights))
    scores = images.with_column("score", clip(col("pixels"))).select("path", "score")
    scores.write_parquet(str(options.output))
