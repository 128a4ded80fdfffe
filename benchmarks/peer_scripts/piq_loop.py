"""piq's ``CLIPIQA`` on one file after the other, read as in its README.

Patched is the loading alone: ``clip.load`` builds piq's model from our file instead of a download,
and ``download_tensor`` returns the tokens of the two prompts.
"""

from typing import Any

import open_clip
import piq
import torch
from piq.feature_extractors import clip
from skimage.io import imread

from benchmarks.peer_scripts.common import PROMPTS, arguments, write


def load_from(weights: Any) -> None:
    """Let piq load its model from a file of ours."""
    clip.load = lambda: clip.build_model(torch.load(weights)).float()
    tokens = open_clip.get_tokenizer("RN50")(list(PROMPTS))
    piq.clip_iqa.download_tensor = lambda *_: tokens


if __name__ == "__main__":
    options = arguments()
    load_from(options.weights)
    metric = piq.CLIPIQA(data_range=255)
    paths = sorted(map(str, options.images.glob("*.jpg")))
    scores = []
    for path in paths:
        x = torch.tensor(imread(path)).permute(2, 0, 1)[None]
        scores.append(metric(x).item())
    write(options.output, paths, scores)
