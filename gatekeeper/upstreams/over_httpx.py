"""The opt-in second client, ``transport = "httpx"``: for upstreams that want HTTP/2, or lie behind a proxy.

The rule: the same port and the same Faults as the client of our own, at many times its cost (see bench). It uses
httpx's transport alone: no cookie jar, no redirects, no environment, no decoding.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import httpx

from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import Outgoing, RawHeaders
from gatekeeper.upstreams.dial import tls_context
from gatekeeper.upstreams.request import UnsendableRequest, request_head
from gatekeeper.upstreams.response import WORLD

# What a transport is made of; two configurations that agree in it share their connections.
_Made = tuple[object, ...]
_IDLE_KEPT_S = 4.0


class HttpxUpstream:
    """All upstreams that chose this transport. Belongs to one event loop."""

    def __init__(self) -> None:
        self._transports: dict[_Made, httpx.AsyncHTTPTransport] = {}
        self._closed = False

    def open(self, outgoing: Outgoing) -> "HttpxExchange":
        """See ``ports.Upstream.open``. Raises Fault on entering."""
        return HttpxExchange(self, outgoing)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            await transport.aclose()

    def transport(self, config: UpstreamConfig) -> httpx.AsyncHTTPTransport:
        """The connections of this upstream. Raises Fault after ``close``, or for a CA file that cannot be used."""
        if self._closed:
            raise Fault(WORLD, FaultKind.CONNECT, "the client is closed", retryable=True)
        made: _Made = (
            config.name, config.scheme, config.host, config.port, config.tls_verify, config.ca_file,
            config.connections_max, config.http2, config.proxy,
        )  # fmt: skip
        found = self._transports.get(made)
        if found is None:
            found = self._transports[made] = _transport(config)
        return found


def _transport(config: UpstreamConfig) -> httpx.AsyncHTTPTransport:
    try:
        context = tls_context(verify=config.tls_verify, ca_file=config.ca_file)
    except OSError as error:
        raise Fault(WORLD, FaultKind.TLS, "the CA file cannot be used", retryable=True) from error
    return httpx.AsyncHTTPTransport(
        verify=context,
        http1=True,
        http2=config.http2,
        limits=httpx.Limits(
            max_connections=config.connections_max,
            max_keepalive_connections=config.connections_max,
            keepalive_expiry=_IDLE_KEPT_S,
        ),
        trust_env=False,
        proxy=None if config.proxy is None else config.proxy.reveal(),
        retries=0,
    )


@dataclass(slots=True)
class _Due:
    """When the whole call must be over; None is never."""

    at_s: float | None

    def within(self) -> asyncio.Timeout:
        return asyncio.timeout_at(self.at_s)


class HttpxExchange:
    """One request and its answer, as an async context manager that can be entered once."""

    def __init__(self, upstream: HttpxUpstream, outgoing: Outgoing) -> None:
        self._upstream = upstream
        self._outgoing = outgoing
        self._answer: HttpxAnswer | None = None

    async def __aenter__(self) -> "HttpxAnswer":
        """Send, and wait for the head."""
        outgoing, config = self._outgoing, self._outgoing.upstream
        try:
            # Refuses what must not go out; httpx would repair or drop some of it.
            request_head(outgoing)
        except UnsendableRequest as error:
            raise Fault(WORLD, FaultKind.PROTOCOL, f"nothing was sent: {error}", retryable=True) from error
        waits: dict[str, Any] = {
            "connect": config.connect_timeout_s,
            "pool": config.connect_timeout_s,
            "write": config.idle_timeout_s,
            "read": config.first_byte_timeout_s,
        }
        loop = asyncio.get_running_loop()
        due = _Due(None if config.total_timeout_s is None else loop.time() + config.total_timeout_s)
        try:
            async with due.within():
                response = await self._upstream.transport(config).handle_async_request(_request(outgoing, waits))
        except TimeoutError as error:
            raise Fault(WORLD, FaultKind.TOTAL_TIMEOUT, "the call took too long") from error
        except httpx.HTTPError as error:
            _raise(error, before_head=True)
        # httpcore looks the figure up anew for every read.
        waits["read"] = config.idle_timeout_s
        self._answer = HttpxAnswer(response, due)
        return self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection, unless the answer was read to its end."""
        if self._answer is not None:
            await self._answer.close()


