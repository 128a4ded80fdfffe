"""Which activation weights were trained with: QuickGELU, as OpenAI's, or GELU.

With the wrong one a model still runs and its scores are wrong, so it is never guessed silently.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from iqa_core.clip.layouts import OPENAI_SIZES
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["FileActivation", "quick_gelu_of_tag"]

log = logging.getLogger(__name__)


def quick_gelu_of_tag(model: str, config: Mapping[str, Any], pretrained: Mapping[str, Any]) -> bool:
    """Return whether weights of a tag need QuickGELU.

    Args:
        model: ``NAME/TAG``.
        config: open_clip's configuration of the architecture.
        pretrained: open_clip's configuration of the tag.

    Raises:
        InputError: If the architecture's name says QuickGELU, and the weights were trained with GELU.
    """
    name, _, tag = model.rpartition("/")
    trained_with = bool(pretrained.get("quick_gelu", False))
    declared = bool(config.get("quick_gelu", False))
    plain = name.removesuffix("-quickgelu")
    if declared and not trained_with and plain != name:
        raise InputError(
            f"--model {model} names QuickGELU, but these weights were trained with GELU, and would "
            f"score wrongly: use {plain}/{tag}"
        )
    if trained_with and not declared:
        log.info("%s was trained with QuickGELU: using it", model)
    return declared or trained_with


class FileActivation(NamedTuple):
    """The activation of a file's weights.

    Attributes:
        name: Of the architecture.
        path: The file.
        declared: Whether the architecture's configuration declares QuickGELU.
        trained_with: Whether the weights were trained with it, None if unknown.
    """

    name: str
    path: Path
    declared: bool
    trained_with: bool | None

    @classmethod
    def of(
        cls, name: str, config: Mapping[str, Any], path: Path, tensors: Mapping[str, torch.Tensor]
    ) -> FileActivation:
        """Find it out.

        Args:
            name: Of the architecture.
            config: open_clip's configuration of it.
            path: The file of the weights.
            tensors: What it holds.

        Raises:
            InputError: If the architecture declares QuickGELU, and the weights were trained with GELU.
        """
        declared = bool(config.get("quick_gelu", False))
        trained_with = _trained_with(path, tensors)
        if declared and trained_with is False:
            raise InputError(
                f"--model {name}@{path} names QuickGELU, but by the config.json beside them these "
                "weights were trained with GELU, and would score wrongly: use "
                f"{name.removesuffix('-quickgelu')}"
            )
        return cls(name, path, declared, trained_with)

    @property
    def quick_gelu(self) -> bool:
        """Whether to use QuickGELU: as the file says, else as the architecture states."""
        return self.declared or bool(self.trained_with)

    def log(self) -> None:
        """Say what was chosen, where the architecture's name does not."""
        if self.trained_with and not self.declared:
            log.info("%s was trained with QuickGELU, as OpenAI's weights: using it", self.path)
        elif self.trained_with is None and not self.declared:
            log.warning(
                "%s does not say which activation it was trained with: using GELU as %s states it; "
                "OpenAI's weights need QuickGELU (%s-quickgelu@%s)",
                self.path, self.name, self.name, self.path,
            )  # fmt: skip


def _trained_with(path: Path, tensors: Mapping[str, torch.Tensor]) -> bool | None:
    """Return whether weights were trained with QuickGELU, None if nothing says so.

    Args:
        path: The file of the weights; transformers writes a config.json beside it.
        tensors: What the file holds.
    """
    if {name.rpartition(".")[2] for name in tensors} >= OPENAI_SIZES:
        return True
    config = path.parent / "config.json"
    if not config.is_file() or not any("vision_model.encoder." in name for name in tensors):
        return None
    try:
        document = json.loads(config.read_bytes())
        if document.get("model_type") != "clip":
            return None
        # Where it is left out, it is the default, QuickGELU.
        activation = (document.get("vision_config") or {}).get("hidden_act", "quick_gelu")
    except (OSError, ValueError, AttributeError):
        return None
    return {"quick_gelu": True, "gelu": False}.get(activation)
