"""CLIP's two towers. The only file that imports open_clip.

Sources:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021, https://arxiv.org/abs/2103.00020 (the model).
    Wang, Chan, Loy, https://arxiv.org/abs/2207.12396, section 3 (ResNet tower without positional
    embedding, so that images of any size keep their size).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.checkpoints import WeightsError, read_tensors
from iqa_core.clip_sizes import ClipSizes
from iqa_core.schema import InputError, Preprocess
from iqa_core.weight_layouts import OPENAI_SIZES, OtherArchitectureError, fitted, match_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

__all__ = [
    "MAX_LOGIT_SCALE",
    "TINY",
    "ImageTower",
    "Precision",
    "Resolution",
    "TextTower",
    "Towers",
    "load_towers",
]

log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Resolution = Literal["model", "native"]

_Clip = Any  # open_clip's CLIP, CustomTextCLIP and CoCa share no base that says what they have

TINY = "tiny"
_WEIGHTS = Path(__file__).parent / "weights"
_SHARD = re.compile(r"-\d+-of-\d+\.")
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

#: Margins are at most twice the scale, and with this one finite in float32.
MAX_LOGIT_SCALE = 1e38
_USUAL_SCALE = (1.0, 1000.0)

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


class ImageTower(nn.Module):
    """uint8 pixels -> unit features. Normalises on the device; holds no text tower.

    Args:
        visual: open_clip's image tower.
        preprocess: Channel means and deviations to normalise with, and the input size.
        resolution: ``model`` takes images of ``preprocess.size``; ``native`` takes any size and
            needs a ResNet, whose attention pool then runs without its positional embedding.

    Raises:
        InputError: If the resolution is neither, or ``native`` is asked of a tower that is no
            ResNet.
    """

    mean: torch.Tensor
    std: torch.Tensor

    #: A ResNet halves the size five times, so a smaller image has nothing left to pool.
    min_side = 32

    def __init__(
        self, visual: nn.Module, preprocess: Preprocess, resolution: Resolution = "model"
    ) -> None:
        super().__init__()
        self.visual = visual
        self.resolution = resolution
        self.preprocess = preprocess
        self.precision: Precision = "fp32"
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))
        _check_choice("resolution", resolution, get_args(Resolution))
        if resolution == "native":
            if not isinstance(visual, ModifiedResNet):
                raise InputError(
                    f"--resolution native needs a ResNet image tower, but this one is a "
                    f"{type(visual).__name__} of fixed size: use --resolution model, or a model "
                    "such as RN50/openai"
                )
            # One row of zeros broadcasts over any number of positions: no positional embedding.
            embedding = visual.attnpool.positional_embedding
            visual.attnpool.positional_embedding = nn.Parameter(torch.zeros_like(embedding[:1]))
        self.eval().requires_grad_(requires_grad=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    def to_device(self, device: str | torch.device, precision: Precision = "auto") -> ImageTower:
        """Move to a device and set the precision of the tower's arithmetic.

        Args:
            device: Such as ``cpu`` or ``cuda``.
            precision: ``auto`` is fp16 autocast on a GPU (three more bits of mantissa than bf16,
                which rankings need) and fp32 on a CPU.

        Returns:
            The tower itself.

        Raises:
            InputError: If there is no such precision.
        """
        _check_choice("precision", precision, get_args(Precision))
        self.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        on_gpu = self.device.type != "cpu"
        self.precision = ("fp16" if on_gpu else "fp32") if precision == "auto" else precision
        return self

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_AUTOCAST[self.precision])

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Encode a batch of equally large images.

        Args:
            pixels: (N, H, W, 3) uint8 RGB.

        Returns:
            (N, D) float32 features of length 1, on the tower's device; NaN for an image whose
            features have no direction, because they overflowed or are all zero.

        Raises:
            ValueError: If the shape or type is another, or the size does not fit the tower.
        """
        if isinstance(pixels, np.ndarray):  # torch takes no flipped view, and warns of Ray's arrays
            pixels = np.require(pixels, requirements=["C_CONTIGUOUS", "WRITEABLE"])
        batch = torch.as_tensor(pixels)
        if batch.ndim != 4 or batch.shape[-1] != 3 or batch.dtype != torch.uint8:
            raise ValueError(
                f"pixels have shape {tuple(batch.shape)} and type {batch.dtype}, but must be "
                "(N, H, W, 3) of torch.uint8"
            )
        height, width = batch.shape[1:3]
        if self.resolution == "model" and (height, width) != self.preprocess.size:
            raise ValueError(
                f"images are {height} x {width}, but this tower takes {self.preprocess.size}: "
                "resize them with iqa_core.images first"
            )
        if self.resolution == "native" and min(height, width) < self.min_side:
            raise ValueError(
                f"images are {height} x {width}, but at native resolution this tower needs at "
                f"least {self.min_side} px a side: use --resolution model"
            )
        # NHWC in memory is what channels_last wants, so the permute is free.
        images = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        # div, sub, div as torchvision's ToTensor and Normalize do it: equal to the last bit.
        images = images.float().div(255).sub_(self.mean).div_(self.std)
        with self._autocast():
            features = self.visual(images)
        return _of_length_one(features.float())


