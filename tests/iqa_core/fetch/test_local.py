"""Tests of iqa_core/fetch/local.py on a real disk: what is no regular file, and odd names."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from iqa_core.errors import ImageError, Status
from iqa_core.fetch.failures import local_error, passes_locally
from iqa_core.fetch.fetcher import Fetcher

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc and /dev of Linux")


def error_of(uri, base, **options):
    began = time.monotonic()
    with pytest.raises(ImageError) as raised:
        Fetcher(str(base), retries=9, **options).fetch(uri)
    assert time.monotonic() - began < 5, "attempts were repeated, or it waited"
    assert "\n" not in raised.value.message
    return raised.value


def test_loops_of_links(tmp_path):
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "self").symlink_to("self", target_is_directory=True)
    for uri in ("a.jpg", "b.jpg", "self/a.jpg"):
        error = error_of(uri, tmp_path)
        assert error.status == Status.INVALID_ROW
        assert "a loop of symbolic links" in error.message


def test_links_that_lead_nowhere_say_so(tmp_path):
    (tmp_path / "a.jpg").symlink_to("elsewhere/b.jpg")
    error = error_of("a.jpg", tmp_path)
    assert error.status == Status.NOT_FOUND
    assert "a link to elsewhere/b.jpg, which does not exist" in error.message


@pytest.mark.parametrize("uri", ["a" * 256, "a/" * 2100, "ü" * 200 + ".jpg"])
def test_names_that_are_too_long(uri, tmp_path):
    error = error_of(uri, tmp_path)
    assert error.status == Status.INVALID_ROW
    assert "too long" in error.message
    assert len(error.message) < 300


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path has 108 bytes at most
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
        for uri, kind in {
            "pipe.jpg": "a named pipe",
            "link.jpg": "a named pipe",
            "socket.jpg": "a socket",
            "folder.jpg": "a folder",
            "/dev/null": "a device",
        }.items():
            error = error_of(uri, tmp_path)
            assert error.status == Status.UNSUPPORTED
            assert kind in error.message


@LINUX
def test_devices_that_never_end(tmp_path):
    for uri in ("/dev/zero", "/dev/zero#bytes=0-9", "file:///dev/random"):
        assert error_of(uri, tmp_path).status == Status.UNSUPPORTED


@LINUX
def test_the_scheme_file_may_be_allowed_to_a_remote_manifest(tmp_path):
    (tmp_path / "a b.jpg").write_bytes(b"data")
    (tmp_path / "a.zip").write_bytes(b"no archive")
    fetcher = Fetcher("s3://bucket/m", schemes=("file", "zip"), retries=9)
    assert fetcher.fetch(f"file://{tmp_path}/a%20b.jpg") == b"data"
    for uri, status in {
        "file:///dev/zero": Status.UNSUPPORTED,
        "file:///proc/self/mem": Status.FORBIDDEN,
        f"zip://a.jpg::file://{tmp_path}/a.zip": Status.UNSUPPORTED,
    }.items():
        assert error_of(uri, "s3://bucket/m", schemes=("file", "zip")).status == status


@LINUX
def test_a_disk_that_fails_is_not_the_network(tmp_path):
    for uri in ("/proc/self/mem", "/proc/self/mem#bytes=0-9"):  # reads as a broken disk: EIO
        error = error_of(uri, tmp_path)
        assert error.status == Status.FORBIDDEN
        assert "Input/output error: /proc/self/mem" in error.message


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_files_without_permission(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"data")
    (tmp_path / "a.jpg").chmod(0)
    (tmp_path / "folder").mkdir(mode=0)
    for uri in ("a.jpg", "folder/a.jpg"):
        assert error_of(uri, tmp_path).status == Status.FORBIDDEN
    (tmp_path / "folder").chmod(0o700)


def test_no_errno_of_a_local_file_is_the_network():
    found = {
        name: local_error("/a.jpg", OSError(number, os.strerror(number)))
        for number, name in errno.errorcode.items()
    }
    assert {error.status for error in found.values()}.isdisjoint({Status.NETWORK, Status.THROTTLED})
    statuses = {name: found[name].status for name in ("EACCES", "EPERM", "EIO", "ESTALE", "ENXIO")}
    assert set(statuses.values()) == {Status.FORBIDDEN}
    assert found["ENOTDIR"].status == found["ENOENT"].status == Status.NOT_FOUND
    assert "/a.jpg" in found["ESTALE"].message
    assert local_error("/a.jpg", MemoryError()).status == Status.TOO_LARGE
    # A stale handle or too many open files may be gone a moment later.
    assert passes_locally(OSError(errno.ESTALE, ""))
    assert passes_locally(OSError(errno.EMFILE, ""))
    assert not passes_locally(OSError(errno.EIO, ""))


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("photos\\b c.jpg", "backslashes"),
        ("photos/b c.jpg ", "blank"),
        (" photos/b c.jpg", "blank"),
        ("photos /b c.jpg", "blank"),
        ("photos/b c.jpg\u00a0", "blank"),
        ("photos\\b c.jpg\t", "backslashes"),
        ("photos/b%20c.jpg", "there is"),
    ],
)
def test_odd_names_that_are_not_found_say_what_is_there(uri, says, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/b c.jpg").write_bytes(b"data")
    error = error_of(uri, tmp_path)
    assert error.status == Status.NOT_FOUND
    assert says in error.message
    assert error.message.endswith(f"; there is {tmp_path}/photos/b c.jpg")


def test_odd_names_of_nothing(tmp_path):
    message = error_of("photos\\a.jpg ", tmp_path).message
    assert "backslashes" in message
    assert "blank" in message
    assert "there is" not in message
    assert error_of("a%20b.jpg", tmp_path).message.endswith("a%20b.jpg")


def test_a_file_whose_name_has_blanks_is_read(tmp_path):
    for name in (" a.jpg", "a.jpg ", "a\\b.jpg", "a%20b.jpg", "a\nb.jpg"):
        (tmp_path / name).write_bytes(name.encode())
        assert Fetcher(str(tmp_path)).fetch(name) == name.encode()


def test_control_characters_are_shown_as_escapes(tmp_path):
    message = error_of("a\x1b[31mb.jpg", tmp_path).message
    assert message.isprintable()
    assert "a\\x1b[31mb.jpg" in message


def test_composed_and_decomposed_names_are_the_same(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zoë/Å é.jpg") for form in ("NFC", "NFD"))
    for there, named in ((composed, decomposed), (decomposed, composed)):
        folder = tmp_path / str(len(there))
        (folder / Path(there).parent).mkdir(parents=True)
        (folder / there).write_bytes(b"0123456789")
        assert Fetcher(str(folder)).fetch(named) == b"0123456789"
        assert Fetcher(str(folder)).fetch(f"{folder}/{named}#bytes=2-4") == b"234"
        # In one part of the path only, and beyond an allowed prefix.
        mixed = f"{Path(there).parent}/{Path(named).name}"
        assert Fetcher(str(folder), prefixes=(str(folder),)).fetch(mixed) == b"0123456789"
    # Where both are there, each is itself.
    (tmp_path / "é.jpg").write_bytes(b"composed")
    (tmp_path / unicodedata.normalize("NFD", "é.jpg")).write_bytes(b"decomposed")
    assert Fetcher(str(tmp_path)).fetch("é.jpg") == b"composed"


@LINUX
class TestFileUris:
    def test_escapes_are_bytes(self, tmp_path):
        name = os.fsencode(tmp_path) + b"/Z\xfcrich 1.jpg"  # Latin-1
        with open(name, "wb") as file:
            file.write(b"0123456789")
        fetcher = Fetcher(str(tmp_path))
        assert fetcher.fetch(f"file://{tmp_path}/Z%FCrich%201.jpg") == b"0123456789"
        assert fetcher.fetch(f"file://localhost{tmp_path}/Z%FCrich%201.jpg") == b"0123456789"
        assert fetcher.fetch(f"file://{tmp_path}/Z%FCrich%201.jpg#bytes=3-4") == b"34"
        error = error_of("Z%FCrich%201.jpg", tmp_path)  # a path is no URI
        assert error.status == Status.NOT_FOUND
        assert "there is" in error.message
        error.message.encode()  # as Arrow does

    def test_a_file_of_the_literal_name_comes_first(self, tmp_path):
        (tmp_path / "a%20b.jpg").write_bytes(b"literal")
        (tmp_path / "a b.jpg").write_bytes(b"decoded")
        assert Fetcher(str(tmp_path)).fetch(f"file://{tmp_path}/a%20b.jpg") == b"literal"

    def test_errors_hold_text_that_arrow_can_store(self, tmp_path):
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/Z\xfcrich"))).mkdir()
        error = error_of(f"file://{tmp_path}/Z%FCrich", tmp_path)
        assert error.status == Status.UNSUPPORTED
        assert "Z\\xfcrich" in error.message

    def test_escapes_lead_out_of_no_prefix(self, tmp_path):
        (tmp_path / "m").mkdir()
        (tmp_path / "secret.jpg").write_bytes(b"secret")
        for base in (str(tmp_path / "m"), "s3://bucket/m"):
            fetcher = Fetcher(base, prefixes=(f"file://{tmp_path}/m",))
            for uri in ("%2e%2e/secret.jpg", "%2e%2e%2fsecret.jpg", "..%2Fsecret.jpg"):
                with pytest.raises(ImageError) as raised:
                    fetcher.fetch(f"file://{tmp_path}/m/{uri}")
                assert raised.value.status == Status.DENIED
