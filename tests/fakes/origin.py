"""A raw upstream on a real socket that does what a test says, byte for byte."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
STREAMS = Path(__file__).resolve().parents[1] / "streams"
NO_FIXTURES = "the recorded provider responses are not here (../shared/fixtures)"


@dataclass
class Asked:
    """A request as it arrived: nothing folded, nothing decoded."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)


@dataclass
class Line:
    """The upstream's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause_s)

    async def head(self, status: int = 200, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Said", *(f"{name.replace('_', '-')}: {text}" for name, text in headers.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def gone(self) -> None:
        """Waits until the gateway closes the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Behaviour = Callable[[Asked, Line], Awaitable[None]]


@dataclass
class Origin:
    """The server. ``behave`` is called for each request; a return keeps the connection alive. ``accept``, where a test
    sets it, gets each new connection instead, before anything is read from it."""

    behave: Behaviour
    accept: Callable[[Line], Awaitable[None]] | None = None
    asked: list[Asked] = field(default_factory=list)
    closed_early: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """From now on connections are refused."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.accept is not None:
                await self.accept(Line(reader, writer))
                return
            while (asked := await self._read(reader)) is not None:
                self.asked.append(asked)
                try:
                    await self.behave(asked, Line(reader, writer))
                except ConnectionError:
                    self.closed_early += 1
                    return
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Asked | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head[:-4].split(b"\r\n")
        method, target, _ = first.split(b" ", 2)
        pairs = (line.split(b":", 1) for line in lines)
        headers = [(name, value.strip()) for name, value in pairs]
        found = {name.lower(): value for name, value in headers}
        if b"content-length" in found:
            body = await reader.readexactly(int(found[b"content-length"]))
        elif b"transfer-encoding" in found:
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = b""
        return Asked(method.decode(), target, headers, body)


def replays(body: bytes, content_type: str, status: int = 200, *, encoding: str = "", piece: int = 700) -> Behaviour:
    """A recorded body: chunked in small pieces if it is a stream, with Content-Length if not."""

    async def behave(asked: Asked, line: Line) -> None:
        coded = {"Content_Encoding": encoding} if encoding else {}
        if content_type.startswith("text/event-stream"):
            await line.head(status, Content_Type=content_type, Transfer_Encoding="chunked", **coded)
            for start in range(0, len(body), piece):
                await line.chunk(body[start : start + piece])
            await line.end()
        else:
            await line.head(status, Content_Type=content_type, Content_Length=str(len(body)), **coded)
            await line.send(body)

    return behave