class HttpxAnswer:
    """The answer of an upstream, head first; see ``ports.Incoming``."""

    def __init__(self, response: httpx.Response, due: _Due) -> None:
        self.status = response.status_code
        self.headers: RawHeaders = [(name, value) for name, value in response.headers.raw]
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        self._stream = stream
        self._pieces: AsyncIterator[bytes] = stream.__aiter__()
        self._due = due
        self._ended = False

    async def read(self) -> bytes:
        """A piece of the body as it came; ``b""`` is the clean end. Raises Fault."""
        while not self._ended:
            try:
                async with self._due.within():
                    piece = await anext(self._pieces)
            except StopAsyncIteration:
                self._ended = True
                break
            except TimeoutError as error:
                raise Fault(WORLD, FaultKind.TOTAL_TIMEOUT, "the call took too long") from error
            except httpx.HTTPError as error:
                _raise(error, before_head=False)
            if piece:
                return piece
        return b""

    async def close(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        self._ended = True
        await self._stream.aclose()


def _request(outgoing: Outgoing, waits: dict[str, Any]) -> httpx.Request:
    config = outgoing.upstream
    headers = list(outgoing.headers)
    if not isinstance(outgoing.body, bytes) and outgoing.content_length is not None:
        headers.append((b"Content-Length", b"%d" % outgoing.content_length))
    return httpx.Request(
        outgoing.method,
        httpx.URL(scheme=config.scheme, host=config.host, port=config.port),
        headers=headers,
        content=outgoing.body,
        # The target as it is: a URL of httpx would be written anew.
        extensions={"target": _target(outgoing), "timeout": waits},
    )


def _target(outgoing: Outgoing) -> bytes:
    """A proxy is told the whole URL, where it does not only open a tunnel (RFC 9112 3.2.2)."""
    config = outgoing.upstream
    if config.proxy is None or config.scheme == "https":
        return outgoing.target
    return f"{config.scheme}://{config.host}:{config.port}".removesuffix(":80").encode("ascii") + outgoing.target


_KINDS: tuple[tuple[type[httpx.HTTPError], FaultKind, str, bool], ...] = (
    (httpx.PoolTimeout, FaultKind.POOL_FULL, "no connection became free in time", True),
    (httpx.ConnectTimeout, FaultKind.CONNECT_TIMEOUT, "no connection within its time", True),
    (httpx.ProxyError, FaultKind.CONNECT, "the proxy does not let us through", True),
    (httpx.ConnectError, FaultKind.CONNECT, "no connection", True),
    (httpx.UnsupportedProtocol, FaultKind.PROTOCOL, "the protocol is not supported", True),
    (httpx.LocalProtocolError, FaultKind.PROTOCOL, "the request cannot be sent", False),
    (httpx.WriteTimeout, FaultKind.IDLE_TIMEOUT, "it does not take the body", False),
    (httpx.NetworkError, FaultKind.RESET, "the connection broke", False),
)


def _raise(error: httpx.HTTPError, *, before_head: bool) -> NoReturn:
    """The Fault of an error of httpx. No text of httpx is told: it may hold the proxy's URL."""
    if isinstance(error, httpx.ReadTimeout):
        kind = FaultKind.FIRST_BYTE_TIMEOUT if before_head else FaultKind.IDLE_TIMEOUT
        raise Fault(WORLD, kind, "nothing came within its time") from error
    if isinstance(error, httpx.RemoteProtocolError):
        text = str(error)
        if before_head and text.startswith("Server disconnected"):
            raise Fault(WORLD, FaultKind.RESET, "the connection ended before an answer") from error
        if "peer closed connection" in text or "ConnectionTerminated" in text:
            raise Fault(WORLD, FaultKind.TRUNCATED, "the connection ended within the answer") from error
        raise Fault(WORLD, FaultKind.PROTOCOL, "the answer is not valid HTTP") from error
    for kind_of, kind, told, retryable in _KINDS:
        if isinstance(error, kind_of):
            if kind is FaultKind.CONNECT and _is_tls(error):
                raise Fault(
                    WORLD, FaultKind.TLS, "the server's certificate or TLS was refused", retryable=True
                ) from error
            raise Fault(WORLD, kind, told, retryable=retryable) from error
    raise Fault(WORLD, FaultKind.PROTOCOL, type(error).__name__) from error


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
