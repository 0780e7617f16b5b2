"""HTTP to addresses that people typed in: nothing inside the own network is ever reached by it.

A name is resolved once, every address it has is looked at, and the connection goes to the very
address that was looked at. Redirects are not followed, bodies and times are bounded, TLS is
verified, and plain ``http://`` is for networks that ``alerts.allowed_networks`` names.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpcore
import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

MOST_BODY = 64_000
CONNECT_S, TOTAL_S = 5.0, 15.0
HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9a-fA-F:.]{2,45}")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Forms of IPv6 that carry an IPv4 address or lead through a translator of one's own.
TRANSLATED = tuple(
    ipaddress.IPv6Network(net)
    for net in ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")
)
# Public by number, and yet the metadata service of a cloud (Azure's, Oracle's).
METADATA = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "192.0.0.192")))
# What older Pythons take for public.
SPECIAL = tuple(ipaddress.IPv4Network(net) for net in ("192.0.0.0/24", "192.88.99.0/24"))


class OutgoingError(Exception):
    """A request that gave no answer; the message is for people and holds no secret."""


class ForbiddenAddressError(OutgoingError):
    """The address must not be asked: permanent, until somebody changes it or the setting."""


class UnreachableError(OutgoingError):
    """No answer this time. ``sent``: the request may have arrived all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``headers`` have lower-case names, ``body`` is cut at 64,000 bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Guard:
    """Which addresses may be asked.

    Args:
        allowed: networks that are allowed although they are not public.
        resolve: gives a name's addresses as text.
    """

    allowed: tuple[Network, ...] = ()
    resolve: Resolve | None = None

    @classmethod
    def of(cls, networks: Iterable[str], resolve: Resolve | None = None) -> Guard:
        """From networks such as ``10.20.0.0/16``."""
        return cls(tuple(ipaddress.ip_network(n, strict=False) for n in networks), resolve)

    def allows(self, address: Address) -> bool:
        """Whether the setting names a network that it lies in."""
        return any(
            address in network for network in self.allowed if network.version == address.version
        )

    def addresses(self, host: str, port: int) -> list[Address]:
        """All addresses of a host, each of them looked at.

        Raises:
            ForbiddenAddressError: where one of them is not for us. One is enough: a name that
                has public and private addresses is a trick or a mistake.
            UnreachableError: where the name is not known.
        """
        try:
            found = [ipaddress.ip_address(host.strip("[]"))]
        except ValueError:
            names = (self.resolve or _resolved)(host, port)
            found = [ipaddress.ip_address(name.partition("%")[0]) for name in names]
        if not found:
            raise UnreachableError(f"{host} has no address.", sent=False)
        for address in found:
            if why := self.refusal(address):
                raise ForbiddenAddressError(
                    f"{host} is {address}, {why}. Only public addresses are asked; networks of"
                    " your own are named in alerts.allowed_networks."
                )
        return list(dict.fromkeys(found))

    def refusal(self, address: Address) -> str:
        """Why an address must not be asked; empty where it may be."""
        inner = embedded(address)
        if self.allows(address) or (inner is not None and self.allows(inner)):
            return ""
        if inner is not None:
            return f"another form of {inner}" if forbidden(inner) else ""
        return forbidden(address)


def embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a mapped or NAT64 form of IPv6 stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def forbidden(address: Address) -> str:
    """What is wrong with an address, in words; empty where it is a public one.

    >>> forbidden(ipaddress.ip_address("127.0.0.1"))
    'a loopback address'
    """
    kinds = (
        (address in METADATA, "a metadata service"),
        (address.is_unspecified, "no address of a host"),
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_multicast, "a multicast address"),
        (any(address in net for net in TRANSLATED if address.version == 6),
         "a form that leads to an IPv4 address"),
        (getattr(address, "is_site_local", False), "a private address"),
        (address.is_private, "a private address"),
        (address.is_reserved or not address.is_global, "a reserved address"),
        (any(address in net for net in SPECIAL if address.version == 4), "a reserved address"),
    )  # fmt: skip
    return next((words for holds, words in kinds if holds), "")


