"""Tests of iqa_core/fetch/uri.py: what can't be a URI, and URLs in the form in which they are sent."""

from __future__ import annotations

import base64
import time

import pytest

from iqa_core.errors import ImageError, Status
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.fetch.uri import MAX_CHARACTERS, WebAddress, why_no_uri

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(60))).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(60))).decode()


def error_of(fetcher, uri):
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(uri)
    return raised.value


@pytest.mark.parametrize("base", ["{folder}", "s3://bucket/m", "https://host.example/m"])
@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "empty"),
        ("  \t", "blank"),
        ("\u3000", "blank"),
        (f"data:image/png;base64,{PNG}", "column named image"),
        (f"data:image/jpeg;charset=utf-8;base64,{JPEG}", "column named image"),
        ("data:,hello", "column named image"),
        ("DATA:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg'/>", "column named image"),
        (PNG, "base64"),
        (JPEG, "base64"),
        (JPEG.replace("A", "A\n"), "base64"),
        (base64.b64encode(b"GIF89a" + bytes(500)).decode(), "base64"),
        (f"data:image/png;base64,{PNG * 2000}", "column named image"),
        (JPEG * 2000, "base64"),
        ("x" * (MAX_CHARACTERS + 1), "too long"),
        ("https://host.example/" + "x" * MAX_CHARACTERS, "too long"),
        (r"b'\xff\xd8\xff\xe0'", "Python bytes"),
        ('b"\\x89PNG"', "Python bytes"),
        ("<PIL.JpegImagePlugin.JpegImageFile image mode=RGB size=8x8 at 0x7F>", "not a URI"),
        ("<img src='https://host.example/a.jpg'>", "not a URI"),
        ("{'bytes': None, 'path': 'a.jpg'}", "JSON or Python"),
        ('["https://host.example/a.jpg", "https://host.example/b.jpg"]', "JSON or Python"),
        ("[]", "JSON or Python"),
        ("![photo](https://host.example/a.jpg)", "Markdown"),
        ('=HYPERLINK("https://host.example/a.jpg")', "spreadsheet"),
        ('"https://host.example/a.jpg"', "quotation marks"),
        ("NaN", "missing value"),
        ("None", "missing value"),
        ("<NA>", "not a URI"),
        ("C:\\photos\\a.jpg", "Windows"),
        ("d:/photos/a.jpg", "Windows"),
        ("\\\\server\\share\\a.jpg", "Windows"),
        ("http:/host.example/a.jpg", "slash"),
        ("https:host.example/a.jpg", "slash"),
        ("s3:/bucket/a.jpg", "slash"),
        ("https//host.example/a.jpg", "colon"),
        ("https:\\\\host.example\\a.jpg", "backslashes"),
        ("a\x00b.jpg", "NUL"),
    ],
)
def test_texts_that_can_be_no_uri(uri, says, base, tmp_path):
    began = time.monotonic()
    error = error_of(Fetcher(base.format(folder=tmp_path), retries=9), uri)
    assert error.status == Status.INVALID_ROW
    assert says in error.message
    assert len(error.message) < 400
    assert time.monotonic() - began < 5, "attempts were repeated"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http:///a.jpg", "host"),
        ("https://?x=1", "host"),
        ("https://:443/a.jpg", "host"),
        ("https://user@/a.jpg", "host"),
        ("https://host.example:99999/a.jpg", "port"),
        ("https://host.example:0/a.jpg", "port"),
        ("https://host.example:http/a.jpg", "port"),
        ("http://[half/a.jpg", "host"),
        ("http://[zz::1]/a.jpg", "host"),
        ("http://[::1]x/a.jpg", "host"),
        ("http://two words.example/a.jpg", "host"),
        ("http://dots..example/a.jpg", "host"),
        (f"http://{'a' * 64}.example/a.jpg", "host"),
        (f"http://{'a.' * 130}example/a.jpg", "host"),
        ("http://host.example\\a.jpg", "host"),
        ("http://host.example/a\nb.jpg", "control character"),
        ("http://host.example/a\x7fb.jpg", "control character"),
    ],
)
def test_urls_that_are_none(uri, says, tmp_path):
    began = time.monotonic()
    for base in (str(tmp_path), "s3://bucket/m"):
        error = error_of(Fetcher(base, retries=9), uri)
        assert error.status == Status.INVALID_ROW
        assert says in error.message
    assert time.monotonic() - began < 5, "attempts were repeated"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("//cdn.example/photos/a.jpg", "write https:"),
        ("www.host.example/a.jpg", "write https://"),
        ("file:a.jpg", "file:///"),
        ("file:///C:/photos/a.jpg", "Windows"),
    ],
)
def test_texts_that_are_no_local_files(uri, says, tmp_path):
    error = error_of(Fetcher(str(tmp_path), retries=9), uri)
    assert error.status == Status.INVALID_ROW
    assert says in error.message


