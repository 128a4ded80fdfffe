"""The sizes of a plain CLIP, read off the shapes of its tensors or off a configuration of open_clip's.

They say which architecture a file of weights is of, where the user named another or none.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from iqa_core.clip.layouts import IN_TRANSFORMERS, prefixes, without_wrappers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["ClipSizes"]

_PATCHES = "visual.conv1.weight"
_GRID = "visual.positional_embedding"
_TOKENS = "token_embedding.weight"
_POSITIONS = "positional_embedding"
#: What a ResNet's five halvings make of a side.
_RESNET_STRIDE = 32


class ClipSizes(NamedTuple):
    """Sizes of a plain CLIP, as the shapes of its tensors show them.

    Attributes:
        layers: Of the image tower: one number for a ViT, four for a ResNet.
        width: Of the image tower.
        patch_size: Side of a ViT's patches in pixels; None for a ResNet.
        image_size: Side of the input in pixels.
        embed_dim: Width of the features.
        text_layers: Layers of the text tower.
        text_width: Width of the text tower.
        context_length: Tokens of a prompt.
        vocab_size: Tokens of the vocabulary.
    """

    layers: int | tuple[int, ...]
    width: int
    patch_size: int | None
    image_size: int
    embed_dim: int
    text_layers: int
    text_width: int
    context_length: int
    vocab_size: int

    def __str__(self) -> str:
        """Return the sizes as a phrase of a message."""
        tower = (
            f"a ResNet of {'-'.join(map(str, self.layers))} blocks"
            if isinstance(self.layers, tuple)
            else f"a ViT of {self.layers} layers and patches of {self.patch_size} px"
        )
        return (
            f"{tower}, width {self.width}, for {self.image_size} px, with a text tower of "
            f"{self.text_layers} layers, width {self.text_width}"
        )

    def config(self) -> dict[str, Any]:
        """Return it as open_clip's configurations state it, with heads of width 64 as OpenAI's."""
        vision = {"layers": self.layers, "width": self.width, "image_size": self.image_size}
        text = {
            "context_length": self.context_length,
            "vocab_size": self.vocab_size,
            "width": self.text_width,
            "heads": self.text_width // 64,
            "layers": self.text_layers,
        }
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": vision | {"patch_size": self.patch_size},
            "text_cfg": text,
        }

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> ClipSizes | None:
        """Return the sizes of an architecture of open_clip's, None if it is no plain CLIP."""
        vision, text = config["vision_cfg"], config["text_cfg"]
        if "timm_model_name" in vision or "hf_model_name" in text:
            return None
        layers = vision.get("layers", 12)
        resnet = isinstance(layers, (list, tuple))
        return cls(
            layers=tuple(layers) if resnet else layers,
            width=vision.get("width", 768),
            patch_size=None if resnet else vision.get("patch_size", 16),
            image_size=vision.get("image_size", 224),
            embed_dim=config["embed_dim"],
            text_layers=text.get("layers", 12),
            text_width=text.get("width", 512),
            context_length=text.get("context_length", 77),
            vocab_size=text.get("vocab_size", 49408),
        )

    @classmethod
    def of_tensors(
        cls, tensors: Mapping[str, torch.Tensor], place: str | None = None
    ) -> ClipSizes | None:
        """Return the sizes of the model that a checkpoint holds, None if it holds no plain CLIP.

        Args:
            tensors: As :func:`iqa_core.clip.checkpoints.read_tensors` returns them.
            place: Prefix of the model's names, where it holds several.
        """
        tensors = without_wrappers(tensors, ())
        if place:
            tensors = {
                name: tensor for name, tensor in tensors.items() if name.startswith(f"{place}.")
            }
        try:
            for anchor in (_PATCHES, IN_TRANSFORMERS[_PATCHES]):
                for prefix in prefixes(tensors, {anchor})[:1]:
                    shapes = {
                        name.removeprefix(prefix).removeprefix("text."): tuple(tensor.shape)
                        for name, tensor in tensors.items()
                        if name.startswith(prefix)
                    }
                    return _sizes(shapes) if anchor == _PATCHES else _sizes_in_transformers(shapes)
        except (KeyError, IndexError, TypeError):  # something else, or without its dimensions
            pass
        return None


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> ClipSizes:
    if "visual.layer1.0.conv1.weight" in shapes:
        layers: int | tuple[int, ...] = tuple(
            _layers(shapes, rf"visual\.layer{stage}\.") for stage in (1, 2, 3, 4)
        )
        width, patch = shapes["visual.layer1.0.conv1.weight"][0], None
        side = _side(shapes["visual.attnpool.positional_embedding"]) * _RESNET_STRIDE
    else:
        layers = _layers(shapes, r"visual\.transformer\.resblocks\.")
        width, patch = shapes[_PATCHES][0], shapes[_PATCHES][-1]
        side = _side(shapes[_GRID]) * patch
    return ClipSizes(
        layers=layers,
        width=width,
        patch_size=patch,
        image_size=side,
        embed_dim=shapes["text_projection"][1],
        text_layers=_layers(shapes, r"transformer\.resblocks\."),
        text_width=shapes[_TOKENS][1],
        context_length=shapes[_POSITIONS][0],
        vocab_size=shapes[_TOKENS][0],
    )


def _sizes_in_transformers(shapes: Mapping[str, tuple[int, ...]]) -> ClipSizes:
    patches, tokens = (shapes[IN_TRANSFORMERS[name]] for name in (_PATCHES, _TOKENS))
    return ClipSizes(
        layers=_layers(shapes, r"vision_model\.encoder\.layers\."),
        width=patches[0],
        patch_size=patches[-1],
        image_size=_side(shapes[IN_TRANSFORMERS[_GRID]]) * patches[-1],
        embed_dim=shapes[IN_TRANSFORMERS["text_projection"]][0],
        text_layers=_layers(shapes, r"text_model\.encoder\.layers\."),
        text_width=tokens[1],
        context_length=shapes[IN_TRANSFORMERS[_POSITIONS]][0],
        vocab_size=tokens[0],
    )


def _layers(names: Mapping[str, Any], before: str) -> int:
    """Return the count of distinct numbers that follow a pattern at the beginning of the names."""
    found = (re.match(rf"{before}(\d+)\.", name) for name in names)
    return len({match[1] for match in found if match})


def _side(positions: tuple[int, ...]) -> int:
    """Return the side of the square grid of positions; the first position is the class token's."""
    return math.isqrt(max(0, positions[0] - 1))
