"""Layouts of checkpoints: the names of their tensors.

Training frameworks put a prefix before a model's own names (``module.``, ``_orig_mod.``, ``model.``,
a container's key, any attribute of a user's class). The prefix is found by the names themselves: it
is what precedes all of the architecture's. Layouts are a table from each of the architecture's names
to the file's: open_clip's own, the text tower as a part (``text.``) or not, and that of Hugging
Face's transformers, whose CLIPModel holds the same numbers (https://arxiv.org/abs/2103.00020).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import torch

__all__ = [
    "DERIVED",
    "IN_TRANSFORMERS",
    "OPENAI_SIZES",
    "OPTIONAL",
    "Source",
    "layouts",
    "prefixes",
    "without_wrappers",
]

#: Scalars beside the weights that only OpenAI's own files hold.
OPENAI_SIZES = frozenset({"input_resolution", "context_length", "vocab_size"})

#: What wrappers insert anywhere in a name: compilation, distributed training, checkpointed layers.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
#: Buffers that follow from the architecture: files may have or lack them.
DERIVED = ("num_batches_tracked", "position_ids", "attn_mask")
#: Of an architecture's names, those that a file may lack; margins are differences, without the bias.
OPTIONAL = (*DERIVED, "logit_bias")

#: open_clip's names of a ViT's CLIP -> those of transformers' CLIPModel, without the layers.
IN_TRANSFORMERS = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text_projection": "text_projection.weight",
} | {
    f"{own}.{kind}": f"{theirs}.{kind}"
    for own, theirs in {
        "visual.ln_pre": "vision_model.pre_layrnorm",  # so spelled there
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }.items()
    for kind in ("weight", "bias")
}
_TRANSPOSED = {"visual.proj", "text_projection"}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_BLOCK_PARTS = {
    f"{own}.{kind}": f"{theirs}.{kind}"
    for own, theirs in {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }.items()
    for kind in ("weight", "bias")
}


@dataclass(frozen=True)
class Source:
    """The source of a weight: tensors to concatenate, and perhaps to transpose."""

    names: tuple[str, ...]
    transposed: bool = False


def without_wrappers(
    tensors: Mapping[str, torch.Tensor], expected: Collection[str]
) -> dict[str, torch.Tensor]:
    """Remove what wrappers inserted into the names, unless two tensors would get the same name."""
    wrappers = _WRAPPERS - {part for name in expected for part in name.split(".")}
    plain = {
        name: ".".join(part for part in name.split(".") if part not in wrappers) for name in tensors
    }
    count = Counter(plain.values())
    return {
        plain[name] if count[plain[name]] == 1 else name: tensor for name, tensor in tensors.items()
    }


def layouts(expected: Collection[str]) -> list[tuple[str, dict[str, Source]]]:
    """Return the layouts in which an architecture's weights may come."""
    found = [("open_clip", {name: Source((name,)) for name in expected})]
    part = {name for name in expected if name.startswith("text.")}
    if part:
        other = {name: name.removeprefix("text.") for name in expected}
    else:
        text = ("text_projection", "positional_embedding", "token_embedding", "transformer")
        other = {
            name: f"text.{name}" if name.startswith((*text, "ln_final")) else name
            for name in expected
        }
    found.append(("open_clip", {name: Source((theirs,)) for name, theirs in other.items()}))
    translated = {name: _in_transformers(name.removeprefix("text.")) for name in expected}
    complete = {name: source for name, source in translated.items() if source is not None}
    if len(complete) == len(translated):
        found.append(("transformers", complete))
    return found


def _in_transformers(name: str) -> Source | None:
    """Return where transformers' CLIPModel keeps one of open_clip's weights."""
    if name in IN_TRANSFORMERS:
        return Source((IN_TRANSFORMERS[name],), name in _TRANSPOSED)
    block = _BLOCK.fullmatch(name)
    if block is None:
        return None
    visual, number, part = block.groups()
    layer = f"{'vision' if visual else 'text'}_model.encoder.layers.{number}"
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.rpartition("_")[2]
        return Source(tuple(f"{layer}.self_attn.{part}_proj.{kind}" for part in "qkv"))
    return Source((f"{layer}.{_BLOCK_PARTS[part]}",)) if part in _BLOCK_PARTS else None


def prefixes(names: Iterable[str], wanted: Collection[str]) -> list[str]:
    """Return the prefixes of the wanted names, the most frequent first."""
    found: Counter[str] = Counter()
    for name in names:
        start = 0
        while True:
            if name[start:] in wanted:
                found[name[:start]] += 1
            start = name.find(".", start) + 1
            if not start:
                break
    return sorted(found, key=lambda prefix: (-found[prefix], len(prefix)))
