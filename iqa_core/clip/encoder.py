"""The interface of models: protocols of image and text encoders, and the pair of both.

Nothing here needs torch or open_clip at run time, so that an encoder of another package, registered as
an entry point (see :mod:`iqa_core.clip.load`), decides by itself what it imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, cast

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import torch

    from iqa_core.clip.file_state import FileState
    from iqa_core.preprocess import Preprocess

__all__ = [
    "MAX_LOGIT_SCALE",
    "ContextTextEncoder",
    "ImageEncoder",
    "Precision",
    "Resolution",
    "TextEncoder",
    "Towers",
    "check_offers",
    "context_encoder",
]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Resolution = Literal["model", "native"]

#: Margins are at most twice the scale, and with this one finite in float32.
MAX_LOGIT_SCALE = 1e38


class ImageEncoder(Protocol):
    """uint8 pixels -> unit features.

    It is pickled and sent to the scoring actors, so it must hold no text tower and no open file. Two
    options need more, which :class:`iqa_core.clip.image_tower.ImageTower` has: ``--compile`` a method
    ``compile_for(batch_size)``, ``--decode gpu`` an attribute ``takes_tensors`` that is true, where
    :meth:`encode` also takes a tensor on its device.
    """

    @property
    def preprocess(self) -> Preprocess:
        """Size and filter of the resize before :meth:`encode`."""

    @property
    def width(self) -> int:
        """Width D of the features."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all of the model's weights, also the text tower's.

        It is part of a run's fingerprint: outputs of another digest are not mixed with this one's.
        """

    def to_device(self, device: str, precision: Precision = "auto") -> ImageEncoder:
        """Move to a device such as ``cpu`` or ``cuda``, and set the arithmetic's precision.

        Returns:
            The encoder to use there: itself, or one that it builds.
        """

    def encode(self, pixels: np.ndarray) -> torch.Tensor:
        """Encode a batch of equally large images.

        Args:
            pixels: (N, H, W, 3) uint8 RGB.

        Returns:
            (N, D) float32 features of length 1, NaN for an image without usable features. An
            exception costs only the image that causes it: the batch is halved to find it.
        """


class TextEncoder(Protocol):
    """Prompts -> unit features."""

    def encode(self, prompts: Sequence[str], /) -> torch.Tensor:
        """Encode prompts.

        Args:
            prompts: N texts.

        Returns:
            (N, D) float32 features of length 1 on the CPU.
        """


class ContextTextEncoder(TextEncoder, Protocol):
    """A text encoder that takes token embeddings too, so that prompts can be learned for it.

    :class:`iqa_core.clip.text_tower.TextTower` is one where its model is of CLIP's causal kind.
    """

    takes_embeddings: bool
    context_length: int
    tokenizer: Any
    token_embedding: torch.nn.Embedding

    def to(self, device: torch.device | str, /) -> Self:
        """Move to a device; return the encoder itself."""

    def tokenize(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the token ids, (N, context_length) int64, padded behind end-of-text."""

    def end_of_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the position of end-of-text in each row of (N, L) token ids, as (N,) int64."""

    def encode_embeddings(
        self, embeddings: torch.Tensor, end_of_text: torch.Tensor
    ) -> torch.Tensor:
        """Encode (N, L, width) token embeddings as (N, D) unit features, with gradients."""

    def encode_tree(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        ends: torch.Tensor,
    ) -> torch.Tensor:
        """Encode the (T, width) nodes of a prefix tree as (N, D) unit features, with gradients."""


def check_offers(encoder: ImageEncoder, name: str, option: str) -> None:
    """Check that an image encoder has what an option needs beyond the protocol.

    Args:
        encoder: The encoder.
        name: ``compile_for`` or ``takes_tensors``.
        option: As on the command line.

    Raises:
        InputError: If it has not.
    """
    if not getattr(encoder, name, None):
        raise InputError(
            f"{option} needs an encoder with {name}, and {type(encoder).__name__} has none: leave it out"
        )


def context_encoder(text: TextEncoder) -> ContextTextEncoder:
    """Narrow a text encoder to the kind that prompts can be learned for.

    Raises:
        InputError: If it takes no token embeddings.
    """
    if not getattr(text, "takes_embeddings", False):
        raise InputError(
            "prompts can't be learned for this model: its text tower is not of CLIP's causal kind "
            "(SigLIP, Hugging Face and CoCa towers are not): use another --model"
        )
    return cast("ContextTextEncoder", text)


@dataclass(frozen=True)
class Towers:
    """A loaded model.

    Attributes:
        name: The ``--model`` text that it was loaded by.
        image: The image encoder.
        load_text: Returns the text encoder. Called on the first use of :attr:`text`: scoring with a
            prompt file never needs it.
        logit_scale: Factor g on cosine differences that the model was trained with, such as CLIP's
            exp(logit_scale), about 100 for OpenAI's weights.
        quick_gelu: Whether the activation is QuickGELU, as in OpenAI's weights.
        files: The states, before loading, of all files that the model follows from; empty where
            they are not known, and then nothing is remembered of it (:mod:`iqa_core.clip.facts`).
    """

    name: str
    image: ImageEncoder
    load_text: Callable[[], TextEncoder]
    logit_scale: float
    quick_gelu: bool = False
    files: tuple[FileState, ...] = ()

    @cached_property
    def text(self) -> TextEncoder:
        """The text encoder, loaded on first use."""
        return self.load_text()

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of the image encoder."""
        return self.image.preprocess

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all weights, for the run's fingerprint."""
        return self.image.digest
