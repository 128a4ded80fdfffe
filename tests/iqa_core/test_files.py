"""Tests of iqa_core/files.py on a real disk and a real HTTP server on loopback."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from iqa_core.files import Fetcher, Folder, has_scheme
from iqa_core.schema import ImageError, Status


def test_has_scheme():
    assert has_scheme("s3://bucket/key")
    assert has_scheme("zip://a.jpg::file.zip")
    assert not has_scheme("/data/a.jpg")
    assert not has_scheme("C:/a.jpg")


class TestFolder:
    def test_writes_make_folders_and_leave_no_other_file(self, tmp_path):
        folder = Folder.of(str(tmp_path / "new"))
        folder.write("_run/a.bin", b"123")
        assert folder.read("_run/a.bin") == b"123"
        assert [path.name for path in (tmp_path / "new" / "_run").iterdir()] == ["a.bin"]

    def test_a_failed_write_leaves_what_was_there(self, tmp_path, monkeypatch):
        folder = Folder.of(str(tmp_path))
        folder.write("a.bin", b"old")

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            folder.write("a.bin", b"new")
        assert folder.read("a.bin") == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]

    def test_lists_what_matches_sorted(self, tmp_path):
        folder = Folder.of(str(tmp_path))
        for name in ("part-b.parquet", "part-a.parquet", "_run/x.json"):
            folder.write(name, b"")
        assert folder.list("part-*.parquet") == ["part-a.parquet", "part-b.parquet"]
        assert Folder.of(str(tmp_path / "none")).list("*") == []

    def test_json_comes_back(self, tmp_path):
        folder = Folder.of(str(tmp_path))
        folder.write_json("a.json", {"b": [1, None]})
        assert folder.read_json("a.json") == {"b": [1, None]}
        assert folder.exists("a.json")
        assert not folder.exists("b.json")

    def test_other_filesystems(self):
        folder = Folder.of("memory://test_other_filesystems")
        folder.write("a/b.bin", b"x")
        assert not folder.is_local
        assert folder.read("a/b.bin") == b"x"
        assert folder.list("a/*.bin") == ["a/b.bin"]


class _Handler(BaseHTTPRequestHandler):
    """Answers by path; ``/flaky`` fails twice before it works."""

    requests: dict[str, int] = {}  # noqa: RUF012 - shared on purpose, cleared by the fixture

    def do_GET(self):
        count = self.requests[self.path] = self.requests.get(self.path, 0) + 1
        if self.path == "/slow":
            time.sleep(3)
        status = {"/gone": 404, "/secret": 403, "/busy": 429, "/down": 500}.get(self.path, 200)
        if self.path == "/flaky" and count < 3:
            status = 503
        self.send_response(status)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"data")

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    _Handler.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
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
        assert status_of(fetcher, "nosuch://a") == Status.UNSUPPORTED

    def test_http_failures_keep_their_kind(self, server, tmp_path):
        fetcher = Fetcher(str(tmp_path), retries=0, timeout=1)
        assert fetcher.fetch(f"{server}/a.jpg") == b"data"
        assert status_of(fetcher, f"{server}/gone") == Status.NOT_FOUND
        assert status_of(fetcher, f"{server}/secret") == Status.FORBIDDEN
        assert status_of(fetcher, f"{server}/busy") == Status.THROTTLED
        assert status_of(fetcher, f"{server}/down") == Status.NETWORK
        assert status_of(fetcher, f"{server}/slow") == Status.TIMEOUT
        assert status_of(fetcher, "http://127.0.0.1:9/a") == Status.NETWORK

    def test_only_what_may_pass_is_tried_again(self, server, tmp_path):
        fetcher = Fetcher(str(tmp_path), retries=3)
        assert fetcher.fetch(f"{server}/flaky") == b"data"
        assert _Handler.requests["/flaky"] == 3
        assert status_of(fetcher, f"{server}/gone") == Status.NOT_FOUND
        assert _Handler.requests["/gone"] == 1

    def test_remote_manifests_read_no_local_files(self):
        fetcher = Fetcher("memory://folder")
        for uri in ("/etc/passwd", "file:///etc/passwd", "../other/a.jpg"):
            assert status_of(fetcher, uri) == Status.DENIED
        assert fetcher.resolve("a.jpg") == "memory://folder/a.jpg"

    def test_streams_keep_the_order(self, server, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"local")
        fetcher = Fetcher(str(tmp_path), retries=0, concurrency=2)
        uris = [f"{server}/1", None, "a.jpg", f"{server}/gone", *[f"{server}/x"] * 9]
        results = list(fetcher.stream(uris))
        assert results[0] == b"data"
        assert results[1] is None
        assert results[2] == b"local"
        assert results[3].status == Status.NOT_FOUND
        assert results[4:] == [b"data"] * 9
