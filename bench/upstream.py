"""What the bare upstream client costs: CPU time of one process for a JSON call, and for a chunk of a stream.

``python bench/upstream.py`` prints a few lines and takes at most 20 seconds. The server is a raw protocol in a
process of its own, so that its time is not counted. CPU time is steadier than wall time; compare runs of one day only.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.ports import Outgoing
from gatekeeper.upstreams.client import HttpUpstream

PHASE_S = 4.0
CALLERS = 32
STREAMS = 50
CHUNKS = 100
PACE_S = 0.01
JSON_BODY = b'{"model":"m","usage":{"prompt_tokens":9,"completion_tokens":12}}'.ljust(700)
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 700\r\n\r\n" + JSON_BODY
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"b4\r\n" + b'data: {"choices":[{"delta":{"content":"word"}}]}'.ljust(178) + b"\n\n\r\n"
LAST = b"0\r\n\r\n"
HEADERS = [(b"Host", b"127.0.0.1"), (b"Authorization", b"Bearer sk-bench"), (b"Content-Type", b"application/json")]


class Server(asyncio.Protocol):
    """``/json``, ``/flat`` (all chunks in one write each, back to back) and ``/paced`` (one chunk every 10 ms)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # Any: uvloop's transports are no subclass of asyncio's.
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """One small request is one read on loopback."""
        if data.startswith(b"POST /json"):
            self.transport.write(JSON)
            return
        self.transport.write(STREAM_HEAD)
        if data.startswith(b"POST /flat"):
            for _ in range(CHUNKS):
                self.transport.write(CHUNK)
            self.transport.write(LAST)
        else:
            self.beat(CHUNKS)

    def beat(self, left: int) -> None:
        """The next chunk of a paced stream."""
        if self.transport.is_closing():
            return
        self.transport.write(CHUNK if left else LAST)
        if left:
            asyncio.get_running_loop().call_later(PACE_S, self.beat, left - 1)


async def serve() -> None:
    """The server's process: its port on stdout, until stdin ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


async def measured(call: Callable[[], Awaitable[int]], callers: int) -> tuple[float, float, int, int]:
    """(CPU seconds, wall seconds, calls, reads) of ``callers`` tasks that repeat ``call`` for one phase."""
    calls = reads = 0
    began_s, cpu_s = time.monotonic(), time.process_time()

    async def repeat() -> None:
        nonlocal calls, reads
        while time.monotonic() - began_s < PHASE_S:
            took = await call()
            # Not in one step: the sum would be read before the await.
            reads += took
            calls += 1

    await asyncio.gather(*(repeat() for _ in range(callers)))
    return time.process_time() - cpu_s, time.monotonic() - began_s, calls, reads


async def measure(port: int) -> None:
    """All phases."""
    upstream = HttpUpstream()
    config = UpstreamConfig("bench", "http", "127.0.0.1", port)

    def calling(target: bytes, length: int) -> Callable[[], Awaitable[int]]:
        outgoing = Outgoing(config, "POST", target, HEADERS, b'{"model":"m"}')

        async def call() -> int:
            reads = received = 0
            async with upstream.open(outgoing) as incoming:
                while piece := await incoming.read():
                    reads += 1
                    received += len(piece)
            assert received == length, received
            return reads

        return call

    cpu_s, wall_s, calls, _ = await measured(calling(b"/json", 700), CALLERS)
    print(
        f"JSON calls, {CALLERS} callers:     {cpu_s / calls * 1e6:7.1f} us CPU a call   {calls / wall_s:9,.0f} calls/s"
    )
    cpu_s, wall_s, calls, reads = await measured(calling(b"/flat", CHUNKS * 180), CALLERS)
    chunks = calls * CHUNKS
    print(
        f"chunks flat out, {CALLERS} streams: {cpu_s / chunks * 1e6:7.2f} us CPU a chunk  {chunks / wall_s:9,.0f} "
        f"chunks/s  ({chunks / reads:.1f} chunks a read)"
    )
    cpu_s, wall_s, calls, reads = await measured(calling(b"/paced", CHUNKS * 180), STREAMS)
    chunks = calls * CHUNKS
    print(
        f"chunks paced, {STREAMS} streams:    {cpu_s / chunks * 1e6:7.2f} us CPU a chunk  {chunks / wall_s:9,.0f} "
        f"chunks/s  ({chunks / reads:.1f} chunks a read)"
    )
    await upstream.close()


def main() -> None:
    """Both processes."""
    if sys.argv[1:] == ["--serve"]:
        uvloop.run(serve())
        return
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        uvloop.run(measure(int(server.stdout.readline())))
        assert server.stdin is not None
        server.stdin.close()


if __name__ == "__main__":
    main()
