"""Tests of iqa_core/pages/html.py: values are text, our own markup stays markup."""

from __future__ import annotations

import base64
import hashlib

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from iqa_core.pages.html import asset, page, render, table


def training(title="T", script="", images=False):
    names = ("evidence", "agreements", "pairs", "moved", "words", "facts")
    parts = dict.fromkeys(names, Markup("<p>own</p>"))
    return page(
        "training.html", title=title, script=script, images=images, notices=[], figures=[], **parts
    )


def test_values_are_escaped_and_without_secrets():
    evil = "\"><script>alert(1)</script>'& https://me:secret@host/a?sig=secret"
    made = table(evil, (evil,), [(evil, evil)])
    assert "<script" not in made
    assert "secret" not in made
    assert made.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5
    assert made.count("&#34;&gt;") == 5  # no value ends the attribute that it is in


def test_markup_of_our_own_stays_as_it_is():
    cell = Markup("<b>1</b>")
    assert "<td><b>1</b></td>" in table("caption", ("a", "b"), [("x", cell)])
    assert isinstance(render("code.html", value="<"), Markup)
    assert render("code.html", value="<") == "<code>&lt;</code>"


def test_a_table_without_headings_has_no_head():
    assert "<thead" not in table("caption", (), [("a", 1)])


def test_a_value_that_is_not_given_is_an_error():
    with pytest.raises(UndefinedError):
        render("code.html")


def test_the_policy_admits_the_own_script_only():
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in training()
    script = "if (1 < 2) console.log('&')"
    made = training(script=script, images=True)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"<script>{script}</script>" in made
    assert f"img-src data:; script-src 'sha256-{digest}'" in made


def test_every_page_has_the_one_style_sheet():
    assert f"<style>{asset('theme.css')}</style>" in training()
    assert "prefers-color-scheme:dark" in asset("theme.css")
    assert "<title>&lt;T&gt;</title>" in training("<T>")
