"""Tests of jobs/scoring/breaker.py, and of a run that meets an outage."""

from __future__ import annotations

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli import main
from jobs.scoring.breaker import Breaker


def test_a_host_that_fails_row_after_row_is_noticed():
    breaker = Breaker(window=10, share=0.9)
    uris = ["s3://a/x"] * 9
    assert breaker.add(uris, ["network"] * 9) is None  # too few yet
    told = breaker.add(["s3://a/x"], ["ok"])
    assert told.startswith("9 of the last 10 rows of s3://a failed with 'network'")


def test_bad_images_are_no_outage():
    breaker = Breaker(window=10)
    for status in ("decode_error", "not_found", "too_large", "unsupported"):
        assert breaker.add(["s3://a/x"] * 50, [status] * 50) is None


def test_other_hosts_and_other_failures_do_not_add_up():
    breaker = Breaker(window=10, share=0.9)
    uris = [f"https://host{n % 2}/x" for n in range(18)]
    assert breaker.add(uris, ["timeout"] * 18) is None  # nine of each
    breaker = Breaker(window=10, share=0.9)
    assert breaker.add(["s3://a/x"] * 20, ["timeout", "network"] * 10) is None
    assert breaker.add(["local.jpg", None] * 20, ["network"] * 40) is None


def test_relative_paths_come_from_the_manifests_own_bucket():
    breaker = Breaker("s3://bucket/manifest", window=10)
    told = breaker.add([f"{number}.jpg" for number in range(10)], ["throttled"] * 10)
    assert told.startswith("10 of the last 10 rows of s3://bucket failed with 'throttled'")
    table = pa.table({"uri": ["1.jpg", "s3://other/1"], "status": ["throttled"] * 2})
    assert breaker.without_victims(table).column("uri").to_pylist() == ["s3://other/1"]


def test_a_crawl_has_many_hosts():
    breaker = Breaker()
    began = time.monotonic()
    for block in range(300):
        hosts = [f"https://host{block}-{number}.example/a" for number in range(128)]
        assert breaker.add(hosts, ["timeout"] * 128) is None
    assert time.monotonic() - began < 20
    assert len(breaker._last) <= 10_000


def test_uris_may_be_anything():
    assert Breaker().add(["http://[half", "://", "::", "http://"], ["network"] * 4) is None


def test_rows_that_the_outage_failed_are_left_out():
    breaker = Breaker(window=4)
    breaker.add(["s3://a/x"] * 4, ["forbidden"] * 4)
    table = pa.table(
        {
            "uri": ["s3://a/1", "s3://a/2", "s3://b/3", "local"],
            "status": ["forbidden", "ok", "forbidden", "forbidden"],
        }
    )
    kept = breaker.without_victims(table).column("uri").to_pylist()
    assert kept == ["s3://a/2", "s3://b/3", "local"]


class Down(BaseHTTPRequestHandler):
    """A server that is down, until it is not."""

    up = False
    image = b""

    def do_GET(self):
        self.send_response(200 if self.up else 500)
        self.send_header("Content-Length", str(len(self.image)))
        self.end_headers()
        self.wfile.write(self.image)

    def log_message(self, *_):
        pass


@pytest.mark.ray
def test_an_outage_ends_a_run_and_the_same_command_goes_on(ray_cluster, tmp_path, capsys):
    Image.new("RGB", (64, 64), "olive").save(tmp_path / "a.jpg")
    Down.image = (tmp_path / "a.jpg").read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Down) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        table = pa.table({"uri": [f"{base}/{number}.jpg" for number in range(800)]})
        pq.write_table(table, tmp_path / "m.parquet")
        output = tmp_path / "o"
        words = ["score", "--manifest", str(tmp_path / "m.parquet"), "--output", str(output)]
        words += ["--allow-prefix", base, "--retries", "0"]
        assert main(words) == 3
        said = capsys.readouterr().out
        assert f"rows of {base} failed with 'network': this is an outage, not bad images" in said
        committed = [pq.read_table(path) for path in output.glob("part-*.parquet")]
        assert sum(map(len, committed)) < 300
        Down.up = True
        assert main([*words, "--retry-errors", "network"]) == 0
        server.shutdown()
        thread.join()
    rows = pa.concat_tables(pq.read_table(path) for path in output.glob("part-*.parquet"))
    assert Counter(rows.column("status").to_pylist()) == {"ok": 800}
    assert sorted(rows.column("manifest_row").to_pylist()) == list(range(800))
