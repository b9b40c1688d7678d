"""The client that each upstream has chosen."""

from contextlib import AbstractAsyncContextManager

from gatekeeper.config.gateway import Transport
from gatekeeper.ports import Incoming, Outgoing
from gatekeeper.upstreams.client import HttpUpstream
from gatekeeper.upstreams.over_httpx import HttpxUpstream


class Upstreams:
    """See ``ports.Upstream``. Belongs to one event loop."""

    def __init__(self) -> None:
        self._native = HttpUpstream()
        self._httpx = HttpxUpstream()

    def open(self, outgoing: Outgoing) -> AbstractAsyncContextManager[Incoming]:
        """Send the request by the client of its upstream."""
        if outgoing.upstream.transport is Transport.NATIVE:
            return self._native.open(outgoing)
        return self._httpx.open(outgoing)

    async def close(self) -> None:
        """Close all connections."""
        await self._native.close()
        await self._httpx.close()
