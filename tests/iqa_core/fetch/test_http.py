"""Tests of iqa_core/fetch/http.py: signed URLs and redirects on real servers on loopback."""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import ImageError, InputError, Status
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import read_slice
from iqa_core.tables.rows import RowSet
from iqa_core.tables.slices import plan_slices
from tests.s3 import BUCKET, s3_server

KEY = b"known to the server"
#: As AWS, Google, Azure, CloudFront and others write them, and worse; the signature comes last.
SIGNED = [
    "/bucket/a%20b/%28c%29.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIA%2F20240101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20240101T000000Z"
    "&response-content-disposition=attachment%3B%20filename%3D%22a.jpg%22",
    "/bucket/a%2Fb.jpg?GoogleAccessId=me%40project.iam.gserviceaccount.com&Expires=1704067200",
    "/container/a%2Bb.jpg?sv=2022-11-02&st=2024-01-01T00%3A00%3A00Z&sr=b&sp=r",
    "/a,b;c=1/@me/it's(1)!.jpg?Expires=1&Policy=eyJTdGF0~ZW1l_bnQi-&Key-Pair-Id=K2",
    "/a%5Bb%5D~%7Ec.jpg?x=[1]&y={2}|3&z=%7B4%7D",
    "/a+b.jpg?q=1+2%2B3&empty=&flag&=odd",
    "/%E2%82%AC/%e2%82%ac.jpg?lower=%2f&upper=%2F",
    "/double//slashes/./dots/../a.jpg?u=https://host.example/a?b",
    "/percent%25%3F%23.jpg?q=%26%3D%3F%23",
    # One escape each, so that a failure shows which is changed.
    "/plain.jpg?e=1",
    "/a.jpg?response-content-type=image%2Fjpeg",
    "/a.jpg?date=2024-01-01T10%3A00%3A00Z",
    "/a.jpg?by=me%40example.org",
    "/photo%20%281%29.jpg?e=1",
    "/it%27s.jpg?e=1",
    "/a.jpg?credential=AB%2F2024%2Fauto",
]


def signature(target):
    return hmac.new(KEY, target.encode(), hashlib.sha256).hexdigest()


