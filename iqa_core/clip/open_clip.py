"""CLIPs of open_clip's architectures, from its own weights or from files. The only importer of open_clip.

The towers of a plain CLIP are built on first use: weights are read for the digest, but neither initialised
nor held in memory beside the file's own pages.

Source of the model:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021, https://arxiv.org/abs/2103.00020.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import get_model_preprocess_cfg, resize_pos_embed, resize_text_pos_embed
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from iqa_core.clip.build import lazy_towers, whole_towers
from iqa_core.clip.checkpoints import read_tensors
from iqa_core.clip.file_state import states_of
from iqa_core.clip.matching import match_weights
from iqa_core.clip.quick_gelu import FileActivation, quick_gelu_of_tag
from iqa_core.clip.quiet import quiet
from iqa_core.clip.sizes import ClipSizes
from iqa_core.clip.weight_checks import fitted
from iqa_core.clip.weights_error import (
    OtherArchitectureError,
    WeightsError,
    cannot_fetch,
    does_not_load,
)
from iqa_core.errors import InputError
from iqa_core.redaction import error_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.clip.encoder import Resolution, Towers

__all__ = ["TINY", "load_file", "load_hub", "load_tag", "load_tiny", "model_hint"]

log = logging.getLogger(__name__)

_Clip = Any  # open_clip's CLIP, CustomTextCLIP and CoCa share no base that says what they have
_Tensors = dict[str, torch.Tensor]

TINY = "tiny"
_WEIGHTS = Path(__file__).parents[1] / "weights"
_PACKAGE = Path(open_clip.__file__).parent

open_clip.add_model_config(_WEIGHTS / f"{TINY}.json")


def load_tiny(model: str, resolution: Resolution) -> Towers:
    """Load the embedded CLIP; see :func:`iqa_core.clip.load.load_towers`."""
    config = _architecture(TINY)
    with quiet(_PACKAGE):
        tensors = read_tensors(_WEIGHTS / f"{TINY}.safetensors")
        clip, weights = _matched(TINY, config, tensors, Path(TINY), None)
    return _towers(model, TINY, config, clip, weights, resolution)


def load_tag(model: str, resolution: Resolution) -> Towers:
    """Load ``NAME/TAG``; see :func:`iqa_core.clip.load.load_towers`."""
    name, _, tag = model.rpartition("/")
    config = _architecture(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        known = f"has {', '.join(tags)}" if tags else "has no pretrained weights"
        raise InputError(f"tag {tag!r} of --model {model} is unknown: {name} {known}")
    pretrained = open_clip.get_pretrained_cfg(name, tag)
    config["quick_gelu"] = quick_gelu_of_tag(model, config, pretrained)
    with quiet(_PACKAGE):
        try:
            path = Path(open_clip.download_pretrained(pretrained))
            if not _reads_itself(config, path):
                clip = open_clip.create_model(
                    name, pretrained=tag, force_quick_gelu=config["quick_gelu"]
                )
                return _whole(model, name, config, clip, resolution)
        except InputError:
            raise
        except Exception as error:  # whatever a download can raise
            raise cannot_fetch(model, error) from error
        return _from_tensors(model, name, config, path, resolution, preprocess=pretrained)


def load_hub(model: str, resolution: Resolution) -> Towers:
    """Load ``hf-hub:ORG/REPO``; see :func:`iqa_core.clip.load.load_towers`."""
    repository = model.partition(":")[2]
    download = open_clip.factory.download_pretrained_from_hf
    with quiet(_PACKAGE):
        try:
            document = json.loads(
                Path(download(repository, filename="open_clip_config.json")).read_bytes()
            )
            config = document["model_cfg"]
            path = Path(download(repository))
            if not _reads_itself(config, path):
                clip = open_clip.create_model(model, require_pretrained=True)
                return _whole(model, model, config, clip, resolution)
        except InputError:
            raise
        except Exception as error:  # whatever a download can raise
            raise cannot_fetch(model, error) from error
        preprocess = document.get("preprocess_cfg", {})
        return _from_tensors(model, model, config, path, resolution, preprocess=preprocess)


def load_file(model: str, resolution: Resolution) -> Towers:
    """Load ``NAME@FILE``; see :func:`iqa_core.clip.load.load_towers`."""
    name, _, file = model.partition("@")
    config = _architecture(name) if name != "openai" else {}
    path, place = _split_place(Path(file).expanduser())  # no shell expands it behind "@"
    if not path.is_file():
        folder = "; it is a folder: name the file of weights in it" if path.is_dir() else ""
        raise InputError(f"--model {name}@{path}: there is no file {path}: check the path{folder}")
    with quiet(_PACKAGE):
        if path.suffix not in (".npz", ".npy"):
            return _from_tensors(model, name, config, path, resolution, place=place, declared=False)
        config = config or _architecture(name)
        try:  # of big_vision, which open_clip itself reads
            clip = open_clip.create_model(name, pretrained=str(path))
        except Exception as error:
            raise does_not_load(path, name, error) from error
        return _whole(model, name, config, clip, resolution)


def model_hint(name: str) -> str | None:
    """Return how to complete the name of an architecture that lacks its tag; None for other texts."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    return f"add a tag, such as {name}/{tags[0]} (it has {', '.join(tags)})" if tags else None


