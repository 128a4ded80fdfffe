"""The embedded CLIP as jobs use it: without open_clip, and without torch in the driver.

Importing both takes five seconds of a processor. The image tower is built by each actor from the file
beside the code; the text features of the named prompt sets are in a file, too. Both are equal to what
:func:`iqa_core.clip.load.load_towers` gives.
"""

from __future__ import annotations

import json
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from iqa_core.clip.encoder import Towers
from iqa_core.clip.facts import ModelFacts, known_facts
from iqa_core.clip.load import TINY, load_towers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from iqa_core.clip.encoder import ImageEncoder, Precision, Resolution
    from iqa_core.preprocess import Preprocess

__all__ = ["PROMPTS_FILE", "EmbeddedText", "EmbeddedTower", "lightest_towers"]

_WEIGHTS = Path(__file__).parents[1] / "weights"
#: Text features of the named prompt sets, (N, D) float32; the texts are in its metadata.
PROMPTS_FILE = _WEIGHTS / f"{TINY}.prompts.safetensors"


class EmbeddedTower:
    """The image tower of ``tiny``, built on first use. Pickled, it holds no weights.

    Args:
        facts: Facts of ``tiny``.
        resolution: See :class:`iqa_core.clip.image_tower.ImageTower`.
    """

    def __init__(self, facts: ModelFacts, resolution: Resolution) -> None:
        self.facts = facts
        self.resolution = resolution

    def __reduce__(self) -> tuple[type[EmbeddedTower], tuple[ModelFacts, Resolution]]:
        return EmbeddedTower, (self.facts, self.resolution)

    @property
    def preprocess(self) -> Preprocess:
        """Size and filter of the resize."""
        return self.facts.preprocess

    @property
    def width(self) -> int:
        """Width D of the features."""
        return self.facts.width

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all weights."""
        return self.facts.digest

    def to_device(self, device: str, precision: Precision = "auto") -> ImageEncoder:
        """Return the tower on a device; see :meth:`iqa_core.clip.encoder.ImageEncoder.to_device`.

        Raises:
            RuntimeError: If this machine's package has other weights.
        """
        return self._tower.to_device(device, precision)

    def encode(self, pixels: np.ndarray) -> torch.Tensor:
        """Encode a batch; see :meth:`iqa_core.clip.encoder.ImageEncoder.encode`."""
        return self._tower.encode(pixels)

    @cached_property
    def _tower(self) -> ImageEncoder:
        from iqa_core.clip.image_tower import ImageTower
        from iqa_core.clip.resnet_state import resnet_of_state

        here = known_facts(TINY, self.resolution)
        if here != self.facts:
            raise RuntimeError(
                f"this machine's package has other weights of {TINY} than the driver's: install the "
                "same version on all nodes"
            )
        with safe_open(_WEIGHTS / f"{TINY}.safetensors", framework="pt") as file:
            names = [name for name in file.keys() if name.startswith("visual.")]  # noqa: SIM118
            state = {name.removeprefix("visual."): file.get_tensor(name).float() for name in names}
        return ImageTower(
            resnet_of_state(state, positions=self.resolution == "model"),
            self.preprocess,
            self.resolution,
            width=self.width,
            digest=self.digest,
        )


class EmbeddedText:
    """The text tower of ``tiny``, loaded where prompts are not of the named sets.

    Args:
        digest: Of the model.
    """

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode prompts; see :meth:`iqa_core.clip.encoder.TextEncoder.encode`."""
        return load_towers(TINY).text.encode(prompts)

    def encode_as_array(self, prompts: Sequence[str]) -> np.ndarray:
        """Return (N, D) float32 features of length 1, without torch if all are of the named sets."""
        digest, places, features = _prompts()
        if digest != self.digest or not all(text in places for text in prompts):
            return self.encode(prompts).numpy()
        return features[[places[text] for text in prompts]]


def lightest_towers(model: str, resolution: Resolution) -> Towers:
    """Load a model, or of ``tiny`` only the facts: its image tower is built where it computes.

    Args:
        model: ``--model``; see :func:`iqa_core.clip.load.load_towers`.
        resolution: See :class:`iqa_core.clip.image_tower.ImageTower`.

    Raises:
        InputError: As ``load_towers`` does.
    """
    facts = known_facts(TINY, resolution)
    if model != TINY or facts is None:
        return load_towers(model, resolution)
    return Towers(
        name=TINY,
        image=EmbeddedTower(facts, resolution),
        load_text=partial(EmbeddedText, facts.digest),
        logit_scale=facts.logit_scale,
        quick_gelu=facts.quick_gelu,
    )


@cache
def _prompts() -> tuple[str, dict[str, int], np.ndarray]:
    with safe_open(PROMPTS_FILE, framework="numpy") as file:
        about = file.metadata()
        features: np.ndarray = file.get_tensor("features")
    texts = json.loads(about["texts"])
    return about["digest"], {text: place for place, text in enumerate(texts)}, features