class Store(BaseHTTPRequestHandler):
    """Answers what is signed as it is written; ``/to/N`` redirects, also by way of others."""

    others: list[str] = []  # noqa: RUF012 - other servers that a chain of redirects goes by
    targets: list[str] = []  # noqa: RUF012 - request targets as they came
    headers_seen: list[dict[str, str]] = []  # noqa: RUF012
    locations: dict[str, str] = {}  # noqa: RUF012 - redirects by path
    content = b"data"

    def do_GET(self):
        self.targets.append(self.path)
        self.headers_seen.append(dict(self.headers))
        if self.path in self.locations:
            self._answer(302, location=self.locations[self.path])
            return
        target, _, given = self.path.rpartition("&sig=")
        self._answer(200 if hmac.compare_digest(given, signature(target)) else 403)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _answer(self, status, location=None):
        content = self.content if status == 200 else b""
        span = self.headers.get("Range")
        if status == 200 and span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            total, content = len(content), content[int(first) : int(last) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        else:
            self.send_response(status)
        if location is not None:
            # As the text has it: Latin-1 on the wire, which surrogates stand for.
            self._headers_buffer.append(b"Location: " + os.fsencode(location) + b"\r\n")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serving(handler, address="127.0.0.1"):
    with ThreadingHTTPServer((address, 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://{address}:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def store():
    Store.targets.clear()
    Store.headers_seen.clear()
    Store.locations = {}
    Store.content = b"data"
    with serving(Store) as url:
        yield url


def signed(target):
    return f"{target}&sig={signature(target)}"


def error_of(fetcher, uri):
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(uri)
    return raised.value


@pytest.mark.parametrize("target", SIGNED)
def test_signed_urls_are_sent_as_they_are_written(target, store, tmp_path):
    fetcher = Fetcher(str(tmp_path), retries=0, prefixes=(store,))
    assert fetcher.fetch(store + signed(target)) == b"data"
    assert fetcher.fetch(f"{store}{signed(target)}#bytes=1-2") == b"at"
    Store.locations = {"/to": store + signed(target), "/here": signed(target)}
    assert fetcher.fetch(f"{store}/to") == b"data"
    assert fetcher.fetch(f"{store}/here") == b"data"


def test_chains_of_redirects_over_hosts(store, tmp_path):
    target = SIGNED[0]
    with serving(Store, "127.0.0.2") as other:
        name = target.rpartition("/")[2]
        folder = target.removesuffix(name)
        Store.locations = {
            "/start": f"{other}{folder}next%2F?token=%28",
            f"{folder}next%2F?token=%28": f"{store}{folder}last",
            f"{folder}last": signed(target).removeprefix(folder),  # relative
        }
        fetcher = Fetcher(str(tmp_path), retries=0, prefixes=(store, other))
        assert fetcher.fetch(f"{store}/start") == b"data"
        assert Store.targets == [
            "/start",
            f"{folder}next%2F?token=%28",
            f"{folder}last",
            signed(target),
        ]
        # Each host of the chain is checked.
        alone = Fetcher(str(tmp_path), retries=0, prefixes=(store,))
        assert error_of(alone, f"{store}/start").status == Status.DENIED


def test_what_no_request_line_can_hold_is_encoded(store, tmp_path):
    Store.locations = {
        "/a%20b/%C3%BC.jpg?q=%E2%82%AC": signed("/ok?1"),
        "/spaces": "/a b/ü.jpg?q=€",
        "/latin": "/Z\udcfcrich.jpg",
        "/Z%FCrich.jpg": signed("/ok?2"),
    }
    fetcher = Fetcher(str(tmp_path), retries=0, prefixes=(store,))
    for path in ("/a b/ü.jpg?q=€", "/spaces", "/latin"):
        assert fetcher.fetch(f"{store}{path}") == b"data"
    # Around a URL they are none of it.
    assert fetcher.fetch(f" {store}{signed('/ok?3')}\u00a0\t") == b"data"


def test_endless_redirects_end_at_once(store, tmp_path):
    Store.locations = {"/a": "/b", "/b": "/a", **{f"/n/{n}": str(n + 1) for n in range(100)}}
    fetcher = Fetcher(str(tmp_path), retries=9, prefixes=(store,))
    for path in ("/a", "/n/0"):
        Store.targets.clear()
        error = error_of(fetcher, store + path)
        assert error.status == Status.INVALID_ROW
        assert "redirects" in error.message
        assert len(Store.targets) == 11
    assert fetcher.fetch(f"{store}{signed('/x?1')}") == b"data"


def test_passwords_of_urls_go_to_their_host_only(store, tmp_path):
    with serving(Store, "127.0.0.2") as other:
        Store.locations = {"/a": "/b", "/b": f"{other}{signed('/c?1')}"}
        fetcher = Fetcher(
            str(tmp_path), retries=0, prefixes=(store.replace("//", "//me:p%40ß@"), store, other)
        )
        assert fetcher.fetch(f"{store.replace('//', '//me:p%40ß@')}/a") == b"data"
    sent = [headers.get("Authorization") for headers in Store.headers_seen]
    assert sent == ["Basic bWU6cEDDnw==", "Basic bWU6cEDDnw==", None]


@pytest.fixture(scope="module")
def s3():
    pytest.importorskip("moto")
    with s3_server() as (proxy, _, options):
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=options["endpoint_url"],
            aws_access_key_id=options["key"],
            aws_secret_access_key=options["secret"],
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        yield client, options, proxy


#: Keys as people have them; s3fs takes ``?versionId=`` for a version, and nothing else apart.
KEYS = [
    *("a b.jpg", "a%20b.jpg", "a+b.jpg", "a%2Fb.jpg", "a#b.jpg", "a?b=c.jpg", "100%.jpg", "é.jpg"),
    *("it's (1)!.jpg", "a&b=c;d,e@f:g$h.jpg", " x.jpg ", "a//b.jpg", "~a'*[].jpg", "a\\b.jpg"),
]


@pytest.mark.slow
def test_keys_of_objects_are_not_decoded(s3, monkeypatch):
    client, options, _ = s3
    monkeypatch.setitem(fsspec_config(), "s3", options)
    for key in KEYS:
        client.put_object(Bucket=BUCKET, Key=f"m/{key}", Body=key.encode())
    fetcher = Fetcher(f"s3://{BUCKET}/m", retries=0)
    for key in KEYS:
        assert fetcher.fetch(f"s3://{BUCKET}/m/{key}") == key.encode()
        assert fetcher.fetch(key) == key.encode()
    error = error_of(fetcher, "none.jpg ")
    assert error.status == Status.NOT_FOUND
    assert "blank" in error.message


def fsspec_config():
    from fsspec.config import conf

    return conf


def test_presigned_urls_of_s3(s3, tmp_path):
    client, options, _ = s3
    fetcher = Fetcher(str(tmp_path), retries=0, prefixes=(options["endpoint_url"],))
    for key in KEYS:
        client.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        parameters = {"Bucket": BUCKET, "Key": key, "ResponseContentType": "image/jpeg"}
        url = client.generate_presigned_url("get_object", parameters)
        assert "%2F" in url
        assert fetcher.fetch(url) == key.encode()


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///a.jpg", f"s3://{BUCKET}", "s3://no bucket/a.jpg", "s3://bucket name"]
)
def test_no_bucket_or_key(uri, s3, monkeypatch):
    _, options, proxy = s3
    monkeypatch.setitem(fsspec_config(), "s3", options)
    before = proxy.seen.total()
    assert error_of(Fetcher("/", retries=9), uri).status == Status.INVALID_ROW
    assert proxy.seen.total() == before


def test_signed_manifests_are_read_as_they_are_written(store, tmp_path):
    table = pa.table({"uri": ["a.jpg", "b.jpg"]})
    pq.write_table(table, tmp_path / "m.parquet")
    Store.content = (tmp_path / "m.parquet").read_bytes()
    for target in SIGNED[:6]:
        url = f"{store}{signed(target)}"
        Store.locations = {"/latest?of=m": url}
        for uri in (url, f"{store}/latest?of=m"):
            manifest = open_manifest(uri)
            (unit,) = plan_slices(manifest, RowSet())
            (rows,) = read_slice(manifest.folder, unit, (), pa.string(), 10)
            assert rows.column("uri").to_pylist() == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    "uri", ["http://[bad/m.parquet", "https://host:99999/m.parquet?sig=secret"]
)
def test_a_manifest_by_no_url_is_refused_at_once(uri):
    began = time.monotonic()
    with pytest.raises(InputError, match=r"manifest http.* can't be read: .*(host|port)") as raised:
        open_manifest(uri)
    assert "secret" not in str(raised.value)
    assert time.monotonic() - began < 2


def test_status_of_a_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    error = error_of(Fetcher("/", retries=9), "gs://bucket/a.jpg")
    assert error.status == Status.UNSUPPORTED
    assert "gcsfs" in error.message
