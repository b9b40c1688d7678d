"""What a call needs of the world behind it: a request as it goes out, an answer as it comes in."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.frozen import record

RawHeaders = list[tuple[bytes, bytes]]


@record(frozen=True, slots=True)
class Outgoing:
    """A request exactly as it goes on the wire. ``target`` is path and query as bytes; ``headers`` in order, with
    Host, without any framing field; ``body`` is the whole (Content-Length) or its pieces.

    ``content_length`` is the length of a body that comes in pieces, None sends it chunked.
    """

    upstream: UpstreamConfig
    method: str
    target: bytes
    headers: RawHeaders
    body: bytes | AsyncIterator[bytes] = b""
    content_length: int | None = None


class Incoming(Protocol):
    """The answer of an upstream, head first."""

    @property
    def status(self) -> int:
        """HTTP status; never 1xx."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """As received: order, duplicates and case kept; hop-by-hop fields still in."""
        ...

    async def read(self) -> bytes:
        """All body bytes that have gathered, chunked framing removed, nothing decoded; ``b""`` is the clean end.

        Raises Fault (reset, truncated, idle timeout, protocol). Waiting applies back-pressure.
        """
        ...


class Upstream(Protocol):
    """A client for streaming HTTP."""

    def open(self, outgoing: Outgoing) -> AbstractAsyncContextManager[Incoming]:
        """Send the request; entering waits for the head. Raises Fault. Leaving before the end of the body (also by
        cancellation) closes the connection; leaving after it gives the connection back to the pool."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
