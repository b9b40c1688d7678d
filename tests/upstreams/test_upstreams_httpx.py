"""What only the transport httpx can: HTTP/2, and proxies. Real servers for both."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from upstreams_server import HOST, Play, Wire, answer, fault_of, fetch, forever, outgoing, serving, whole

from gatekeeper.config.gateway import Secret, Transport, UpstreamConfig
from gatekeeper.errors import FaultKind
from gatekeeper.upstreams.chosen import Upstreams

CERTS = Path(__file__).parent / "certs"


class H2Origin:
    """A server of HTTP/2 over TLS that answers each stream with what ``parts`` say; ``None`` resets the stream."""

    def __init__(self, parts: list[bytes | None]) -> None:
        self.parts = parts
        self.seen: list[list[tuple[bytes, bytes]]] = []
        self.bodies: dict[int, bytes] = {}
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        try:
            while True:
                writer.write(connection.data_to_send())
                await writer.drain()
                for event in connection.receive_data(await reader.readexactly(1) + await reader.read(65536)):
                    self.happened(connection, event)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    def happened(self, connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.seen.append(list(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            connection.send_headers(event.stream_id, [(":status", "200"), ("x-answer", "yes")])
            for part in self.parts:
                if part is None:
                    connection.reset_stream(event.stream_id)
                    return
                connection.send_data(event.stream_id, part)
            connection.end_stream(event.stream_id)


@asynccontextmanager
async def over_h2(parts: list[bytes | None]) -> AsyncIterator[tuple[Upstreams, UpstreamConfig, H2Origin]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(CERTS / "localhost.pem"))
    context.set_alpn_protocols(["h2"])
    origin, upstream = H2Origin(parts), Upstreams()
    listening = await asyncio.start_server(origin.serve, "127.0.0.1", 0, ssl=context)
    config = UpstreamConfig(
        "h2", "https", "localhost", listening.sockets[0].getsockname()[1], ca_file=CERTS / "authority.pem",
        transport=Transport.HTTPX, http2=True,
    )  # fmt: skip
    try:
        yield upstream, config, origin
    finally:
        await upstream.close()
        listening.close()
        await asyncio.sleep(0.01)


def test_calls_share_one_connection_of_http2(play: Play) -> None:
    async def main() -> None:
        async with over_h2([b"data: a\n\n", b"data: [DONE]\n\n"]) as (upstream, config, origin):
            requests = [
                outgoing(config, method="POST", target=b"/v1//x?a=%20b", headers=[HOST, (b"x-n", b"1")], body=b"hello")
                for _ in range(8)
            ]
            answers = await asyncio.gather(*(fetch(upstream, request) for request in requests))
            assert {(status, body) for status, _, body in answers} == {(200, b"data: a\n\ndata: [DONE]\n\n")}
            assert origin.connections == 1
            assert set(origin.bodies.values()) == {b"hello"} and len(origin.bodies) == 8
            sent = dict(origin.seen[0])
            assert (sent[b":path"], sent[b":authority"], sent[b"x-n"]) == (b"/v1//x?a=%20b", HOST[1], b"1")
            assert b"host" not in sent and b"transfer-encoding" not in sent

    play(main)


def test_a_stream_that_is_reset_is_no_clean_end(play: Play) -> None:
    async def main() -> None:
        async with over_h2([b"true", None]) as (upstream, config, _):
            async with upstream.open(outgoing(config)) as incoming:
                fault = await fault_of(whole(incoming))
            assert fault.kind in (FaultKind.PROTOCOL, FaultKind.TRUNCATED, FaultKind.RESET)

    play(main)


def test_a_proxy_is_asked_with_its_password_which_nobody_else_sees(play: Play) -> None:
    seen: list[bytes] = []

    async def proxy(wire: Wire) -> None:
        while True:
            seen.append(await wire.request())
            await wire.send(answer(b"through"))

    async def main() -> None:
        upstream = Upstreams()
        async with serving(proxy) as server:
            config = UpstreamConfig(
                "behind", "http", "provider.test", 80, transport=Transport.HTTPX,
                proxy=Secret(f"http://user:proxy-secret@127.0.0.1:{server.port}"),
            )  # fmt: skip
            assert "proxy-secret" not in repr(config)
            try:
                assert (await fetch(upstream, outgoing(config, target=b"/v1/x")))[2] == b"through"
            finally:
                await upstream.close()
        assert seen[0].startswith(b"GET http://provider.test/v1/x HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic dXNlcjpwcm94eS1zZWNyZXQ=" in seen[0]

    play(main)


@pytest.mark.parametrize("reply", [b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_proxy_that_refuses_is_a_fault_without_its_url(play: Play, reply: bytes) -> None:
    async def main() -> None:
        upstream = Upstreams()
        async with serving(forever(reply) if reply else _closing) as server:
            config = UpstreamConfig(
                "behind", "https", "provider.test", 443, transport=Transport.HTTPX,
                proxy=Secret(f"http://user:proxy-secret@127.0.0.1:{server.port}"),
            )  # fmt: skip
            try:
                fault = await fault_of(fetch(upstream, outgoing(config)))
            finally:
                await upstream.close()
        assert "proxy-secret" not in str(fault)
        assert fault.kind in (FaultKind.CONNECT, FaultKind.RESET)

    play(main)


async def _closing(wire: Wire) -> None:
    await wire.request()
