"""Requests to addresses of other people reach nothing inside, and end in time."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from alerts.outgoing import (
    Client,
    ForbiddenAddressError,
    Guard,
    UnreachableError,
    problem_of,
)
from tests.alerts.http_server import (
    Server,
    dripping,
    garbage,
    plain,
    reset,
    serving,
    silent,
)

LOCAL = ("127.0.0.0/8",)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def client(*networks: str, **more: float) -> Client:
    return Client(Guard.of(networks), **more)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "169.254.1.1", "100.64.0.1", "100.100.100.200", "192.0.0.192",
        "168.63.129.16", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "198.18.0.1",
        "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::1", "2001:0:7f00:1::1",
        "::127.0.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(ForbiddenAddressError):
        Guard().addresses(host, 443)


@pytest.mark.parametrize(
    "host", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
)
def test_public_addresses_are_not(host: str) -> None:
    assert Guard().addresses(host, 443) == [ipaddress.ip_address(host)]


def test_a_network_of_the_setting_is_allowed_in_each_of_its_forms() -> None:
    guard = Guard.of(["10.20.0.0/16"])
    assert guard.addresses("10.20.1.1", 80)
    assert guard.addresses("::ffff:10.20.1.1", 80)
    with pytest.raises(ForbiddenAddressError, match=r"allowed_networks"):
        guard.addresses("10.21.1.1", 80)


@pytest.mark.parametrize("name", ["localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"])
def test_other_spellings_of_loopback_are_refused_before_a_connection(
    server: Server, name: str
) -> None:
    with pytest.raises(ForbiddenAddressError):
        client().post(f"https://{name}:{server.port}/", b"")
    assert server.got == []


def test_one_private_address_among_public_ones_is_enough() -> None:
    guard = Guard(resolve=lambda host, port: ["1.1.1.1", "10.0.0.1"])
    with pytest.raises(ForbiddenAddressError):
        guard.addresses("mixed.example", 443)


def test_a_name_that_changes_between_check_and_connect_is_asked_only_once(server: Server) -> None:
    """DNS rebinding: public when it is looked at, loopback for whoever asks again."""
    answers = iter([["203.0.114.1"], ["127.0.0.1"], ["127.0.0.1"]])
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    rebound = Client(Guard(resolve=resolve), total_s=0.5)
    with pytest.raises(UnreachableError):
        rebound.post(f"https://rebind.example:{server.port}/", b"")
    assert asked == ["rebind.example"]
    assert server.got == []


def test_it_connects_to_the_address_that_was_looked_at(server: Server) -> None:
    guard = Guard.of(LOCAL, resolve=lambda host, port: ["127.0.0.1"])
    answer = Client(guard).post(f"http://no.such.name.example:{server.port}/a?b=c", b"x")
    assert (answer.status, server.got[0].path) == (200, "/a?b=c")
    assert server.got[0].headers["Host"] == f"no.such.name.example:{server.port}"


def test_a_redirect_leads_nowhere(server: Server) -> None:
    server.answers = [plain(302, location=f"{server.url}/inside"), plain(200)]
    answer = client(*LOCAL).post(f"{server.url}/", b"")
    assert answer.status == 302
    assert [got.path for got in server.got] == ["/"]


def test_plain_http_is_only_for_networks_of_the_setting() -> None:
    guard = Guard(resolve=lambda host, port: ["1.1.1.1"])
    with pytest.raises(ForbiddenAddressError, match="https"):
        Client(guard).post("http://public.example/", b"")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "gopher://x/", "https://", "http://[::1", "", "https://a b/", "x"]
)
def test_what_is_no_address_of_the_web_is_refused(url: str) -> None:
    assert problem_of(url)
    with pytest.raises((ForbiddenAddressError, UnreachableError)):
        client().post(url, b"")


def test_an_address_with_a_password_is_refused_as_text() -> None:
    assert "password" in problem_of("https://user:secret@example.com/")
    assert problem_of("https://example.com/hook") == ""


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_slow_server_costs_no_more_than_the_time_that_it_has(
    server: Server, answer: object
) -> None:
    server.usual = answer  # type: ignore[assignment]
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"within 0\.4 s") as caught:
        client(*LOCAL, total_s=0.4).post(server.url, b"")
    assert time.monotonic() - began < 3
    assert caught.value.sent


@pytest.mark.parametrize("answer", [reset, garbage])
def test_a_torn_connection_and_garbage_are_no_answer(server: Server, answer: object) -> None:
    server.usual = answer  # type: ignore[assignment]
    with pytest.raises(UnreachableError):
        client(*LOCAL).post(server.url, b"")


def test_a_body_is_cut(server: Server) -> None:
    server.usual = plain(200, b"x" * 1_000_000)
    assert len(client(*LOCAL).post(server.url, b"").body) == 64_000


def test_a_closed_port_is_unreachable_and_nothing_was_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError) as caught:
        client(*LOCAL).post(f"http://127.0.0.1:{port}/", b"")
    assert not caught.value.sent


def test_tls_is_verified(tmp_path: Path) -> None:
    """A certificate of another authority is refused; with that authority it is taken."""
    trusting, port, close = _tls_server(tmp_path)
    try:
        guard = Guard.of(LOCAL, resolve=lambda host, port: ["127.0.0.1"])
        url = f"https://hooks.example:{port}/"
        with pytest.raises(UnreachableError, match="certificate"):
            Client(guard).post(url, b"")
        assert Client(guard, tls=trusting).post(url, b"").status == 204
        with pytest.raises(UnreachableError, match=r"(?i)mismatch"):
            Client(guard, tls=trusting).post(url.replace("hooks", "other"), b"")
    finally:
        close()


def _tls_server(folder: Path) -> tuple[ssl.SSLContext, int, Callable[[], None]]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "cert.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                          serialization.NoEncryption())
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(raw, server_side=True) as wrapped:
                    wrapped.recv(65_536)
                    wrapped.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def close() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)

    return ssl.create_default_context(cadata=pem.decode()), listener.getsockname()[1], close
