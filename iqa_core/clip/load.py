"""Loads a model by the text of ``--model``: the built-in forms, and encoders of other packages.

A package of your own adds an encoder by an entry point of the group ``iqa.encoders``::

    [project.entry-points."iqa.encoders"]
    mine = "my_package.encoder:load"

Then ``--model mine:anything`` calls ``load("anything")``, which returns
:class:`iqa_core.clip.encoder.Towers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from iqa_core.clip.encoder import Resolution, Towers
from iqa_core.errors import InputError
from iqa_core.redaction import error_line

__all__ = ["ENTRY_POINTS", "LOADERS", "TINY", "Loader", "load_towers"]

TINY = "tiny"
#: Group of the entry points of encoders in other packages.
ENTRY_POINTS = "iqa.encoders"
_ENCODERS = "PREFIX:ARGUMENT"


def _tiny(model: str, resolution: Resolution) -> Towers:
    from iqa_core.clip.open_clip import load_tiny

    return load_tiny(model, resolution)


def _hub(model: str, resolution: Resolution) -> Towers:
    from iqa_core.clip.open_clip import load_hub

    return load_hub(model, resolution)


def _file(model: str, resolution: Resolution) -> Towers:
    from iqa_core.clip.open_clip import load_file

    return load_file(model, resolution)


def _tag(model: str, resolution: Resolution) -> Towers:
    from iqa_core.clip.open_clip import load_tag

    return load_tag(model, resolution)


def _entry_point(model: str, resolution: Resolution) -> Towers:
    name, _, argument = model.partition(":")
    found = _encoders().get(name)
    if found is None:
        raise _unknown(model)
    if resolution != "model":
        raise InputError(
            f"--resolution {resolution} is not for encoders of other packages, such as --model "
            f"{model}: use --resolution model"
        )
    try:
        towers = found.load()(argument)
    except InputError:
        raise
    except Exception as error:  # whatever another package can raise
        raise InputError(
            f"--model {model}: the encoder {found.value} failed ({type(error).__name__}: "
            f"{error_line(error)}): correct it, or reinstall the package that it is in"
        ) from error
    if not isinstance(towers, Towers):
        raise InputError(
            f"--model {model}: the encoder {found.value} returned a {type(towers).__name__}, but must "
            "return iqa_core.clip.encoder.Towers"
        )
    # What the files of another package determine is not known here.
    return replace(towers, name=model, files=())


class Loader(NamedTuple):
    """One form of ``--model``.

    Attributes:
        form: How messages spell it.
        pattern: Regular expression of the whole text.
        load: Loads such a model; raises :class:`InputError` if it can't.
    """

    form: str
    pattern: str
    load: Callable[[str, Resolution], Towers]


#: The forms of ``--model``; no text is of two. The functions import what they need.
LOADERS: tuple[Loader, ...] = (
    Loader("tiny (embedded)", TINY, _tiny),
    Loader("NAME/TAG (such as ViT-B-32/openai)", r"[^:@]*/[^:@]*", _tag),
    Loader("hf-hub:ORG/REPO", r"hf-hub:.*", _hub),
    Loader("NAME@FILE", r"[^:@]*@.*", _file),
    Loader(_ENCODERS, r"(?!hf-hub:)[\w.-]+:.*", _entry_point),
)


def load_towers(model: str = TINY, resolution: Resolution = "model") -> Towers:
    """Load a model on the CPU in float32.

    Args:
        model: ``tiny`` (embedded), ``NAME/TAG`` in open_clip's spelling (downloaded once),
            ``hf-hub:ORG/REPO`` (downloaded once), ``NAME@FILE`` (an architecture with a local state
            dict in any container and layout that :mod:`iqa_core.clip.layouts` knows),
            ``openai@FILE`` (weights trained as OpenAI's; the architecture follows from their shapes),
            or ``PREFIX:ARGUMENT`` (an encoder that another package registers under this prefix).
            ``#PREFIX`` behind a file names one of several models in it.
        resolution: See :class:`iqa_core.clip.image_tower.ImageTower`.

    Returns:
        The model. Its text encoder is loaded on first use.

    Raises:
        InputError: If there is no such model, its weights can't be had, don't fit or are not all
            finite, or its logit scale is no positive number in float32.
    """
    for loader in LOADERS:
        if re.fullmatch(loader.pattern, model, re.DOTALL):
            return loader.load(model, resolution)
    raise _unknown(model)


def _encoders() -> dict[str, EntryPoint]:
    """Return the encoders of other packages by their prefix."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _unknown(model: str) -> InputError:
    from iqa_core.clip.open_clip import model_hint

    hint = model_hint(model)
    if hint is None:
        own = [f"{name}:ARGUMENT" for name in sorted(_encoders())]
        forms = [loader.form for loader in LOADERS if loader.form != _ENCODERS]
        *first, last = [*forms, *own]
        hint = f"use {', '.join(first)} or {last}"
    return InputError(f"--model {model!r} is not a model that can be loaded: {hint}")
