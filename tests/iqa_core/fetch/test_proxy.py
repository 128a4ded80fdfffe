"""Tests of iqa_core/fetch/proxy.py: a real proxy on loopback, which alone knows where names lead."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import ImageError, Status
from iqa_core.fetch import proxy as fetch_proxy
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.fetch.policy import looks_public
from iqa_core.fetch.proxy import proxy_for
from iqa_core.fetch.uri import WebAddress
from iqa_core.tables.manifest import open_manifest

ROOT = Path(__file__).parents[3]
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
#: Hosts that DNS can't know here (RFC 2606), but the proxy does.
NAMES = ("photos.example", "cdn.example", "closed.example")
USER = "me:p@ss:w%C3%B6rd/#1"  # encoded where it has to be, and no further
SENT = "Basic " + base64.b64encode("me:p@ss:wörd/#1".encode()).decode()


class Proxy(socketserver.StreamRequestHandler):
    """Forwards requests and tunnels connections; notes what it was asked for."""

    ports: dict[str, int] = {}  # noqa: RUF012 - where its DNS leads: ports of loopback
    asked: list[str] = []  # noqa: RUF012
    wanted: str | None = None  # of Proxy-Authorization
    answer: str | None = None  # instead of what was asked for

    def handle(self):
        request = self.rfile.readline().decode("latin-1").rstrip()
        headers = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        method, target, _ = request.split(" ", 2)
        self.asked.append(f"{method} {target}")
        if self.wanted and headers.get("proxy-authorization") != self.wanted:
            self._say("407 Proxy Authentication Required")
            return
        if self.answer:
            self._say(self.answer)
            return
        host = target.rpartition(":")[0] if method == "CONNECT" else urlsplit(target).hostname
        if host not in self.ports:
            self._say("502 Bad Gateway")
            return
        with socket.create_connection(("127.0.0.1", self.ports[host])) as upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = target.split("/", 3)[3]
                kept = {
                    k: v
                    for k, v in headers.items()
                    if k not in ("connection", "proxy-authorization")
                }
                lines = [f"GET /{path} HTTP/1.1", *(f"{k}: {v}" for k, v in kept.items())]
                upstream.sendall(
                    "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1")
                )
            self._pump(upstream)

    def _say(self, status):
        self.wfile.write(
            f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )

    def _pump(self, upstream):
        def copy(source, sink):
            with suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=copy, args=(self.connection, upstream), daemon=True)
        thread.start()
        copy(upstream, self.connection)
        thread.join()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


class Store(BaseHTTPRequestHandler):
    seen: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012 - targets and headers
    locations: dict[str, str] = {}  # noqa: RUF012
    content = b"data"

    def do_GET(self):
        self.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        location = self.locations.get(self.path)
        status = (
            int(self.path.removeprefix("/status/")) if self.path.startswith("/status/") else 200
        )
        self.send_response(302 if location else status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0" if location else str(len(self.content)))
        self.end_headers()
        if not location and self.command == "GET":
            self.wfile.write(self.content)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *_):
        pass


@contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def store():
    Store.seen, Store.locations, Store.content = [], {}, b"data"
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Store)) as http:
        yield http.server_port


@pytest.fixture
def proxy(store, monkeypatch):
    """Yield the address of a proxy that the environment does not name yet."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    Proxy.ports = dict.fromkeys(NAMES, store)
    Proxy.asked, Proxy.wanted, Proxy.answer = [], None, None
    with running(_Server(("127.0.0.1", 0), Proxy)) as server:
        yield f"127.0.0.1:{server.server_address[1]}"


def error_of(fetcher, uri):
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(uri)
    assert "w%C3%B6rd" not in str(raised.value)
    assert "wörd" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_urls_are_read_through_the_proxy(variable, proxy, monkeypatch):
    monkeypatch.setenv(variable, f"http://{proxy}")
    url = "http://photos.example/a%2Fb%28.jpg?sig=%3A"
    assert Fetcher("/", retries=0).fetch(url) == b"data"
    assert Proxy.asked == [f"GET {url}"]
    assert Store.seen[0][0] == "/a%2Fb%28.jpg?sig=%3A"
    assert Fetcher("/", retries=0).fetch("http://photos.example:8080/b") == b"data"
    assert Proxy.asked[1] == "GET http://photos.example:8080/b"


