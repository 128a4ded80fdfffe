"""The fingerprint of an output: everything that determines its numbers and columns."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from iqa_core.clip.encoder import Precision
    from iqa_core.clip.facts import ModelFacts

    from ..config import ImageOptions
    from .prompts import PromptIdentity

__all__ = ["fingerprint_of_run", "fingerprint_of_tower"]

#: Increased whenever the same options give other numbers or columns.
_FORMAT = 1
_PACKAGES = ("open_clip_torch", "pillow", "torch")


def fingerprint_of_run(
    kind: str, tower: Mapping[str, Any], prompts: PromptIdentity | None, schema: pa.Schema
) -> dict[str, Any]:
    """Return the document that all rows of one output have in common.

    Args:
        kind: The command: ``score``, ``embed`` or ``rescore``.
        tower: Of :func:`fingerprint_of_tower`.
        prompts: What identifies the prompts; None only embeds.
        schema: The output's columns.
    """
    scoring = {}
    if prompts is not None:
        scoring = {
            "pairs": list(prompts.names),
            "logit_scale": prompts.logit_scale,
            "prompts": prompts.digest,
        }
    return {
        "kind": kind,
        "format": _FORMAT,
        **tower,
        **scoring,
        "columns": [_column(field) for field in schema],
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _column(field: pa.Field) -> str:
    digest = (field.metadata or {}).get(b"digest")
    return f"{field.name}: {field.type}" + (f" ({digest.decode()})" if digest else "")


def fingerprint_of_tower(
    config: ImageOptions, model: ModelFacts, precision: Precision, crops: int = 1
) -> dict[str, Any]:
    """Return the part of the fingerprint that determines the features of an image.

    Args:
        config: The options.
        model: The model's facts.
        precision: Of the tower.
        crops: Views of each image; one leaves the document as it was before there were several.
    """
    document = {
        "model": config.model,
        "weights": model.digest,
        "quick_gelu": model.quick_gelu,
        "preprocess": asdict(model.preprocess),
        "resolution": config.resolution,
        "decode": config.decode,
        "precision": precision,
    }
    return document if crops == 1 else document | {"crops": crops}
