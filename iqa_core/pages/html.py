"""Pages from templates: whatever a template shows is text, unless our own code made it markup.

Jinja2 escapes every value (autoescape); before that, ``finalize`` makes it one line without secrets
(:func:`iqa_core.pages.text.shorten`). Markup passes unchanged: it comes from :func:`render`,
:func:`table`, :mod:`iqa_core.pages.svg` and the files of this package only.

A page loads nothing from elsewhere, and its content security policy enforces that: no image but those
inside of it, and no script but its own, by its digest.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from iqa_core.pages.text import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["asset", "page", "render", "table"]


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("iqa_core.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["markup"] = lambda value: isinstance(value, Markup)
    return environment


def _finalize(value: Any) -> Any:  # noqa: ANN401
    return value if isinstance(value, Markup) else shorten(value)


def asset(name: str) -> str:
    """Return a file of this package, such as ``theme.css``."""
    return files("iqa_core.pages").joinpath(name).read_text(encoding="utf-8")


def render(template: str, **context: object) -> Markup:
    """Return a template of ``templates/`` with its values filled in."""
    return Markup(_environment().get_template(template).render(context))  # noqa: S704


def page(
    template: str, *, title: str, script: str = "", images: bool = False, **context: object
) -> str:
    """Return a whole page.

    Args:
        template: One that extends ``base.html``.
        title: Heading.
        script: Our own script, the only one that the page may run.
        images: Whether the page holds images, as data URIs.
        context: Further values of the template.
    """
    policy = ["default-src 'none'", "style-src 'unsafe-inline'"]
    if images:
        policy.append("img-src data:")
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy.append(f"script-src 'sha256-{digest}'")
    own = {"css": asset("theme.css"), "script": script, "policy": "; ".join(policy)}
    markup = {name: Markup(text) for name, text in own.items()}  # noqa: S704
    return render(template, title=title, **markup, **context)


def table(
    caption: object, header: Sequence[object], rows: Iterable[Sequence[object]], kind: str = ""
) -> Markup:
    """Return a table.

    Args:
        caption: Its caption.
        header: Headings of the columns; empty for a table without.
        rows: Cells; the first of a row is its heading.
        kind: Its class in ``theme.css``: ``facts``, ``failures`` or ``numbers``.
    """
    return render("table.html", caption=caption, header=header, rows=rows, kind=kind)