def _architecture(name: str) -> dict[str, Any]:
    config = open_clip.get_model_config(name)
    if config is None:
        close = [known for known in open_clip.list_models() if known.lower() == name.lower()]
        close = close or ["ViT-B-32", "RN50", TINY]
        raise InputError(
            f"architecture {name!r} is none of the {len(open_clip.list_models())} that open_clip "
            f"knows: use one of its names, such as {', '.join(close)}"
        )
    return dict(config)


def _split_place(path: Path) -> tuple[Path, str | None]:
    """Split ``FILE#PREFIX``, which names one of several models in a file."""
    file, mark, place = str(path).rpartition("#")
    return (Path(file), place) if mark and not path.is_file() else (path, None)


def _is_plain(config: Mapping[str, Any]) -> bool:
    """Whether both towers are open_clip's own, whose weights are all in their state dict."""
    return not (
        "timm_model_name" in config["vision_cfg"]
        or "hf_model_name" in config["text_cfg"]
        or "multimodal_cfg" in config
    )


def _reads_itself(config: Mapping[str, Any], path: Path) -> bool:
    """Whether :func:`_from_tensors` reads such a model of open_clip's own, instead of open_clip."""
    return _is_plain(config) and path.suffix not in (".npz", ".npy")


def _from_tensors(
    model: str,
    name: str,
    config: dict[str, Any],
    path: Path,
    resolution: Resolution,
    *,
    place: str | None = None,
    preprocess: Mapping[str, Any] | None = None,
    declared: bool = True,
) -> Towers:
    """Load a file of weights, whatever its container and layout.

    Args:
        model: ``--model``.
        name: Name of the architecture; ``openai`` reads it off the weights.
        config: open_clip's configuration of it.
        path: The file.
        resolution: See :class:`ImageTower`.
        place: Which model of several in the file.
        preprocess: Preprocessing settings that differ from open_clip's defaults.
        declared: Whether ``quick_gelu`` of the configuration is what the weights were trained with.
    """
    activation = None
    files = states_of(path, path.parent / "config.json")  # which may name the activation
    try:
        tensors = read_tensors(path)
        sizes = ClipSizes.of_tensors(tensors, place)
        if name == "openai":
            config, name = _config_of(sizes, tensors, place), ""
        elif not declared:
            activation = FileActivation.of(name, config, path, tensors)
            config["quick_gelu"] = activation.quick_gelu
        try:
            clip, weights = _matched(name, config, tensors, path, place)
        except OtherArchitectureError as error:
            if not name:
                raise
            raise OtherArchitectureError(error.problem, _other_name(name, sizes)) from error
    except InputError:
        raise
    except Exception as error:  # whatever open_clip makes of other tensors
        raise does_not_load(path, name or "openai", error) from error
    if activation is not None:
        activation.log()
    if not _is_plain(config):
        clip.load_state_dict(weights, strict=False)  # what is missing or unused is decided by now
        return replace(_whole(model, name, config, clip, resolution), files=files)
    towers = _towers(model, name, config, clip, weights, resolution, preprocess)
    return replace(towers, files=files)


