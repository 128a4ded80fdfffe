"""Loads a CLIP's two towers by the text of ``--model``. The only file that imports open_clip.

Source of the model:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021, https://arxiv.org/abs/2103.00020.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import resize_pos_embed, resize_text_pos_embed

from iqa_core.clip.checkpoints import WeightsError, read_tensors
from iqa_core.clip.image_tower import ImageTower, Precision, Resolution
from iqa_core.clip.layouts import OPENAI_SIZES, OtherArchitectureError, match_weights
from iqa_core.clip.sizes import ClipSizes
from iqa_core.clip.text_tower import TextTower
from iqa_core.clip.weight_checks import check_finite, fitted, scale_of
from iqa_core.errors import InputError
from iqa_core.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "TINY",
    "ImageTower",
    "Precision",
    "Resolution",
    "TextTower",
    "Towers",
    "load_towers",
]

log = logging.getLogger(__name__)

_Clip = Any  # open_clip's CLIP, CustomTextCLIP and CoCa share no base that says what they have

TINY = "tiny"
_WEIGHTS = Path(__file__).parents[1] / "weights"
_SHARD = re.compile(r"-\d+-of-\d+\.")

open_clip.add_model_config(_WEIGHTS / f"{TINY}.json")


@dataclass(frozen=True)
class Towers:
    """A loaded CLIP.

    Attributes:
        name: The ``--model`` text that it was loaded by.
        image: The image tower.
        text: The text tower.
        preprocess: How the image tower wants its images.
        logit_scale: exp(logit_scale) of the weights, about 100 for OpenAI's.
        quick_gelu: Whether the activation is QuickGELU, as in OpenAI's weights.
        digest: SHA-256 (hex) of all weights, for the run's fingerprint.
    """

    name: str
    image: ImageTower
    text: TextTower
    preprocess: Preprocess
    logit_scale: float
    quick_gelu: bool
    digest: str


def load_towers(model: str = TINY, resolution: Resolution = "model") -> Towers:
    """Load a CLIP on the CPU in float32.

    Args:
        model: ``tiny`` (embedded), ``NAME/TAG`` in open_clip's spelling (downloaded once),
            ``hf-hub:ORG/REPO`` (downloaded once), ``NAME@FILE`` (an architecture with a local state
            dict in any container and layout that :mod:`iqa_core.clip.layouts` knows), or
            ``openai@FILE`` (weights trained as OpenAI's, the architecture read off them).
            ``#PREFIX`` behind a file names one of several models in it.
        resolution: See :class:`ImageTower`.

    Returns:
        Both towers and what belongs to them.

    Raises:
        InputError: If there is no such model, its weights can't be had, don't fit or are not all
            finite, or its logit scale is no positive number in float32.
    """
    with _quiet_open_clip():
        clip, architecture, quick_gelu = _create(model)
    check_finite(model, clip.state_dict())
    logit_scale = scale_of(model, clip.logit_scale)
    digest = _digest(clip)
    config = open_clip.model.get_model_preprocess_cfg(clip)
    size = config["size"]
    preprocess = Preprocess(
        size=(size, size) if isinstance(size, int) else tuple(size),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config.get("interpolation", "bicubic"),
        resize_mode=config.get("resize_mode", "shortest"),
        fill_color=config.get("fill_color", 0),
    )
    with _quiet_open_clip():
        tokenizer = _tokenizer(model, architecture)
    return Towers(
        name=model,
        image=ImageTower(clip.visual, preprocess, resolution),
        text=TextTower(clip, tokenizer),
        preprocess=preprocess,
        logit_scale=logit_scale,
        quick_gelu=quick_gelu,
        digest=digest,
    )


def _tokenizer(model: str, architecture: str) -> Any:  # noqa: ANN401 - open_clip has three kinds
    try:
        return open_clip.get_tokenizer(architecture)
    except Exception as error:  # a missing package, or whatever a download can raise
        raise InputError(
            f"the tokenizer of --model {model} can't be had ({_reason(error)}): it may need the "
            f"transformers package or the network; models that need neither are {TINY} and OpenAI's"
        ) from error


def _create(model: str) -> tuple[_Clip, str, bool]:
    """Return open_clip's model, the name of its architecture, and whether it has QuickGELU."""
    if model == TINY:
        embedded = str(_WEIGHTS / f"{TINY}.safetensors")
        quick_gelu = bool(_architecture(TINY).get("quick_gelu", False))
        return open_clip.create_model(TINY, pretrained=embedded), TINY, quick_gelu
    if model.startswith("hf-hub:"):
        return _create_from_hub(model)
    if "@" in model:
        name, _, path = model.partition("@")
        return _create_from_file(name, Path(path).expanduser())  # no shell expands it behind "@"
    if "/" in model:
        name, _, tag = model.rpartition("/")
        return _create_from_tag(name, tag)
    tags = open_clip.list_pretrained_tags_by_model(model)
    hint = (
        f"add a tag, such as {model}/{tags[0]} (it has {', '.join(tags)})"
        if tags
        else "use tiny (embedded), NAME/TAG (such as ViT-B-32/openai), hf-hub:ORG/REPO or NAME@FILE"
    )
    raise InputError(f"--model {model!r} is not a model that can be loaded: {hint}")


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


def _create_from_tag(name: str, tag: str) -> tuple[_Clip, str, bool]:
    config = _architecture(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        known = f"has {', '.join(tags)}" if tags else "has no pretrained weights"
        raise InputError(f"tag {tag!r} of --model {name}/{tag} is unknown: {name} {known}")
    trained_with = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    stated = bool(config.get("quick_gelu", False))
    plain = name.removesuffix("-quickgelu")
    if stated and not trained_with and plain != name:
        raise InputError(
            f"--model {name}/{tag} names QuickGELU, but these weights were trained with GELU, and "
            f"would score wrongly: use {plain}/{tag}"
        )
    if trained_with and not stated:
        log.info("%s/%s was trained with QuickGELU: using it", name, tag)
    try:
        clip = open_clip.create_model(name, pretrained=tag, force_quick_gelu=trained_with)
    except Exception as error:  # whatever a download can raise
        raise InputError(_cannot_fetch(f"{name}/{tag}", error)) from error
    return clip, name, stated or trained_with


def _create_from_hub(model: str) -> tuple[_Clip, str, bool]:
    try:
        config = open_clip.get_model_config(model)
        clip = open_clip.create_model(model, require_pretrained=True)
    except Exception as error:  # whatever a download can raise
        raise InputError(_cannot_fetch(model, error)) from error
    return clip, model, bool((config or {}).get("quick_gelu", False))


def _cannot_fetch(model: str, error: Exception) -> str:
    reason = _reason(error).rpartition("Last error: ")[2]  # what open_clip wraps it in
    return (
        f"weights of --model {model} could not be fetched ({reason[:300]}): check the network and "
        f"the name, give a local file as NAME@FILE, or use --model {TINY}, which is embedded"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _create_from_file(name: str, path: Path) -> tuple[_Clip, str, bool]:
    if name != "openai":
        _architecture(name)
    path, place = _split_place(path)
    if not path.is_file():
        folder = "; it is a folder: name the file of weights in it" if path.is_dir() else ""
        raise InputError(f"--model {name}@{path}: there is no file {path}: check the path{folder}")
    try:
        if path.suffix in (".npz", ".npy"):  # of big_vision, which open_clip itself reads
            quick_gelu = bool(_architecture(name).get("quick_gelu", False))
            return open_clip.create_model(name, pretrained=str(path)), name, quick_gelu
        return _create_from_tensors(name, path, place)
    except InputError:
        raise
    except WeightsError as error:
        problem, advice = error.problem, error.advice
        if isinstance(error, OtherArchitectureError) and _SHARD.search(path.name):
            problem = f"it is one shard of several: {problem}"
            advice = "give the index, *.index.json, with all shards beside it"
        raise InputError(
            f"weights of {path} do not load as {name} ({problem}): {advice}"
        ) from error
    except Exception as error:  # whatever open_clip makes of other tensors
        raise InputError(
            f"weights of {path} do not load as {name} ({type(error).__name__}: "
            f"{_reason(error)[:200]}): name the architecture that the file was saved from, or "
            "openai@FILE for weights of OpenAI's"
        ) from error


def _split_place(path: Path) -> tuple[Path, str | None]:
    """Split ``FILE#PREFIX``, which names one of several models in a file."""
    file, mark, place = str(path).rpartition("#")
    return (Path(file), place) if mark and not path.is_file() else (path, None)


def _create_from_tensors(name: str, path: Path, place: str | None) -> tuple[_Clip, str, bool]:
    """Create an architecture with the weights of a file, whatever their container and layout."""
    tensors = read_tensors(path)
    sizes = ClipSizes.of_tensors(tensors, place)
    if name == "openai":
        clip = _create_from_sizes(sizes, tensors, place)
        _load(clip, tensors, path, place)
        return clip, "", True
    stated = bool(_architecture(name).get("quick_gelu", False))
    trained_with = _says_quick_gelu(path, tensors)
    if stated and trained_with is False:
        raise InputError(
            f"--model {name}@{path} names QuickGELU, but by the config.json beside them these weights "
            f"were trained with GELU, and would score wrongly: use {name.removesuffix('-quickgelu')}"
        )
    clip = open_clip.create_model(name, force_quick_gelu=bool(trained_with), pretrained_text=False)
    try:
        _load(clip, convert_state_dict(clip, tensors), path, place)
    except OtherArchitectureError as error:
        raise OtherArchitectureError(error.problem, _other_name(name, sizes)) from error
    if trained_with and not stated:
        log.info("%s was trained with QuickGELU, as OpenAI's weights: using it", path)
    elif trained_with is None and not stated:
        log.warning(
            "%s does not say which activation it was trained with: using GELU as %s states it; "
            "OpenAI's weights need QuickGELU (%s-quickgelu@%s)", path, name, name, path,
        )  # fmt: skip
    return clip, name, stated or bool(trained_with)


def _create_from_sizes(
    sizes: ClipSizes | None, tensors: Mapping[str, torch.Tensor], place: str | None
) -> _Clip:
    """Create the architecture that weights of OpenAI's format are of."""
    if sizes is None:
        with torch.device("meta"):  # any CLIP: what it lacks says what the file holds instead
            expected = open_clip.CLIP(**_architecture("ViT-B-32")).state_dict()
        match_weights(tensors, expected, place)
        raise WeightsError("it is no CLIP of OpenAI's kind", "name the architecture: NAME@FILE")
    clip = open_clip.CLIP(**sizes.config(), quick_gelu=True).eval()
    clip.visual.image_mean = open_clip.OPENAI_DATASET_MEAN
    clip.visual.image_std = open_clip.OPENAI_DATASET_STD
    return clip


def _says_quick_gelu(path: Path, tensors: Mapping[str, torch.Tensor]) -> bool | None:
    """Return whether weights were trained with QuickGELU, None if nothing says so."""
    if {name.rpartition(".")[2] for name in tensors} >= OPENAI_SIZES:
        return True
    config = path.parent / "config.json"  # beside what transformers wrote
    if not config.is_file() or not any("vision_model.encoder." in name for name in tensors):
        return None
    try:
        document = json.loads(config.read_bytes())
        if document.get("model_type") != "clip":
            return None
        # What is left out is the default, QuickGELU.
        activation = (document.get("vision_config") or {}).get("hidden_act", "quick_gelu")
    except (OSError, ValueError, AttributeError):
        return None
    return {"quick_gelu": True, "gelu": False}.get(activation)


def _load(clip: _Clip, tensors: Mapping[str, torch.Tensor], path: Path, place: str | None) -> None:
    """Load a checkpoint's weights into a model, or raise WeightsError."""
    expected = clip.state_dict()
    found = match_weights(tensors, expected, place)
    resized = _resize_positions(clip, found.state, expected)
    state = fitted(found.state, expected)
    if getattr(clip, "logit_bias", None) is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(clip.logit_bias)
    clip.load_state_dict(state, strict=False)  # what may lack or be left over is decided by now
    for text in resized:
        log.warning("%s: %s", path, text)
    if found.ignored:
        log.info(
            "%s: %d tensors beside the model's are not used, such as %s",
            path, len(found.ignored), found.ignored[0],
        )  # fmt: skip


def _resize_positions(
    clip: _Clip, state: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> list[str]:
    """Interpolate positional embeddings of another input size; say what was done."""
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


def _digest(clip: _Clip) -> str:
    """Return the SHA-256 of the weights: names, shapes and values in a fixed order."""
    sha = hashlib.sha256()
    for key, tensor in sorted(clip.state_dict().items()):
        sha.update(json.dumps([key, list(tensor.shape), str(tensor.dtype)]).encode())
        sha.update(memoryview(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()))
    return sha.hexdigest()


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Keep the chatter of open_clip and its downloads quiet; errors reach the user as errors.

    open_clip writes to the root logger itself. A filter there leaves the records of named loggers
    alone, such as this module's own.
    """
    root, hub = logging.getLogger(), logging.getLogger("huggingface_hub")
    level = hub.level
    silent = logging.NullHandler()
    root.addHandler(silent)  # else logging.info() on the root logger would set up a real one
    root.addFilter(_not_from_open_clip)
    hub.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")  # decided here
            warnings.filterwarnings("ignore", message=".*torch.jit")  # OpenAI's archive format
            yield
    finally:
        hub.setLevel(level)
        root.removeFilter(_not_from_open_clip)
        root.removeHandler(silent)


def _not_from_open_clip(record: logging.LogRecord) -> bool:
    return not Path(record.pathname).is_relative_to(Path(open_clip.__file__).parent)
