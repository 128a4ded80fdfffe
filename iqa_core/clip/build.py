"""Builds the two towers of a CLIP module from its weights, each on first use."""

from __future__ import annotations

from functools import cache, cached_property, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch

from iqa_core.clip.encoder import Towers
from iqa_core.clip.image_tower import ImageTower, check_resolution
from iqa_core.clip.text_tower import TextTower
from iqa_core.clip.weight_checks import finite_digest, scale_of
from iqa_core.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np

    from iqa_core.clip.encoder import ImageEncoder, Precision, Resolution

__all__ = ["LazyImageTower", "lazy_towers", "whole_towers"]

_Clip = Any  # open_clip's CLIP, CustomTextCLIP and CoCa share no base that says what they have
_Tensors = dict[str, torch.Tensor]


def lazy_towers(
    model: str,
    config: Mapping[str, Any],
    clip: _Clip,
    weights: _Tensors,
    preprocess: Mapping[str, Any],
    tokenizer: Callable[[], Any],
    resolution: Resolution,
) -> Towers:
    """Return the towers of a CLIP that has no weights yet, each to be built on first use.

    Args:
        model: ``--model``.
        config: open_clip's configuration of the architecture.
        clip: Such a model on the meta device, all of whose state is in its state dict, but for the
            text tower's causal mask. It becomes the text tower.
        weights: Tensors by the architecture's names and of its shapes, of any floating-point type.
            They may be mapped from a file; those of a tower stay so until it is used.
        preprocess: Size, mean, std, interpolation, resize_mode and fill_color.
        tokenizer: Returns the tokenizer.
        resolution: See :class:`ImageTower`.

    Returns:
        The towers, on the CPU in float32.

    Raises:
        InputError: If weights are not finite, the logit scale is no positive number in float32, or the
            image tower does not have this resolution.
    """
    check_resolution(clip.visual, resolution)
    expected = clip.state_dict()
    # Derived buffers that a file may lack, such as num_batches_tracked, start at zero.
    weights = {
        name: weights[name] if name in weights else torch.zeros(own.shape, dtype=own.dtype)
        for name, own in expected.items()
    }
    # Converted one at a time: a tower that is not used must not fill the memory.
    converted = {name: partial(weights[name].to, own.dtype) for name, own in expected.items()}
    digest = finite_digest(model, converted)
    visual = clip.visual
    del clip.visual
    image = {name: tensor for name, tensor in weights.items() if name.startswith("visual.")}
    text = {name: tensor for name, tensor in weights.items() if name not in image}
    settings = _preprocess(preprocess)
    build = partial(_build_image, visual, image, settings, resolution, config["embed_dim"], digest)
    return Towers(
        name=model,
        image=LazyImageTower(build, settings, width=config["embed_dim"], digest=digest),
        load_text=cache(partial(_build_text, clip, text, tokenizer)),
        logit_scale=scale_of(model, converted["logit_scale"]()),
        quick_gelu=bool(config.get("quick_gelu", False)),
    )


class LazyImageTower:
    """An image tower that is built on first use. Pickled, it is the built one.

    Args:
        build: Builds it.
        preprocess: Size and filter of the resize.
        width: Width D of the features.
        digest: SHA-256 (hex) of the whole model's weights.
    """

    def __init__(
        self, build: Callable[[], ImageTower], preprocess: Preprocess, *, width: int, digest: str
    ) -> None:
        self._build = build
        self.preprocess = preprocess
        self.width = width
        self.digest = digest

    @cached_property
    def built(self) -> ImageTower:
        """The image tower."""
        return self._build()

    def __reduce__(self) -> tuple[Any, ...]:
        return itemgetter(0), ((self.built,),)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Return the weights, as a module does."""
        return self.built.parameters()

    def to_device(self, device: str, precision: Precision = "auto") -> ImageEncoder:
        """Return the image tower on a device; see :meth:`ImageTower.to_device`."""
        return self.built.to_device(device, precision)

    def encode(self, pixels: np.ndarray) -> torch.Tensor:
        """Encode a batch; see :meth:`ImageTower.encode`."""
        return self.built.encode(pixels)


def whole_towers(
    model: str,
    config: Mapping[str, Any],
    clip: _Clip,
    preprocess: Mapping[str, Any],
    tokenizer: Callable[[], Any],
    resolution: Resolution,
) -> Towers:
    """Return the towers of a CLIP that has its weights; arguments as of :func:`lazy_towers`.

    Raises:
        InputError: As :func:`lazy_towers` does.
    """
    weights = {name: tensor.detach for name, tensor in clip.state_dict().items()}
    digest = finite_digest(model, weights)
    return Towers(
        name=model,
        image=ImageTower(
            clip.visual, _preprocess(preprocess), resolution,
            width=config["embed_dim"], digest=digest,
        ),
        load_text=lambda: TextTower(clip, tokenizer()),
        logit_scale=scale_of(model, clip.logit_scale),
        quick_gelu=bool(config.get("quick_gelu", False)),
    )  # fmt: skip


def _fill(module: torch.nn.Module, weights: _Tensors) -> None:
    """Give a module on the meta device memory and weights."""
    module.to_empty(device="cpu")
    module.load_state_dict(weights)


def _build_image(
    visual: torch.nn.Module,
    weights: _Tensors,
    preprocess: Preprocess,
    resolution: Resolution,
    width: int,
    digest: str,
) -> ImageTower:
    """Build the image tower from a module on the meta device."""
    _fill(visual, {name.removeprefix("visual."): tensor for name, tensor in weights.items()})
    weights.clear()  # this is called once; what a file's pages hold is free again
    return ImageTower(visual, preprocess, resolution, width=width, digest=digest)


def _build_text(clip: _Clip, weights: _Tensors, tokenizer: Callable[[], Any]) -> TextTower:
    """Build the text tower of a CLIP on the meta device that has no image tower."""
    words = tokenizer()  # first: it may be missing
    _fill(clip, weights)
    weights.clear()  # this is called once; what a file's pages hold is free again
    parts: _Clip = getattr(clip, "text", clip)
    if parts.attn_mask is not None:
        parts.attn_mask = torch.full(parts.attn_mask.shape, -torch.inf).triu_(1)
    return TextTower(clip, words)


def _preprocess(settings: Mapping[str, Any]) -> Preprocess:
    size = settings["size"]
    return Preprocess(
        size=(size, size) if isinstance(size, int) else tuple(size),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings.get("interpolation", "bicubic"),
        resize_mode=settings.get("resize_mode", "shortest"),
        fill_color=settings.get("fill_color", 0),
    )