def _config_of(
    sizes: ClipSizes | None, tensors: Mapping[str, torch.Tensor], place: str | None
) -> dict[str, Any]:
    """Return the architecture that weights of OpenAI's format are of."""
    if sizes is None:
        with torch.device("meta"):  # any CLIP: what it lacks says what the file holds instead
            expected = open_clip.CLIP(**_architecture("ViT-B-32")).state_dict()
        match_weights(tensors, expected, place)
        raise WeightsError("it is no CLIP of OpenAI's kind", "name the architecture: NAME@FILE")
    return {**sizes.config(), "quick_gelu": True}


def _matched(
    name: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    place: str | None,
) -> tuple[_Clip, _Tensors]:
    """Return the model, without weights if it is plain, and its weights as the file stores them."""
    if _is_plain(config):
        options = {key: value for key, value in config.items() if key != "custom_text"}
        kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
        with torch.device("meta"):  # no memory, and no random numbers for millions of weights
            clip = kind(**options)
    else:
        quick = bool(config.get("quick_gelu"))
        clip = open_clip.create_model(name, force_quick_gelu=quick, pretrained_text=False)
    expected = clip.state_dict()
    found = match_weights(convert_state_dict(clip, dict(tensors)), expected, place)
    resized = _resize_positions(clip, found.state, expected)
    state = fitted(found.state, expected)
    for text in resized:
        log.warning("%s: %s", path, text)
    if found.ignored:
        log.info(
            "%s: %d tensors beside the model's are not used, such as %s",
            path, len(found.ignored), found.ignored[0],
        )  # fmt: skip
    if getattr(clip, "logit_bias", None) is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros(clip.logit_bias.shape)
    return clip, state


def _resize_positions(
    clip: _Clip, state: _Tensors, expected: Mapping[str, torch.Tensor]
) -> list[str]:
    """Interpolate positional embeddings of another input size; return what was done."""
    done = []
    for resize, names in (
        (resize_pos_embed, ("visual.positional_embedding",)),
        (resize_text_pos_embed, ("positional_embedding", "text.positional_embedding")),
    ):
        for name in names:
            old, new = state.get(name), expected.get(name)
            if old is None or new is None or old.shape[1:] != new.shape[1:] or len(old) == len(new):
                continue
            resize(state, clip)
            done.append(
                f"{name} was interpolated from {len(old)} to {len(new)} positions: scores are better "
                "with the architecture that the weights were trained as"
            )
    return done


def _tokenizer(model: str, architecture: str) -> Any:  # noqa: ANN401 - open_clip has three kinds
    try:
        with quiet(_PACKAGE):
            return open_clip.get_tokenizer(architecture)
    except Exception as error:  # a missing package, or whatever a download can raise
        raise InputError(
            f"the tokenizer of --model {model} can't be had ({error_line(error)}): it may need the "
            f"transformers package or the network; models that need neither are {TINY} and OpenAI's"
        ) from error


def _towers(
    model: str,
    name: str,
    config: Mapping[str, Any],
    clip: _Clip,
    weights: _Tensors,
    resolution: Resolution,
    preprocess: Mapping[str, Any] | None = None,
) -> Towers:
    """Return the towers of a plain CLIP on the meta device, the text tower to be built on first use."""
    overrides = {key: value for key, value in (preprocess or {}).items() if key != "size"}
    settings = merge_preprocess_dict(PreprocessCfg(size=clip.visual.image_size), overrides)
    tokenizer = partial(_tokenizer, model, name)
    return lazy_towers(model, config, clip, weights, settings, tokenizer, resolution)


def _whole(
    model: str, name: str, config: Mapping[str, Any], clip: _Clip, resolution: Resolution
) -> Towers:
    """Return the towers of a model that open_clip has built."""
    settings = get_model_preprocess_cfg(clip)
    tokenizer = partial(_tokenizer, model, name)
    return whole_towers(model, config, clip, settings, tokenizer, resolution)


def _other_name(name: str, sizes: ClipSizes | None) -> str:
    """Return advice on which architecture to name."""
    if sizes is None:
        return (
            "name the architecture that the file was saved from, or openai@FILE for weights of "
            "OpenAI's"
        )
    fitting = [
        known
        for known in open_clip.list_models()
        if ClipSizes.of_config(_architecture(known)) == sizes
    ]
    if name in fitting:
        return (
            f"by its sizes it is {name}, but of another kind: name the one that it was saved from"
        )
    if not fitting:
        return f"it holds {sizes}, which is none of open_clip's architectures: name the right one"
    return f"it holds {sizes}: name {' or '.join(fitting)}"
