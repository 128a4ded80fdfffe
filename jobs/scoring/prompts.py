"""The prompts of a command: learned ones, or base prompts through the text tower.

Their files are read once, at the beginning. What a run's fingerprint has of them follows from the model's
facts; their features need the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from iqa_core.errors import InputError
from iqa_core.prompts.file import LearnedPrompts, load_prompts
from iqa_core.prompts.pairs import PromptPair, load_pairs
from iqa_core.scoring.features import PromptFeatures, encode_prompts, prompts_digest

if TYPE_CHECKING:
    from iqa_core.clip.encoder import Towers
    from iqa_core.clip.facts import ModelFacts

    from ..config import PromptOptions

__all__ = ["PromptIdentity", "Prompts", "read_prompts"]


@dataclass(frozen=True)
class PromptIdentity:
    """What a fingerprint has of prompts. See :class:`iqa_core.scoring.features.PromptFeatures`."""

    names: tuple[str, ...]
    logit_scale: float
    digest: str


class Prompts(ABC):
    """Prompts whose files are read and whose features are not computed."""

    @abstractmethod
    def identity(self, model: ModelFacts) -> PromptIdentity:
        """Return what a fingerprint has of them.

        Args:
            model: Facts of the CLIP whose image features are scored.

        Raises:
            InputError: If they were learned for other weights.
        """

    @abstractmethod
    def features(self, towers: Towers) -> PromptFeatures:
        """Return their features.

        Args:
            towers: The CLIP whose image features are scored.

        Raises:
            InputError: If they can't be encoded, or were learned for other weights.
        """


@dataclass(frozen=True)
class _BasePrompts(Prompts):
    pairs: tuple[PromptPair, ...]
    logit_scale: float | None

    def identity(self, model: ModelFacts) -> PromptIdentity:
        scale = model.logit_scale if self.logit_scale is None else float(self.logit_scale)
        digest = prompts_digest(model, self.pairs, self.logit_scale)
        return PromptIdentity(tuple(pair.name for pair in self.pairs), scale, digest)

    def features(self, towers: Towers) -> PromptFeatures:
        return encode_prompts(towers, self.pairs, self.logit_scale)


@dataclass(frozen=True)
class _FromFile(Prompts):
    path: str
    learned: LearnedPrompts
    logit_scale: float | None

    def identity(self, model: ModelFacts) -> PromptIdentity:
        self._check(model)
        found = self._scaled()
        return PromptIdentity(found.names, found.logit_scale, found.digest)

    def features(self, towers: Towers) -> PromptFeatures:
        self._check(towers)
        return self._scaled()

    def _check(self, model: Towers | ModelFacts) -> None:
        try:
            self.learned.check(model)
        except InputError as error:
            raise InputError(f"prompt file {self.path}: {error.on_command_line()}") from error

    def _scaled(self) -> PromptFeatures:
        found = self.learned.features
        return replace(found, logit_scale=self.logit_scale) if self.logit_scale else found


def read_prompts(options: PromptOptions) -> Prompts:
    """Read the prompts that the options of a command name.

    Args:
        options: ``--pairs``, ``--prompts`` and ``--logit-scale``.

    Raises:
        InputError: If they can't be read.
    """
    if options.prompts is None:
        return _BasePrompts(tuple(load_pairs(options.pairs)), options.logit_scale)
    return _FromFile(options.prompts, load_prompts(options.prompts), options.logit_scale)
