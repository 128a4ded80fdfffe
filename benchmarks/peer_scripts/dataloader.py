"""A loop like clip-retrieval's: a DataLoader with workers, open_clip, batches, one Parquet file."""

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.peer_scripts.common import (
    arguments,
    clip_with_prompts,
    probabilities,
    transform,
    write,
)


class Files(Dataset):
    """Images of a folder, as the model takes them."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(map(str, folder.glob("*.jpg")))
        self.transform = transform()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.open(self.paths[index])), self.paths[index]


if __name__ == "__main__":
    options = arguments()
    clip, prompts = clip_with_prompts(options.model, options.weights)
    workers = os.cpu_count() or 1
    batches = DataLoader(Files(options.images), batch_size=32, num_workers=workers)
    paths: list[str] = []
    scores: list[float] = []
    with torch.inference_mode():
        for pixels, names in batches:
            scores.extend(probabilities(clip, prompts, pixels).tolist())
            paths.extend(names)
    write(options.output, paths, scores)
