"""Tests of iqa_core/fetch/fetcher.py on a real disk and a real HTTP server on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from iqa_core.errors import ImageError, Status
from iqa_core.fetch.failures import status_of as status_of_error
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.fetch.uri import host_of
from iqa_core.redaction import redact

ROOT = Path(__file__).parents[3]


class _Handler(BaseHTTPRequestHandler):
    """Answers by path; ``/flaky`` fails twice before it works."""

    requests: dict[str, int] = {}  # noqa: RUF012 - shared on purpose, cleared by the fixture

    ranges: list[str] = []  # noqa: RUF012 - likewise

    def do_GET(self):
        count = self.requests[self.path] = self.requests.get(self.path, 0) + 1
        if self.path == "/slow":
            time.sleep(3)
        status = {
            "/gone": 404,
            "/gone?X-Amz-Signature=secret": 404,
            "/secret": 403,
            "/busy": 429,
            "/down": 500,
            "/odd": 400,
        }.get(self.path, 200)
        if self.path == "/flaky" and count < 3:
            status = 503
        if self.path.startswith("/redirect?"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/part":
            self.ranges.append(self.headers["Range"])
            self.send_response(206)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"data"[1:3])
            return
        self.send_response(status)
        if self.path == "/endless":
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))
            return
        # A body that is cut short, twice.
        self.send_header("Content-Length", "9" if self.path == "/cut" and count < 3 else "4")
        self.end_headers()
        self.wfile.write(b"data")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    _Handler.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def status_of(fetcher, uri):
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(uri)
    return raised.value.status


class TestFetcher:
    def test_relative_paths_count_from_the_base(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"x")
        fetcher = Fetcher(str(tmp_path))
        assert fetcher.fetch("a.jpg") == b"x"
        assert fetcher.fetch(str(tmp_path / "a.jpg")) == b"x"
        assert fetcher.fetch(f"file://{tmp_path}/a.jpg") == b"x"

    def test_local_failures(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "large.jpg").write_bytes(bytes(11))
        fetcher = Fetcher(str(tmp_path), max_bytes=10)
        assert status_of(fetcher, "none.jpg") == Status.NOT_FOUND
        assert status_of(fetcher, "folder") == Status.UNSUPPORTED
        assert status_of(fetcher, "large.jpg") == Status.TOO_LARGE
        assert status_of(fetcher, "nosuch://a") == Status.DENIED

    def test_http_failures_keep_their_kind(self, server, tmp_path):
        fetcher = Fetcher(
            str(tmp_path), retries=0, timeout=1, prefixes=("http://127.0.0.1:9", server)
        )
        assert fetcher.fetch(f"{server}/a.jpg") == b"data"
        assert status_of(fetcher, f"{server}/gone") == Status.NOT_FOUND
        assert status_of(fetcher, f"{server}/secret") == Status.FORBIDDEN
        assert status_of(fetcher, f"{server}/busy") == Status.THROTTLED
        assert status_of(fetcher, f"{server}/down") == Status.NETWORK
        assert status_of(fetcher, f"{server}/odd") == Status.FORBIDDEN  # it refuses
        assert status_of(fetcher, f"{server}/slow") == Status.TIMEOUT
        assert status_of(fetcher, "http://127.0.0.1:9/a") == Status.NETWORK

    def test_only_what_may_pass_is_tried_again(self, server, tmp_path):
        fetcher = Fetcher(str(tmp_path), retries=3, prefixes=(server,))
        assert fetcher.fetch(f"{server}/flaky") == b"data"
        assert _Handler.requests["/flaky"] == 3
        assert fetcher.fetch(f"{server}/cut") == b"data"
        assert _Handler.requests["/cut"] == 3
        assert status_of(fetcher, f"{server}/gone") == Status.NOT_FOUND
        assert _Handler.requests["/gone"] == 1
        assert status_of(fetcher, f"{server}/odd") == Status.FORBIDDEN
        assert _Handler.requests["/odd"] == 1

    def test_remote_manifests_read_no_local_files(self):
        fetcher = Fetcher("memory://folder")
        for uri in ("/etc/passwd", "file:///etc/passwd", "../other/a.jpg"):
            assert status_of(fetcher, uri) == Status.DENIED
        assert fetcher.resolve("a.jpg") == "memory://folder/a.jpg"

    def test_streams_keep_the_order(self, server, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"local")
        fetcher = Fetcher(str(tmp_path), retries=0, concurrency=2, prefixes=(server, str(tmp_path)))
        uris = [f"{server}/1", None, "a.jpg", f"{server}/gone", *[f"{server}/x"] * 9]
        results = list(fetcher.stream(uris))
        assert results[0] == b"data"
        assert results[1] is None
        assert results[2] == b"local"
        assert results[3].status == Status.NOT_FOUND
        assert results[4:] == [b"data"] * 9

    def test_parts_of_files(self, server, tmp_path):
        (tmp_path / "shard.tar").write_bytes(bytes(range(100)))
        fetcher = Fetcher(str(tmp_path), retries=0, prefixes=(server,))
        assert fetcher.fetch("shard.tar#bytes=10-19") == bytes(range(10, 20))
        assert status_of(fetcher, "shard.tar#bytes=90-120") == Status.NOT_FOUND
        assert fetcher.fetch(f"{server}/part#bytes=1-2") == b"at"
        assert _Handler.ranges == ["bytes=1-2"]
        assert status_of(fetcher, f"{server}/whole#bytes=1-2") == Status.UNSUPPORTED
        small = Fetcher(str(tmp_path), max_bytes=5)
        assert status_of(small, "shard.tar#bytes=10-19") == Status.TOO_LARGE

    def test_endless_answers_end_at_the_limit(self, server, tmp_path):
        fetcher = Fetcher(str(tmp_path), prefixes=(server,), max_bytes=1 << 20)
        assert status_of(fetcher, f"{server}/endless") == Status.TOO_LARGE

    def test_redirects_are_followed_and_checked(self, server, tmp_path):
        fetcher = Fetcher(str(tmp_path), prefixes=(server,), retries=0)
        assert fetcher.fetch(f"{server}/redirect?{server}/a.jpg") == b"data"
        assert fetcher.fetch(f"{server}/redirect?/a.jpg") == b"data"
        other = server.replace("127.0.0.1", "127.0.0.2")
        assert status_of(fetcher, f"{server}/redirect?{other}/a.jpg") == Status.DENIED
        assert status_of(fetcher, f"{server}/redirect?file:///etc/passwd") == Status.DENIED
        assert status_of(fetcher, f"{server}/redirect?http://169.254.169.254/") == Status.DENIED
        assert status_of(fetcher, f"{server}/redirect?{server}/gone") == Status.NOT_FOUND


@pytest.mark.parametrize(
    "uri",
    [
        "http://{server}/a",
        "http://localhost:{port}/a",
        "http://LOCALHOST:{port}/a",
        "http://2130706433:{port}/a",  # 127.0.0.1 as one number
        "http://0x7f000001:{port}/a",
        "http://017700000001:{port}/a",
        "http://127.1:{port}/a",
        "http://0x7f.1:{port}/a",
        "http://①②⑦.⓪.⓪.①:{port}/a",
        "http://ⓛocalhost:{port}/a",
        "http://[::1%25lo]:{port}/a",
        "http://[fe80::1%251]/a",
        "http://127.0.0.1:{port}@[::1]:{port}/a",
        "http://127.0.0.1:{port}#@good.example/a",
        "http://[::ffff:169.254.169.254]/latest/meta-data/",
        "http://2852039166/latest/meta-data/",
        "http://0:{port}/a",
        "http://0.0.0.0:{port}/a",
        "http://[::1]:{port}/a",
        "http://[::]:{port}/a",
        "http://[::ffff:127.0.0.1]:{port}/a",
        "http://[::ffff:7f00:1]:{port}/a",
        "http://[64:ff9b::7f00:1]:{port}/a",
        "http://user@127.0.0.1:{port}/a",
        "http://good.example@127.0.0.1:{port}/a",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/a",
        "http://192.168.1.1/a",
        "http://172.16.0.1/a",
        "http://100.64.0.1/a",
        "http://[fe80::1]/a",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "HTTP://127.0.0.1:{port}/a",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "file:/etc/passwd",
        "local:///etc/passwd",
        "/etc/passwd",
        "../secret.jpg",
        "a/../../secret.jpg",
        "a/%2e%2e/%2e%2e/secret.jpg",
        "..\\secret.jpg",
        "zip://a.jpg::file:///etc/passwd",
        "zip://a.jpg::s3://bucket/file.zip",
        "memory://a::http://127.0.0.1:{port}/a",
        "s3://bucket/a::http://127.0.0.1:{port}/a",
        "https://127.0.0.1:{port}/a::s3://bucket/a",
        "http::s3://bucket/a",
        "blockcache::s3://bucket/a",
        "github://owner:repository@/a",
        "git:///etc::/passwd",
        "libarchive://a::s3://bucket/a.tar",
        "//127.0.0.1/a",
        "file:////etc/passwd",
        "file:etc/passwd",
        "file://localhost/etc/passwd",
        "simplecache::file:///etc/passwd",
        "filecache::http://127.0.0.1:{port}/a",
        "gopher://127.0.0.1:{port}/a",
        "ftp://127.0.0.1/a",
        "sftp://127.0.0.1/a",
        "smb://127.0.0.1/share/a",
        "webhdfs://127.0.0.1/a",
        "dask://127.0.0.1/a",
        "jupyter://127.0.0.1:{port}/a",
        "reference://a",
        "data://a",
        " file:///etc/passwd",
    ],
)
def test_what_a_remote_manifest_may_not_name(uri, server, tmp_path):
    host = server.removeprefix("http://")
    fetcher = Fetcher("s3://bucket/manifests", timeout=5, retries=0)
    uri = uri.format(server=host, port=host.partition(":")[2])
    assert status_of(fetcher, uri) == Status.DENIED
    assert not _Handler.requests, "something was fetched"


def test_names_that_resolve_to_private_addresses_are_refused(server, monkeypatch, tmp_path):
    import socket

    real = socket.getaddrinfo

    def resolve(host, *arguments, **options):
        return real("127.0.0.1" if host == "photos.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("no_proxy", "*")
    fetcher = Fetcher(str(tmp_path), retries=0)
    port = server.rpartition(":")[2]
    assert status_of(fetcher, f"http://photos.example:{port}/a") == Status.DENIED
    assert not _Handler.requests
    # Nor if the manifest comes from there: whoever owns the name says where it leads, each time anew.
    beside = Fetcher(f"http://photos.example:{port}/m", retries=0)
    assert status_of(beside, "a") == Status.DENIED
    assert not _Handler.requests
    allowed = Fetcher(str(tmp_path), retries=0, prefixes=(f"http://photos.example:{port}",))
    assert allowed.fetch(f"http://photos.example:{port}/a") == b"data"


def test_images_beside_a_manifest_on_a_private_machine(server):
    fetcher = Fetcher(f"{server}/m", retries=0)
    assert fetcher.fetch("a") == b"data"
    assert status_of(fetcher, "../a") == Status.DENIED
    assert status_of(fetcher, f"{server}/other") == Status.DENIED
    assert set(_Handler.requests) == {"/m/a"}


def test_allowed_archives_reach_no_private_machine(server):
    schemes = ("zip", "http", "https", "simplecache")
    fetcher = Fetcher("s3://bucket/m", retries=0, schemes=schemes)
    for uri in (f"zip://a.jpg::{server}/a.zip", f"simplecache::{server}/a"):
        assert status_of(fetcher, uri) == Status.DENIED
    assert not _Handler.requests


class Stuck(MemoryFileSystem):
    """A filesystem without time-outs, which hangs."""

    protocol = "stuck"
    cachable = False

    def cat_file(self, path, start=None, end=None, **kwargs):
        time.sleep(5)

    def size(self, path):
        return 1


def test_filesystems_without_timeouts_get_one():
    fsspec.register_implementation("stuck", Stuck, clobber=True)
    fetcher = Fetcher("s3://bucket/m", timeout=0.3, retries=0, schemes=("stuck",))
    began = time.monotonic()
    for uri in ("stuck://a", "stuck://a#bytes=0-9"):
        assert status_of(fetcher, uri) == Status.TIMEOUT
    assert time.monotonic() - began < 4


def test_failures_of_stores_keep_their_kind():
    def botocore(code, http):
        error = Exception("as botocore has it")
        error.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": http}}
        translated = OSError(16, "as s3fs has it")
        translated.__cause__ = error
        return translated

    def of_code(code):  # gcsfs
        error = Exception("x")
        error.code = code
        return error

    def of_response(code):  # huggingface_hub
        error = Exception("x")
        error.response = type("Response", (), {"status_code": code})
        return error

    assert status_of_error(botocore("SlowDown", 503)) == Status.THROTTLED
    assert status_of_error(botocore("InternalError", 500)) == Status.NETWORK
    assert status_of_error(botocore("RequestTimeout", 400)) == Status.TIMEOUT
    assert status_of_error(botocore("ExpiredToken", 400)) == Status.FORBIDDEN
    assert status_of_error(botocore("NoSuchBucket", 404)) == Status.NOT_FOUND
    for make in (of_code, of_response):
        codes = {404: "not_found", 403: "forbidden", 429: "throttled", 500: "network"}
        assert {code: status_of_error(make(code)) for code in codes} == codes


def test_prefixes_end_at_path_borders(tmp_path):
    fetcher = Fetcher("s3://bucket/m", prefixes=("s3://data/photos", "file:///mnt/photos/"))
    assert fetcher.resolve("s3://data/photos/a.jpg")
    assert fetcher.resolve("s3://bucket/m/a.jpg")
    assert fetcher.resolve("file:///mnt/photos/a.jpg") == "/mnt/photos/a.jpg"
    for uri in (
        "s3://data/photos2/a.jpg",
        "s3://data/photos/../secret/a.jpg",
        "s3://data/a.jpg",
        "/mnt/photos/../secret.jpg",
        "https://data.example/photos/a.jpg",
    ):
        with pytest.raises(ImageError, match="begins with none of --allow-prefix"):
            fetcher.resolve(uri)


def test_prefixes_hold_for_local_manifests_too(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "m/a.jpg").write_bytes(b"a")
    fetcher = Fetcher(str(tmp_path / "m"), prefixes=("s3://data",))
    assert fetcher.fetch("a.jpg") == fetcher.fetch(f"{tmp_path}/m/a.jpg") == b"a"
    for uri in ("../secret", f"{tmp_path}/secret", f"{tmp_path}/m/../secret", "b/../../secret"):
        assert status_of(fetcher, uri) == Status.DENIED
    assert Fetcher(str(tmp_path / "m")).fetch("../secret") == b"secret"


def test_ranges_that_are_none(tmp_path):
    (tmp_path / "shard.tar").write_bytes(bytes(2000))
    fetcher = Fetcher(str(tmp_path), max_bytes=100)
    assert fetcher.fetch("shard.tar#bytes=512-511") == b""  # an empty member
    assert status_of(fetcher, "shard.tar#bytes=512-2") == Status.UNSUPPORTED


def test_schemes_can_be_allowed(tmp_path):
    fetcher = Fetcher(str(tmp_path), schemes=("zip", "s3"))
    assert fetcher.resolve("zip://a.jpg::s3://bucket/x.zip")
    with pytest.raises(ImageError, match=r"the scheme 'file' of .* is not among --allow-scheme"):
        fetcher.resolve("zip://a.jpg::file:///etc/x.zip")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pass@host/a.jpg", "https://host/a.jpg"),
        ("https://host/a.jpg?X-Amz-Signature=1&X-Amz-Date=2", "https://host/a.jpg"),
        ("cannot read https://h/a?sig=x, sorry", "cannot read https://h/a sorry"),
        ("https://h/a?sv=2020&sr=b&sig=abc", "https://h/a"),
        ("https://h/get?url=https://h2/a?sig=abc", "https://h/get"),
        ("https://h/get?a=1;my-token?=abc", "https://h/get"),
        ("https://h/get?id=5", "https://h/get?id=5"),
        ("https://h/my photo.jpg?X-Amz-Signature=1", "https://h/my photo.jpg"),
        ("https://h/it's.jpg?X-Amz-Signature=1", "https://h/it's.jpg"),
        ("https://h/a?name=it's&sig=secret", "https://h/a?name=it's&"),
        ("https://h/a?X%2DAmz%2DSignature=1", "https://h/a"),
        ("https://h/a?jwt=1", "https://h/a"),
        ("https://h/a?access-token=1", "https://h/a"),
        ("a.jpg?sv=2020&sig=abc", "a.jpg"),
        ("https://u:p@ss@h/a", "https://h/a"),
        ("https://h/a?v=2&design=blue", "https://h/a?v=2&design=blue"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("photos/what?.jpg", "photos/what?.jpg"),
    ],
)
def test_redact(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize("piece", ["a://", "a://b@", "?sig", "?&", "signature", "&a=", "?a://?"])
def test_long_texts_are_redacted_in_no_time(piece):
    began = time.monotonic()
    redact(f"https://host/?{piece * 200_000}")  # from a hostile manifest
    assert time.monotonic() - began < 5


def test_errors_hold_no_secret(server, tmp_path):
    host = server.removeprefix("http://")
    fetcher = Fetcher(str(tmp_path), retries=0, prefixes=(f"http://me:secret@{host}", server))
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(f"{server}/gone?X-Amz-Signature=secret")
    assert "secret" not in str(raised.value)
    with pytest.raises(ImageError) as raised:
        Fetcher("s3://bucket/m").fetch("x://a::b.jpg?sig=secret")
    assert "secret" not in str(raised.value)


def test_host_of():
    assert host_of("s3://bucket/a/b") == "s3://bucket"
    assert host_of("https://me:x@host:8080/a?b") == "https://host:8080"
    assert host_of("a.jpg") == host_of(None) == ""
    assert host_of("http://[half/a") == "http://[half"  # which urlsplit refuses


class _Hub(BaseHTTPRequestHandler):
    """The little of the Hugging Face Hub that reading a file asks for."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/datasets/me/photos/resolve/main/a.jpg":
            self._answer(b"data")
        elif path.startswith("/api/datasets/me/photos/tree/main"):
            self._answer(json.dumps([{"type": "file", "path": "a.jpg", "size": 4, "oid": "0"}]))
        elif path.startswith("/api/datasets/me/photos"):
            self._answer(json.dumps({"id": "me/photos", "sha": "0"}))
        else:
            self._answer("{}", 404)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _answer(self, content, status=200):
        content = content if isinstance(content, bytes) else content.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


HUB = """
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.errors import ImageError
for uri in ("hf://datasets/me/photos/a.jpg", "hf://datasets/me/photos/b.jpg", "hf://datasets/me/no/a.jpg"):
    try:
        print(Fetcher("hf://datasets/me/photos", retries=0).fetch(uri))
    except ImageError as error:
        print(error.status)
print(Fetcher("hf://datasets/me/photos", retries=0).fetch("a.jpg"))
"""


def test_the_hugging_face_hub():
    pytest.importorskip("huggingface_hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{http.server_port}"}
        done = subprocess.run(
            [sys.executable, "-c", HUB], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        http.shutdown()
        thread.join()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["b'data'", "not_found", "not_found", "b'data'"]
