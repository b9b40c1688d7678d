"""Ours bare: the gateway's own upstream client under raw ASGI, without keys, limits, meters and ledger."""

from typing import Any

from bench.proxies.serving import incoming_headers, lifespan, outgoing_headers, read_body, refuse, serve
from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.ports import Outgoing
from gatekeeper.upstreams.client import HttpUpstream


class BareProxy:
    """A raw ASGI application."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream = HttpUpstream()
        self._config = UpstreamConfig("bench", "http", "127.0.0.1", upstream_port, connections_max=2_000)
        self._host = b"127.0.0.1:%d" % upstream_port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await lifespan(receive, send, self._upstream.close)
            return
        headers = outgoing_headers(scope["headers"], self._host)
        if headers is None:
            await refuse(send)
            return
        body = await read_body(receive)
        copied = []
        async with self._upstream.open(
            Outgoing(self._config, scope["method"], scope["raw_path"], headers, body)
        ) as incoming:
            start = {
                "type": "http.response.start",
                "status": incoming.status,
                "headers": incoming_headers(incoming.headers),
            }
            await send(start)
            while chunk := await incoming.read():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                copied.append(chunk)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


if __name__ == "__main__":
    serve(BareProxy)
