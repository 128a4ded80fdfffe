"""A real S3 API on loopback (moto's server), and a proxy before it that injects faults."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "bucket"
FAULTS = ("slow_down", "error", "reset", "stall", "truncate")


class FaultyProxy(BaseHTTPRequestHandler):
    """Passes requests on; a share of them meets one of FAULTS instead."""

    protocol_version = "HTTP/1.1"
    target: tuple[str, int]
    share = 0.0
    stall = 6.0
    seen: Counter[str] = Counter()  # noqa: RUF012 - one for all requests
    sent: Counter[str] = Counter()  # noqa: RUF012 - bytes by object, as in bucket/key
    received: Counter[str] = Counter()  # noqa: RUF012 - likewise, of the last PUT
    random = random.Random(0)

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.random.choice(FAULTS) if self.random.random() < self.share else "none"
        self.seen[fault] += 1
        if fault == "stall":
            time.sleep(self.stall)  # longer than any client waits
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)  # close sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()
            return
        if fault in ("slow_down", "error"):
            code = "SlowDown" if fault == "slow_down" else "InternalError"
            status, content = (
                (503 if fault == "slow_down" else 500),
                f"<Error><Code>{code}</Code></Error>",
            )
            self._answer(status, {"Content-Type": "application/xml"}, content.encode())
            return
        upstream = http.client.HTTPConnection(*self.target, timeout=60)
        try:
            # The headers as they are: the signature is over them.
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        name = self.path.partition("?")[0].lstrip("/")
        if self.command == "GET":
            self.sent[name] += len(content)
        elif self.command == "PUT":
            self.received[name] = len(body)
        headers = dict(answer.getheaders())
        if fault == "truncate" and len(content) > 1:
            self._answer(answer.status, headers, content[: len(content) // 2], len(content))
            self.close_connection = True
            return
        self._answer(answer.status, headers, content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815 - the names that http.server calls

    def _answer(self, status, headers, content, stated=None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if self.command == "HEAD":
            length = headers.get("Content-Length", headers.get("content-length", "0"))
        else:
            length = str(len(content) if stated is None else stated)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_) -> None:
        """Clients go away; that is what the faults are for."""


@contextmanager
def s3_server():
    """Start moto and the proxy; yields the proxy class and the environment of clients."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    s3_backends[DEFAULT_ACCOUNT_ID][
        "aws"
    ].reset()  # its buckets are the process's, not the server's
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()

    class Proxy(FaultyProxy):
        target = (host, port)
        seen: Counter[str] = Counter()  # noqa: RUF012
        sent: Counter[str] = Counter()  # noqa: RUF012
        received: Counter[str] = Counter()  # noqa: RUF012
        random = random.Random(0)

    with _Server(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        options = {
            "endpoint_url": f"http://127.0.0.1:{server.server_port}",
            "key": "testing",
            "secret": "testing-secret",
            "config_kwargs": {"read_timeout": 3, "connect_timeout": 3},
        }
        try:
            yield Proxy, os.environ | {"FSSPEC_S3": json.dumps(options)}, options
        finally:
            server.shutdown()
            thread.join()
            with suppress(Exception):
                moto.stop()
