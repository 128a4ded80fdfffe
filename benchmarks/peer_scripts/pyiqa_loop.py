"""pyiqa's ``clipiqa`` on one file after the other, as its README shows.

Patched is the loading alone: its ``load`` takes a file, but only an archive of TorchScript. Its
prompts are five pairs, whose text features it computes anew for each image.
"""

import pyiqa
import torch
from pyiqa.archs import clip_model, clipiqa_arch

from benchmarks.peer_scripts.common import arguments, write

if __name__ == "__main__":
    options = arguments()
    clipiqa_arch.load = lambda *_: clip_model.build_model(torch.load(options.weights)).float()
    metric = pyiqa.create_metric("clipiqa", device="cpu")
    paths = sorted(map(str, options.images.glob("*.jpg")))
    write(options.output, paths, [metric(path).item() for path in paths])
