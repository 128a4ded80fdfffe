"""Prompt features by the options of a command: learned prompts, or base prompts through the text tower."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from iqa_core.prompts.file import load_prompts
from iqa_core.prompts.pairs import load_pairs
from iqa_core.scoring.features import encode_prompts

if TYPE_CHECKING:
    from iqa_core.clip.encoder import Towers
    from iqa_core.scoring.features import PromptFeatures

    from ..config import PromptOptions

__all__ = ["prompt_features"]


def prompt_features(options: PromptOptions, towers: Towers) -> PromptFeatures:
    """Return the features of the prompts by the options of a command.

    Args:
        options: ``--pairs``, ``--prompts`` and ``--logit-scale``.
        towers: The CLIP whose image features are scored.

    Raises:
        InputError: If the prompts can't be read or encoded, or belong to other weights.
    """
    if options.prompts is None:
        return encode_prompts(towers, load_pairs(options.pairs), options.logit_scale)
    learned = load_prompts(options.prompts, towers).features
    return replace(learned, logit_scale=options.logit_scale) if options.logit_scale else learned