@pytest.mark.parametrize("name", ["{'a'}", "nan", "C:\\a.jpg", "<a>", "data:,a", "'a.jpg'", "[1]"])
def test_a_file_of_an_odd_name_is_a_file(name, tmp_path):
    (tmp_path / name).write_bytes(b"data")
    assert Fetcher(str(tmp_path)).fetch(name) == b"data"


@pytest.mark.parametrize(
    "uri",
    [
        "a.jpg",
        "base/a.jpg",
        "b/c.jpg",
        "{0f8b}/a.jpg",
        "{0f8b6c1e}",
        "[1] a.jpg",
        "data:a",
        "nano.jpg",
        "s3://bucket/n/a",
        "iVBORw0KGgo.png",
        "https://host.example/data:image/png;base64,x",
        "http::s3://bucket/a",
        "www.host.example/a.jpg",  # what `wget -x` writes
    ],
)
def test_texts_that_may_be_uris(uri):
    assert why_no_uri(uri) is None


@pytest.mark.parametrize(
    "piece", ["<", "{'", "=A(", "b'", "data:a/", ";", "/9j/", "[1", "![a](", "www."]
)
def test_long_texts_are_judged_in_no_time(piece, tmp_path):
    began = time.monotonic()
    for text in (piece * 10_000, piece * 1_000_000):
        why_no_uri(text)
        assert len(error_of(Fetcher(str(tmp_path)), text).message) < 400
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("http://h/a?", "http://h/a?"),
        ("http://h", "http://h/"),
        ("http://h?x=%2F", "http://h/?x=%2F"),
        ("HTTPS://H.Example:443/A%2fb", "https://h.example/A%2fb"),
        ("http://h:8080/a%20b+c?d=%28e%29&f=it's#part", "http://h:8080/a%20b+c?d=%28e%29&f=it's"),
        ("http://h/a b/ü.jpg?q=é", "http://h/a%20b/%C3%BC.jpg?q=%C3%A9"),
        ("http://h/%7Eme/a%2Eb/../c;v=1?x=[1]|{2}", "http://h/%7Eme/a%2Eb/../c;v=1?x=[1]|{2}"),
        ("http://h/100%.jpg?a=50%25&b=%zz", "http://h/100%25.jpg?a=50%25&b=%25zz"),
        ("http://bücher.example/a", "http://xn--bcher-kva.example/a"),
        ("http://my_bucket.host.example/a", "http://my_bucket.host.example/a"),
        ("http://me:p%40ss@h/a", "http://h/a"),
        ("http://[2606:4700::1111]:81/a", "http://[2606:4700::1111]:81/a"),
    ],
)
def test_urls_are_sent_as_they_are_written(text, sent):
    assert str(WebAddress.of(text).request_url) == sent


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        ("/c%2Fd?s=%28", "https://h.example/c%2Fd?s=%28"),
        ("d%40.jpg?s=%3A", "https://h.example/a/b%2Fb/d%40.jpg?s=%3A"),
        ("../d;", "https://h.example/a/d;"),
        ("./x:y?", "https://h.example/a/b%2Fb/x:y?"),
        ("..", "https://h.example/a/"),
        ("../../../x//y/.", "https://h.example/x//y/"),
        ("?k=%2F", "https://h.example/a/b%2Fb/c.jpg?k=%2F"),
        ("#part", "https://h.example/a/b%2Fb/c.jpg?e=%2F"),
        ("", "https://h.example/a/b%2Fb/c.jpg?e=%2F"),
        ("//other.example/ä b?x=%2F", "https://other.example/%C3%A4%20b?x=%2F"),
        ("http://other.example:81/a?", "http://other.example:81/a?"),
        ("/Z\udcfcrich.jpg", "https://h.example/Z%FCrich.jpg"),  # a header in Latin-1
        (" /d ", "https://h.example/d"),
    ],
)
def test_redirects_are_joined_as_they_are_written(location, sent):
    start = WebAddress.of("https://h.example/a/b%2Fb/c.jpg?e=%2F")
    assert str(start.follow(location).request_url) == sent


def test_credentials_stay_with_their_host():
    start = WebAddress.of("https://me:secret@h.example/a")
    for location in ("/b", "b", "//h.example/b", "https://h.example:443/b"):
        assert start.follow(location).credentials == "me:secret"
    for location in ("http://h.example/b", "https://h.example:444/b", "//other.example/b"):
        assert start.follow(location).credentials == ""
    assert start.follow("https://you:x@h.example/b").credentials == "you:x"
    assert "secret" not in repr(start)


@pytest.mark.parametrize(
    ("location", "status"),
    [
        ("file:///etc/passwd", Status.DENIED),
        ("s3://bucket/a", Status.DENIED),
        ("https:/h.example/a", Status.DENIED),
        ("data:image/png;base64,AAAA", Status.DENIED),
        ("https:///a", Status.UNSUPPORTED),
        ("//h.example:port/a", Status.UNSUPPORTED),
    ],
)
def test_redirects_to_no_url(location, status):
    with pytest.raises(ImageError) as raised:
        WebAddress.of("https://h.example/a").follow(location)
    assert raised.value.status == status
