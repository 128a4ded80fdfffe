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
import pickle
import warnings
import zipfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.schema import InputError, Preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

__all__ = ["TINY", "ImageTower", "Precision", "Resolution", "TextTower", "Towers", "load_towers"]

log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Resolution = Literal["model", "native"]

_Clip = Any  # open_clip's CLIP, CustomTextCLIP and CoCa share no base that says what they have

TINY = "tiny"
_WEIGHTS = Path(__file__).parent / "weights"
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

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
            (N, D) float32 features of length 1, on the tower's device.

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
        return F.normalize(features.float(), dim=-1)


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
        return F.normalize(x.float(), dim=-1)


def load_towers(model: str = TINY, resolution: Resolution = "model") -> Towers:
    """Load a CLIP on the CPU in float32.

    Args:
        model: ``tiny`` (embedded), ``NAME/TAG`` in open_clip's spelling (downloaded once),
            ``hf-hub:ORG/REPO`` (downloaded once), ``NAME@FILE`` (an architecture with a local state
            dict, safetensors file or OpenAI TorchScript archive), or ``openai@FILE`` (OpenAI's
            format, the architecture read off the weights).
        resolution: See :class:`ImageTower`.

    Returns:
        Both towers and what belongs to them.

    Raises:
        InputError: If there is no such model, its weights can't be had or don't fit.
    """
    with _quiet_open_clip():
        clip, architecture, quick_gelu = _create(model)
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
        # By way of float64: float32's own exp has other last bits on other processors, and the
        # scale is part of a run's fingerprint.
        logit_scale=float(clip.logit_scale.detach().double().exp().float()),
        quick_gelu=quick_gelu,
        digest=digest,
    )


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
    if not path.is_file():
        raise InputError(f"--model {name}@{path}: there is no file {path}: check the path")
    try:
        if name == "openai":
            return open_clip.load_openai_model(str(path), precision="fp32", device="cpu"), "", True
        if _is_torchscript(path):
            return _create_from_torchscript(name, path), name, True
        config = _architecture(name)
        clip = open_clip.create_model(name, pretrained=str(path))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"weights of {path} do not load as {name} ({_why_not(error)}): name the architecture "
            "that the file was saved from, or openai@FILE for weights of OpenAI's"
        ) from error
    quick_gelu = bool(config.get("quick_gelu", False))
    if not quick_gelu:
        log.warning(
            "%s does not say which activation it was trained with: using GELU as %s states it; "
            "OpenAI's weights need QuickGELU (%s-quickgelu@%s)", path, name, name, path,
        )  # fmt: skip
    return clip, name, quick_gelu


def _why_not(error: Exception) -> str:
    if isinstance(error, (pickle.UnpicklingError, EOFError)):  # torch would advise to run its code
        return "the file is damaged, is no file of weights, or holds more than tensors"
    lines = str(error).strip().splitlines()
    if len(lines) > 1:  # of load_state_dict, which names the model first
        return lines[1].strip()[:200]
    return f"{type(error).__name__}: {_reason(error)}"[:200]


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _create_from_torchscript(name: str, path: Path) -> _Clip:
    """Load OpenAI's archive format, whose weights always go with QuickGELU."""
    log.info("%s is an archive in OpenAI's format: using QuickGELU", path)
    state = torch.jit.load(str(path), map_location="cpu").state_dict()
    for key in ("input_resolution", "context_length", "vocab_size"):
        state.pop(key, None)
    clip = open_clip.create_model(name, force_quick_gelu=True)
    clip.load_state_dict(state)
    return clip


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