class TextTower(nn.Module):
    """Prompts -> unit features, from text or from token embeddings.

    Args:
        clip: open_clip's model; its image tower is left alone.
        tokenizer: The tokenizer that belongs to it.
    """

    attn_mask: torch.Tensor

    def __init__(self, clip: _Clip, tokenizer: Any) -> None:  # noqa: ANN401 - they share no base
        super().__init__()
        # CLIP keeps the text tower's parts on itself, CustomTextCLIP in ``.text``.
        parts: _Clip = getattr(clip, "text", clip)
        self.tokenizer = tokenizer
        self.context_length: int = getattr(parts, "context_length", tokenizer.context_length)
        pool = getattr(parts, "text_pool_type", getattr(parts, "pool_type", None))
        self.eot_id: int | None = getattr(tokenizer, "eot_token_id", None)
        #: Whether the features of a prompt depend on nothing but its tokens up to end-of-text.
        self.takes_embeddings = (
            getattr(parts, "transformer", None) is not None
            and getattr(parts, "attn_mask", None) is not None
            and getattr(parts, "cls_emb", None) is None
            and pool == "argmax"
            and self.eot_id is not None
        )
        if self.takes_embeddings:
            self.token_embedding = parts.token_embedding
            self.positional_embedding = parts.positional_embedding
            self.transformer = parts.transformer
            self.ln_final = parts.ln_final
            self.text_projection = parts.text_projection
            self.register_buffer("attn_mask", parts.attn_mask, persistent=False)
        else:
            self._encode_tokens = clip.encode_text  # holds the image tower too
        self.eval().requires_grad_(requires_grad=False)

    def tokenize(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the token ids, (N, context_length) int64, padded behind end-of-text.

        Raises:
            InputError: If a prompt does not fit; the tokenizer alone would cut it in silence.
        """
        if self.eot_id is not None:
            for prompt in prompts:
                needed = len(self.tokenizer.encode(prompt)) + 2  # start- and end-of-text
                if needed > self.context_length:
                    raise InputError(
                        f"prompt {prompt!r} has {needed} tokens, but the text tower takes at most "
                        f"{self.context_length}: shorten it"
                    )
        tokens: torch.Tensor = self.tokenizer(list(prompts), context_length=self.context_length)
        return tokens

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode prompts; the same as open_clip's ``encode_text`` to float precision.

        Args:
            prompts: N texts.

        Returns:
            (N, D) float32 features of length 1.

        Raises:
            InputError: If a prompt is too long for the tower.
        """
        tokens = self.tokenize(prompts)
        if not self.takes_embeddings:
            features: torch.Tensor = self._encode_tokens(tokens, normalize=True)
            return features.float()
        tokens = tokens.to(self.attn_mask.device)
        return self.encode_embeddings(self.token_embedding(tokens), self.end_of_text(tokens))

    def end_of_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the position of end-of-text in each row of (N, L) token ids, as (N,) int64."""
        return tokens.argmax(dim=-1)  # it has the highest id of the vocabulary

    def encode_embeddings(
        self, embeddings: torch.Tensor, end_of_text: torch.Tensor
    ) -> torch.Tensor:
        """Encode prompts that are given as token embeddings; gradients flow to the embeddings.

        Only the tokens up to the last end-of-text are run: the causal mask makes what follows
        irrelevant.

        Args:
            embeddings: (N, L, width) token embeddings without positions, L at most context_length.
            end_of_text: (N,) int64 position of end-of-text, where the feature is read.

        Returns:
            (N, D) float32 features of length 1; for the embeddings of plain prompts the same as
            :meth:`encode`.

        Raises:
            InputError: If this text tower is not of CLIP's causal kind, or L is too long.
        """
        if not self.takes_embeddings:
            raise InputError(
                "this model's text tower is not of CLIP's causal kind (SigLIP, Hugging Face and "
                "CoCa towers are not), so it can't take learned prompts: use another --model"
            )
        if embeddings.shape[1] > self.context_length:
            raise InputError(
                f"prompts of {embeddings.shape[1]} tokens are longer than the text tower's "
                f"{self.context_length}: use fewer context vectors or shorter base prompts"
            )
        length = int(end_of_text.max()) + 1
        x = embeddings[:, :length] + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=self.attn_mask[:length, :length])
        return self._project(x[torch.arange(len(x), device=x.device), end_of_text])

    def encode_tree(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        ends: torch.Tensor,
    ) -> torch.Tensor:
        """Encode prompts that are laid out as a :class:`iqa_core.prefix_tree.PrefixTree`.

        The same as :meth:`encode_embeddings` of the prompts one by one, to float precision.

        Args:
            embeddings: (T, width) embeddings of the nodes without positions, with gradients.
            positions: (T,) int64, below ``context_length``.
            mask: (T, T) float32, 0 where the row's node sees the column's and else -inf.
            ends: (N,) int64 nodes of end-of-text.

        Returns:
            (N, D) float32 features of length 1.
        """
        x = embeddings + self.positional_embedding[positions]
        x = self.transformer(x.unsqueeze(0), attn_mask=mask).squeeze(0)
        return self._project(x[ends])

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width) of end-of-text, as the last layer leaves it -> (N, D) unit features."""
        x = self.ln_final(x)
        if isinstance(self.text_projection, nn.Linear):
            x = self.text_projection(x)
        elif self.text_projection is not None:
            x = x @ self.text_projection
        return _of_length_one(x.float())


def _of_length_one(features: torch.Tensor) -> torch.Tensor:
    """Normalise rows; one without a direction becomes NaN, not zeros that would score 0.5."""
    length = features.norm(dim=-1, keepdim=True)  # infinite where the squares overflow
    return F.normalize(features, dim=-1).where((length > 0) & length.isfinite(), torch.nan)


def load_towers(model: str = TINY, resolution: Resolution = "model") -> Towers:
    """Load a CLIP on the CPU in float32.

    Args:
        model: ``tiny`` (embedded), ``NAME/TAG`` in open_clip's spelling (downloaded once),
            ``hf-hub:ORG/REPO`` (downloaded once), ``NAME@FILE`` (an architecture with a local state
            dict in any container and layout that :mod:`iqa_core.weight_layouts` knows), or
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
    _check_finite(model, clip)
    logit_scale = _logit_scale(model, clip)
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


def _check_finite(model: str, clip: _Clip) -> None:
    """Refuse weights of a training that diverged: every score would be not-a-number."""
    state = {name: one for name, one in clip.state_dict().items() if one.is_floating_point()}
    # One pass without a copy (aminmax passes NaN on): a tenth of the digest's time.
    wrong = [
        name
        for name, tensor in state.items()
        if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all()
    ]
    if wrong:
        kind = "not-a-number" if state[wrong[0]].isnan().any() else "infinity"
        raise InputError(
            f"weights of --model {model} hold {kind} in {len(wrong)} of {len(state)} "
            f"tensors, {wrong[0]} the first: their training diverged, or they overflowed when they "
            "were saved in half precision: use an earlier checkpoint, or save them in float32"
        )


def _logit_scale(model: str, clip: _Clip) -> float:
    """Return exp(logit_scale) of the weights."""
    # By way of float64: float32's own exp has other last bits on other processors, and the scale is
    # part of a run's fingerprint.
    stored = float(clip.logit_scale.detach().double())
    scale = float(torch.tensor(stored, dtype=torch.float64).exp().float())
    hint = f"a scale of {stored:g} is stored as {math.log(stored):.4g}" if stored > 0 else ""
    if not 0 < scale <= MAX_LOGIT_SCALE:
        raise InputError(
            f"weights of --model {model} have a logit_scale of {stored:g}, whose exponential is no "
            f"scale for scores in float32: CLIP stores the logarithm, about 4.6{hint and f' ({hint})'}: "
            "correct it in the file"
        )
    if not _USUAL_SCALE[0] <= scale <= _USUAL_SCALE[1]:
        log.warning(
            "%s has a logit scale of %.3g, where trained CLIPs have 10 to 200, so scores will be near "
            "%s: give --logit-scale if it was stored otherwise than as its logarithm",
            model, scale, "0.5" if scale < 1 else "0 or 1",
        )  # fmt: skip
    return scale


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"--{name} {value!r} is none of {', '.join(choices)}")


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
