"""torchmetrics' ``CLIPImageQualityAssessment``: ``update`` for each file, ``compute`` at the end.

Patched is the loading alone: it gets piq's model, as it does itself for ``clip_iqa``, from our file,
and open_clip's tokenizer, which gives the same tokens as the one of transformers.
"""

from types import SimpleNamespace

import open_clip
from piq.feature_extractors import clip
from torchmetrics.multimodal import clip_iqa
from torchvision.io import decode_image

from benchmarks.peer_scripts.common import arguments, write
from benchmarks.peer_scripts.piq_loop import load_from


def tokenize(text: list[str]) -> dict[str, list[list[int]]]:
    """Return token ids as a processor of transformers does."""
    return {"input_ids": open_clip.get_tokenizer("RN50")(text).tolist()}


if __name__ == "__main__":
    options = arguments()
    load_from(options.weights)
    tokenize.tokenizer = SimpleNamespace(model_max_length=77)  # type: ignore[attr-defined]
    clip_iqa._get_clip_iqa_model_and_processor = lambda _: (clip.load().eval(), tokenize)
    metric = clip_iqa.CLIPImageQualityAssessment(data_range=255)
    paths = sorted(map(str, options.images.glob("*.jpg")))
    for path in paths:
        metric.update(decode_image(path, mode="RGB")[None].float())
    write(options.output, paths, metric.compute().tolist())
