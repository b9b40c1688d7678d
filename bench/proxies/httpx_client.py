"""A yardstick: Starlette and httpx.AsyncClient, as most Python gateways are built."""

from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bench.proxies.serving import incoming_headers, outgoing_headers, serve


def build(upstream_port: int) -> Any:
    """The application."""
    # Not bounded where the others are not.
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{upstream_port}",
        limits=httpx.Limits(max_connections=2_000, max_keepalive_connections=2_000),
        timeout=None,
        trust_env=False,
    )
    host = b"127.0.0.1:%d" % upstream_port

    async def relay(request: Request) -> Response:
        headers = outgoing_headers(request.headers.raw, host)
        if headers is None:
            return Response(status_code=401)
        body = await request.body()
        asked = client.build_request(request.method, request.url.path, headers=headers, content=body)
        answer = await client.send(asked, stream=True)
        response = StreamingResponse(
            answer.aiter_raw(), status_code=answer.status_code, background=BackgroundTask(answer.aclose)
        )
        response.raw_headers = incoming_headers(answer.headers.raw)
        return response

    return Starlette(routes=[Route("/{path:path}", relay, methods=["GET", "POST"])])


if __name__ == "__main__":
    serve(build)