class Client:
    """Makes single requests under a guard.

    Args:
        guard: which addresses may be asked.
        tls: for tests with a certificate authority of their own.
        total_s: an answer that takes longer is no answer.
    """

    def __init__(
        self, guard: Guard, *, tls: ssl.SSLContext | None = None, total_s: float = TOTAL_S
    ) -> None:
        self.guard, self._tls, self.total_s = guard, tls, total_s

    def post(self, url: str, content: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """POST. Raises :class:`OutgoingError`."""
        return self.request("POST", url, content, headers)

    def request(
        self, method: str, url: str, content: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """One request, one answer, whatever its status. Raises :class:`OutgoingError`."""
        if problem := problem_of(url):
            raise ForbiddenAddressError(problem)
        began = time.monotonic()
        wire = _Wire(self.guard, began + self.total_s, plain=_is_plain(url))
        given = {"User-Agent": "Vigil", "Accept-Encoding": "identity"} | dict(headers or {})
        times = {"connect": CONNECT_S, "read": self.total_s, "write": self.total_s}
        try:
            where = httpx.URL(url)
            with (
                httpcore.ConnectionPool(
                    ssl_context=self._tls or _context(), max_connections=1,
                    max_keepalive_connections=0, network_backend=wire,
                ) as pool,
                pool.stream(
                    method,
                    httpcore.URL(scheme=where.raw_scheme, host=where.raw_host, port=where.port,
                                 target=where.raw_path),
                    headers=[(k.encode(), v.encode()) for k, v in given.items()],
                    content=content, extensions={"timeout": times},
                ) as response,
            ):  # fmt: skip
                body = _bounded(response)
                names = {k.decode("latin-1").lower(): v.decode("latin-1")
                         for k, v in response.headers}  # fmt: skip
                return Answer(response.status, names, body, time.monotonic() - began)
        except (httpx.InvalidURL, httpcore.UnsupportedProtocol, UnicodeError, ValueError) as error:
            raise ForbiddenAddressError(f"This is no address that can be asked: {error}") from None
        except (httpcore.TimeoutException, TimeoutError):
            words = f"No answer within {self.total_s:g} s."
            raise UnreachableError(words, sent=wire.connected) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            # Text of ours and of the system only: nothing of the request can be in it.
            words = f"{_what(error)}: {error}" if str(error) else f"{_what(error)}."
            raise UnreachableError(words[:300], sent=wire.connected) from None


def problem_of(url: str) -> str:
    """What is wrong with an address as text, before anybody asks it; empty where nothing is."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        return "This is no address. One is https://hooks.example.com/vigil."
    if parts.scheme not in ("https", "http") or not HOST.fullmatch(parts.raw_host.decode()):
        return "An address begins with https:// and a host."
    if parts.userinfo:
        return "A name and password don't belong into the address: it is shown to everybody."
    if any(ord(c) < 33 for c in url):
        return "An address has no spaces or line ends."
    return ""


def _is_plain(url: str) -> bool:
    return url[:5].lower() == "http:"


def _what(error: Exception) -> str:
    return {
        "ConnectError": "No connection", "ReadError": "The connection broke",
        "WriteError": "The connection broke", "RemoteProtocolError": "No HTTP answer",
    }.get(type(error).__name__, "No answer")  # fmt: skip


def _bounded(response: httpcore.Response) -> bytes:
    body = b""
    for part in response.iter_stream():
        body += part
        if len(body) >= MOST_BODY:
            break
    return body[:MOST_BODY]


@lru_cache(maxsize=1)
def _context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _resolved(host: str, port: int) -> list[str]:
    """The system's resolver, which knows no time limit, on a thread that may be left behind."""
    answers: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([str(row[4][0]) for row in rows])
        except (OSError, UnicodeError) as error:
            answers.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=ask, daemon=True, name="resolve").start()
    try:
        found = answers.get(timeout=CONNECT_S)
    except queue.Empty:
        raise UnreachableError(
            f"The name {host} could not be looked up in time.", sent=False
        ) from None
    if isinstance(found, OSError):
        raise UnreachableError(f"The name {host} is not known: {found.strerror or found}.",
                               sent=False)  # fmt: skip
    return found


class _Wire(httpcore.NetworkBackend):
    """Connects to addresses that the guard looked at, within one deadline for everything."""

    def __init__(self, guard: Guard, deadline: float, *, plain: bool) -> None:
        self._guard, self._deadline, self._plain = guard, deadline, plain
        self.connected = False

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None,
        local_address: str | None = None, socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        system = httpcore.SyncBackend()
        addresses = self._guard.addresses(host, port)
        if self._plain and not all(self._guard.allows(embedded(a) or a) for a in addresses):
            raise ForbiddenAddressError(
                "Plain http:// is only for networks that alerts.allowed_networks names:"
                " use https://."
            )
        trouble: Exception = UnreachableError(f"{host} has no address.", sent=False)
        for address in addresses:
            try:
                stream = system.connect_tcp(
                    str(address), port, _within(self._deadline, timeout), local_address,
                    socket_options,
                )  # fmt: skip
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                trouble = error
                continue
            self.connected = True
            return _Timed(stream, self._deadline)
        raise trouble


class _Timed(httpcore.NetworkStream):
    """A connection whose every step ends by the request's deadline: drops of bytes buy no time."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _within(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _within(self._deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        inner = self._stream.start_tls(
            ssl_context, server_hostname, _within(self._deadline, timeout)
        )
        return _Timed(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _within(deadline: float, timeout: float | None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left if timeout is None else min(left, timeout)
