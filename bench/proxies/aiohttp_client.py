"""A yardstick: aiohttp's ClientSession under raw ASGI."""

from typing import Any

import aiohttp

from bench.proxies.serving import incoming_headers, lifespan, outgoing_headers, read_body, refuse, serve


class AiohttpProxy:
    """A raw ASGI application."""

    def __init__(self, upstream_port: int) -> None:
        self._url = f"http://127.0.0.1:{upstream_port}"
        self._host = b"127.0.0.1:%d" % upstream_port
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await lifespan(receive, send, self._session.close)
            return
        headers = outgoing_headers(scope["headers"], self._host)
        if headers is None:
            await refuse(send)
            return
        body = await read_body(receive)
        text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        async with self._session.request(
            scope["method"], self._url + scope["path"], headers=text, data=body, allow_redirects=False
        ) as answer:
            start = {
                "type": "http.response.start",
                "status": answer.status,
                "headers": incoming_headers(list(answer.raw_headers)),
            }
            await send(start)
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


if __name__ == "__main__":
    serve(AiohttpProxy)