def test_redirects_go_through_it_too(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy)  # as many write it
    Store.locations = {"/a": "http://cdn.example/b%2F", "/b%2F": "c"}
    assert Fetcher("/", retries=0).fetch("http://photos.example/a") == b"data"
    assert Proxy.asked == [
        "GET http://photos.example/a",
        "GET http://cdn.example/b%2F",
        "GET http://cdn.example/c",
    ]


class TestHosts:
    """The proxy's own address may be private; what is asked of it may not."""

    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "169.254.169.254", "10.0.0.1", "2130706433", "127.1", "0x7f.1", "0"),
            *("[::1]", "[fd00::1]", "[::ffff:10.0.0.1]", "localhost", "LOCALHOST", "①②⑦.⓪.⓪.①"),
            # Unknown here, and by their form nothing of the internet's.
            *("metadata", "metadata.google.internal", "printer.local", "nas.lan", "db.corp"),
            *("router.home.arpa", "svc.cluster.local.", "10.0.0.1.", "x.123"),
        ],
    )
    def test_private_hosts_are_denied(self, host, proxy, monkeypatch):
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, proxy)
        for scheme in ("http", "https"):
            error = error_of(Fetcher("s3://bucket/m", retries=9), f"{scheme}://{host}/a")
            assert error.status in (Status.DENIED, Status.INVALID_ROW)
        assert Proxy.asked == []

    def test_redirects_to_them_are_denied(self, proxy, monkeypatch):
        monkeypatch.setenv("http_proxy", proxy)
        for location in ("http://169.254.169.254/latest/", "//metadata/", "http://localhost/"):
            Store.locations = {"/a": location}
            error = error_of(Fetcher("/", retries=9), "http://photos.example/a")
            assert error.status == Status.DENIED
        assert set(Proxy.asked) == {"GET http://photos.example/a"}

    def test_names_that_lead_to_private_addresses_here_are_denied(self, proxy, monkeypatch):
        real = socket.getaddrinfo
        known = {"inside.example": "10.0.0.7", "outside.example": "93.184.215.14"}

        def resolve(host, *arguments, **options):
            return real(known.get(host, host), *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setenv("http_proxy", proxy)
        Proxy.ports |= dict.fromkeys(known, next(iter(Proxy.ports.values())))
        fetcher = Fetcher("/", retries=0)
        error = error_of(fetcher, "http://inside.example/a")
        assert error.status == Status.DENIED
        assert "inside.example is 10.0.0.7" in error.message
        assert Proxy.asked == []
        assert fetcher.fetch("http://outside.example/a") == b"data"

    def test_an_allowed_prefix_allows_them(self, proxy, monkeypatch):
        monkeypatch.setenv("http_proxy", proxy)
        Proxy.ports |= dict.fromkeys(("10.0.0.1", "nas.lan"), next(iter(Proxy.ports.values())))
        for url in ("http://10.0.0.1/photos/a", "http://nas.lan/photos/a"):
            fetcher = Fetcher("/", retries=0, prefixes=(url.removesuffix("/a"),))
            assert fetcher.fetch(url) == b"data"
            assert Proxy.asked.pop() == f"GET {url}"

    @pytest.mark.slow
    def test_a_name_is_looked_up_once(self, proxy, monkeypatch):
        looked_up = []
        real = socket.getaddrinfo

        def resolve(host, *arguments, **options):
            looked_up.append(host)
            return real(host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setenv("http_proxy", proxy)
        Proxy.ports["many.example"] = next(iter(Proxy.ports.values()))
        list(Fetcher("/", retries=0).stream([f"http://many.example/{n}" for n in range(40)]))
        assert looked_up.count("many.example") == 1

    def test_dns_that_does_not_answer(self, proxy, monkeypatch):
        monkeypatch.setattr(fetch_proxy, "_LOOKUP_SECONDS", 0.2)
        real = socket.getaddrinfo

        def resolve(host, *arguments, **options):
            if host == "slow.example":
                time.sleep(1.5)
            return real(host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setenv("http_proxy", proxy)
        Proxy.ports["slow.example"] = next(iter(Proxy.ports.values()))
        assert Fetcher("/", retries=0).fetch("http://slow.example/a") == b"data"

    def test_names_of_private_networks(self):
        assert [looks_public(name) for name in ("a.example", "www.a.museum.", "x.co")] == [True] * 3
        private = ("a", "a.", "a.local", "A.INTERNAL", "a.localhost", "1.2.3", "a.home.arpa")
        assert not any(looks_public(name) for name in private)


def proxy_of(url):
    found = proxy_for(WebAddress.of(url))
    return found and str(found)


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def _clean(self, monkeypatch):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    def test_each_scheme_has_its_own(self, monkeypatch):
        assert proxy_of("http://a.example/") is None
        monkeypatch.setenv("HTTPS_PROXY", "http://secure.example:3128/")
        assert proxy_of("http://a.example/") is None
        assert proxy_of("https://a.example/") == "the proxy secure.example:3128 of HTTPS_PROXY"
        monkeypatch.setenv("all_proxy", "https://any.example:8443")
        assert proxy_of("http://a.example/") == "the proxy any.example:8443 of all_proxy"
        assert proxy_of("https://a.example/") == "the proxy secure.example:3128 of HTTPS_PROXY"
        monkeypatch.setenv("https_proxy", "lower.example")
        assert proxy_of("https://a.example/") == "the proxy lower.example:80 of https_proxy"

    @pytest.mark.parametrize(
        ("no_proxy", "direct", "through"),
        [
            ("*", ["a.example", "10.0.0.1", "[::1]"], []),
            ("example.org", ["example.org", "a.b.EXAMPLE.org", "example.org."], ["anexample.org"]),
            (".example.org", ["a.example.org"], ["a.example.net"]),
            ("*.example.org , x", ["a.example.org", "x"], ["y"]),
            ("a.example:8080", ["a.example:8080"], ["a.example", "a.example:81"]),
            ("10.0.0.0/8", ["10.1.2.3", "10.1.2.3:8080"], ["11.0.0.1", "a.example"]),
            (
                "10.0.0.7,192.168.1.1:81",
                ["10.0.0.7", "192.168.1.1:81"],
                ["10.0.0.70", "192.168.1.1"],
            ),
            ("::1,fd00::/8", ["[::1]", "[fd12::1]:80"], ["[2606:4700::1]"]),
            ("[fd00::1]:81", ["[fd00::1]:81"], ["[fd00::1]"]),
            ("a.example 10.0.0.0/8\tb.example", ["b.example", "10.0.0.1"], ["c.example"]),
            ("", [], ["a.example", "10.0.0.1"]),
        ],
    )
    def test_no_proxy(self, no_proxy, direct, through, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:1")
        monkeypatch.setenv("NO_PROXY", no_proxy)
        assert [host for host in direct if proxy_of(f"http://{host}/")] == []
        assert [host for host in through if not proxy_of(f"http://{host}/")] == []

    @pytest.mark.parametrize(
        "text",
        ["socks5://me:secret@h:1080", "http://", "http://h:99999", "http://me:secret@", "ftp://h"],
    )
    def test_proxies_that_can_not_be_used(self, text, monkeypatch):
        monkeypatch.setenv("ALL_PROXY", text)
        error = error_of(Fetcher("/", retries=9), "http://a.example/")
        assert error.status == Status.FORBIDDEN
        assert "ALL_PROXY" in error.message
        assert "secret" not in error.message

    def test_hosts_of_no_proxy_are_read_directly_and_checked(self, proxy, store, monkeypatch):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "127.0.0.0/8,localhost")
        url = f"http://127.0.0.1:{store}"
        assert Fetcher("/", retries=0, prefixes=(url,)).fetch(f"{url}/a") == b"data"
        assert error_of(Fetcher("/", retries=0), f"{url}/a").status == Status.DENIED
        assert error_of(Fetcher("/"), f"http://localhost:{store}/a").status == Status.DENIED
        # From a host behind the proxy to one that is not.
        Store.locations = {"/away": f"{url}/b"}
        fetcher = Fetcher("/", retries=0, prefixes=("http://photos.example", url))
        assert fetcher.fetch("http://photos.example/away") == b"data"
        assert error_of(Fetcher("/"), "http://photos.example/away").status == Status.DENIED
        assert set(Proxy.asked) == {"GET http://photos.example/away"}


class TestPasswords:
    def test_they_go_to_the_proxy_only(self, proxy, store, monkeypatch):
        monkeypatch.setenv("http_proxy", f"http://{USER}@{proxy}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        Proxy.wanted = SENT
        direct = f"http://127.0.0.1:{store}"
        Store.locations = {"/a": f"{direct}/b"}
        fetcher = Fetcher("/", retries=0, prefixes=("http://photos.example", direct))
        assert fetcher.fetch("http://photos.example/a") == b"data"
        assert [target for target, _ in Store.seen] == ["/a", "/b"]
        assert not any("proxy-authorization" in headers for _, headers in Store.seen)

    def test_a_wrong_one(self, proxy, monkeypatch):
        Proxy.wanted = "Basic other"
        for user in ("", f"{USER}@"):
            for scheme in ("http", "https"):
                monkeypatch.setenv(f"{scheme}_proxy", f"http://{user}{proxy}")
                Proxy.asked.clear()
                error = error_of(Fetcher("/", retries=9), f"{scheme}://photos.example/a")
                assert error.status == Status.FORBIDDEN
                assert f"the proxy {proxy} of {scheme}_proxy wants a user" in error.message
                assert len(Proxy.asked) == 1

    def test_they_are_in_no_text(self, proxy, monkeypatch):
        monkeypatch.setenv("http_proxy", f"http://{USER}@{proxy}")
        found = proxy_for(WebAddress.of("http://a.example/"))
        assert found.authorization == SENT
        assert SENT not in f"{found} {found!r}"
        assert "w%C3%B6rd" not in f"{found} {found!r} {found.url!r}"


class TestFailures:
    def test_nobody_listens(self, monkeypatch, proxy):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            for scheme in ("http", "https"):
                monkeypatch.setenv(f"{scheme}_proxy", f"http://{USER}@127.0.0.1:{port}")
                error = error_of(Fetcher("/", retries=0), f"{scheme}://photos.example/a")
                assert error.status == Status.NETWORK
                shown = f"the proxy 127.0.0.1:{port} of {scheme}_proxy can't be reached"
                assert shown in error.message

    def test_its_name_is_unknown(self, monkeypatch, proxy):
        monkeypatch.setenv("http_proxy", "http://nowhere.invalid:3128")
        error = error_of(Fetcher("/", retries=0), "http://photos.example/a")
        assert error.status == Status.NETWORK
        assert "the proxy nowhere.invalid:3128 of http_proxy can't be reached" in error.message

    @pytest.mark.parametrize(
        ("answer", "status", "attempts"),
        [
            ("403 Forbidden", Status.FORBIDDEN, 1),
            ("404 Not Found", Status.FORBIDDEN, 1),
            ("429 Too Many Requests", Status.THROTTLED, 2),
            ("502 Bad Gateway", Status.NETWORK, 2),
            ("503 Service Unavailable", Status.NETWORK, 2),
        ],
    )
    def test_no_tunnel(self, answer, status, attempts, proxy, monkeypatch):
        monkeypatch.setenv("https_proxy", proxy)
        Proxy.answer = answer
        error = error_of(Fetcher("/", retries=1), "https://photos.example/a?X-Amz-Signature=1")
        assert error.status == status
        assert f"the proxy {proxy} of https_proxy" in error.message
        assert answer in error.message
        assert Proxy.asked == ["CONNECT photos.example:443"] * attempts

    def test_what_is_behind_it_fails(self, proxy, monkeypatch):
        monkeypatch.setenv("http_proxy", proxy)
        expected = {404: Status.NOT_FOUND, 403: Status.FORBIDDEN, 502: Status.NETWORK}
        for code, status in (expected | {503: Status.THROTTLED}).items():
            error = error_of(Fetcher("/", retries=0), f"http://photos.example/status/{code}")
            assert error.status == status
            assert f"through the proxy {proxy}" in error.message

    def test_it_hangs(self, monkeypatch, proxy):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
            error = error_of(Fetcher("/", retries=0, timeout=0.5), "https://photos.example/a")
        assert error.status == Status.TIMEOUT
        assert f"through the proxy 127.0.0.1:{port}" in error.message


def write_certificates(folder):
    """Write the certificate of a new authority, and a server's that it signed, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)

    def made(name, key, issuer, signer, *extensions):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())

    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    authority, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    root = made(
        named("a company's"), authority, named("a company's"), authority,
        (x509.BasicConstraints(ca=True, path_length=None), True), (identifier, False), (usage, True),
    )  # fmt: skip
    hosts = [*(x509.DNSName(name) for name in NAMES), x509.DNSName("localhost")]
    hosts.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    server = made(
        named("photos.example"), key, root.subject, authority,
        (x509.SubjectAlternativeName(hosts), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(root.public_bytes(pem))
    (folder / "server.pem").write_bytes(server.public_bytes(pem) + private)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    pytest.importorskip("cryptography")
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.fixture
def secure_store(certificates, store):
    """Yield the port of a store that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # clients that do not trust it hang up
    with running(server):
        yield server.server_port


FETCH = """
import sys
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.errors import ImageError
for url in sys.argv[1:]:
    try:
        print(Fetcher("/", retries=0, prefixes=("https://127.0.0.1", url)).fetch(url))
    except ImageError as error:
        print(error.status, error)
"""


def fetched(*urls, **environment):
    """Fetch in a new process: OpenSSL reads its variables when a process first needs them."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith(("_PROXY", "_proxy", "_BUNDLE"))}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *urls], cwd=ROOT, env=kept | environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_companys_authority_is_trusted_where_the_environment_names_it(
    variable, proxy, secure_store, certificates
):
    Proxy.ports = dict.fromkeys(NAMES, secure_store)
    Proxy.wanted = SENT
    authority = str(certificates / "ca.pem")
    url = "https://photos.example/a%2Fb.jpg?X-Amz-Signature=%28"
    # Through a tunnel of the proxy, and directly.
    tunnel = {"HTTPS_PROXY": f"http://{USER}@{proxy}", "NO_PROXY": "127.0.0.1"}
    direct = f"https://127.0.0.1:{secure_store}/a"
    assert fetched(url, direct, **tunnel, **{variable: authority}) == ["b'data'"] * 2
    assert Proxy.asked == ["CONNECT photos.example:443"]
    assert [target for target, _ in Store.seen] == ["/a%2Fb.jpg?X-Amz-Signature=%28", "/a"]
    assert not any("proxy-authorization" in headers for _, headers in Store.seen)


def test_an_authority_that_is_not_trusted(proxy, secure_store):
    (line,) = fetched(f"https://127.0.0.1:{secure_store}/a")
    assert line.startswith("forbidden ")
    assert "SSL_CERT_FILE" in line
    assert Store.seen == []


def test_a_bundle_that_is_none(proxy, secure_store, tmp_path):
    (tmp_path / "empty.pem").write_text("")
    for path in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        (line,) = fetched(f"https://127.0.0.1:{secure_store}/a", REQUESTS_CA_BUNDLE=str(path))
        assert line.startswith(f"forbidden REQUESTS_CA_BUNDLE names {path}, which holds no")


def test_manifests_are_read_through_the_proxy(proxy, monkeypatch, tmp_path):
    pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "m.parquet")
    Store.content = (tmp_path / "m.parquet").read_bytes()
    monkeypatch.setenv("http_proxy", f"http://me:secret@{proxy}")
    Proxy.wanted = "Basic " + base64.b64encode(b"me:secret").decode()
    manifest = open_manifest("http://photos.example/m%2Fm.parquet?sig=%28")
    assert manifest.rows == 1
    assert "GET http://photos.example/m%2Fm.parquet?sig=%28" in Proxy.asked
