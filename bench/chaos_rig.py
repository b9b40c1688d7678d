"""What chaos is done to: ``gatekeeper serve`` as real processes, a provider whose answers are known beforehand, and
clients that write down what they saw.

The rule: every call says itself what it will cost, so that its record can be held to it to the digit.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import tree
from bench.systems import ROOT, free_port
from gatekeeper.accounts import Accounts, KeyWish
from gatekeeper.clock import SystemClock
from gatekeeper.config import load_gateway
from gatekeeper.stores import open_store

# What the provider says that every input has; the gateway holds a unit for each byte of it.
INPUT_TOKENS = 5
_END = b"0\r\n\r\n"
_DONE = b"data: [DONE]"
_START_TIMEOUT_S = 60.0
_NOT_PASSED_ON = ("PORT", "DATABASE_URL", "ADMIN_API_KEY")
# The supervisor waits half a second before it starts a worker anew.
_STOP_TIMEOUT_S = 45.0


@dataclass(frozen=True)
class Wish:
    """One call: what the provider would say, what it is allowed to say, and how quickly."""

    tokens: int
    max_tokens: int
    pause_s: float = 0.0
    stream: bool = True
    ask_usage: bool = True

    @property
    def units(self) -> int:
        """What it costs if it is complete."""
        return INPUT_TOKENS + min(self.tokens, self.max_tokens)

    def body(self) -> bytes:
        """The request."""
        asked: dict[str, object] = {
            "model": "chaos",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": self.max_tokens,
            "stream": self.stream,
            "chaos": [self.tokens, self.pause_s],
        }
        if self.stream and self.ask_usage:
            asked["stream_options"] = {"include_usage": True}
        return json.dumps(asked).encode()


@dataclass
class Seen:
    """What one client saw of one call. ``ended`` says that the end of the body arrived: in ``strict`` that promises a
    durable record."""

    wish: Wish
    status: int = 0
    call_id: str | None = None
    ended: bool = False
    body: bytes = b""

    @property
    def complete(self) -> bool:
        """Served whole; a stream that was cut ends, too, but without [DONE]."""
        return self.ended and self.status == 200 and (not self.wish.stream or _DONE in self.events)

    @property
    def events(self) -> bytes:
        """A stream that ended, without its framing."""
        return _unframed(self.body)

    @property
    def code(self) -> str:
        """Of a refusal."""
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return ""


@dataclass
class Provider:
    """An OpenAI-shaped provider on a port of this machine, in the loop of whoever started it. It obeys max_tokens.
    While ``gate`` is closed no answer goes on past its first event."""

    port: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    answered: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Provider"]:
        """Until the block ends."""
        self.gate.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2_048)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                asked = json.loads(await reader.readexactly(int(found.partition(b":")[2])))
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    await self._answer(asked, writer)
                    self.answered += 1
                finally:
                    self.in_flight -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, asked: dict[str, object], writer: asyncio.StreamWriter) -> None:
        wanted, pause_s = asked["chaos"]  # type: ignore[misc]
        tokens = min(wanted, asked["max_tokens"])  # type: ignore[type-var]
        made = {"id": f"chatcmpl-{self.port}-{next(self._numbers)}", "model": "chaos"}
        usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": tokens, "total_tokens": INPUT_TOKENS + tokens}
        if not asked["stream"]:
            await self.gate.wait()
            await asyncio.sleep(pause_s * tokens)
            text = json.dumps({**made, "choices": [{"message": {"content": "abc" * tokens}}], "usage": usage}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text))
            writer.write(text)
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        word = _chunk({**made, "choices": [{"index": 0, "delta": {"content": "abc"}}]})
        for number in range(tokens):
            writer.write(word)
            if number == 0:
                await writer.drain()
                await self.gate.wait()
            if pause_s:
                await writer.drain()
                await asyncio.sleep(pause_s)
        if asked.get("stream_options"):
            writer.write(_chunk({**made, "choices": [], "usage": usage}))
        writer.write(_framed(_DONE + b"\n\n") + _END)
        await writer.drain()


def _chunk(event: object) -> bytes:
    return _framed(b"data: " + json.dumps(event).encode() + b"\n\n")


def _unframed(body: bytes) -> bytes:
    """A body without its chunks' sizes: the gateway cuts chunks where it likes."""
    pieces = []
    while (at := body.find(b"\r\n")) > 0:
        size = int(body[:at], 16)
        pieces.append(body[at + 2 : at + 2 + size])
        body = body[at + 4 + size :]
    return b"".join(pieces)


def _framed(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


async def call(port: int, key: str, wish: Wish, seen: Seen) -> None:
    """One call on a connection of its own; ``seen`` is kept up to date, also when this is cancelled or breaks off."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return
    try:
        body = wish.body()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: chaos\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (key.encode(), len(body)) + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        seen.status = int(head[9:12])
        seen.call_id = _header(head, b"x-gatekeeper-call-id:")
        length = _header(head, b"content-length:")
        while not seen.ended:
            piece = await reader.read(65_536)
            if not piece:
                return
            seen.body += piece
            seen.ended = seen.body.endswith(_END) if length is None else len(seen.body) >= int(length)
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


def _header(head: bytes, name: bytes) -> str | None:
    found = head.find(b"\r\n" + name)
    return head[found + len(name) + 2 : head.index(b"\r\n", found + 2)].strip().decode() if found >= 0 else None


CONFIG = """
plans = "plans"
[server]
port = {port}
drain_s = 5
[database]
url = "{url}"
[admin]
key = "chaos"
[ledger]
hold_ttl_s = {hold_ttl_s}
heartbeat_s = {heartbeat_s}
journal = "journal"
[upstreams.provider]
url = "http://127.0.0.1:{provider}"
connections_max = 2_000
[defaults]
meter = "usage().total"
hold = "{hold}"
hold_slice_tokens = 16
[[routes]]
name = "chat"
path = "/v1/chat/completions"
methods = ["POST"]
upstream = "provider"
[keys]
default_plan = "chaos"
[[prices]]
model = "chaos"
input = "0"
output = "1.00"
per = "1K tokens"
{more}
"""


@dataclass
class Gateway:
    """``gatekeeper serve`` on a port of its own, to be killed. ``folder`` holds its configuration, journal and log."""

    folder: Path
    url: str
    provider_port: int
    workers: int = 1
    plans: dict[str, str] = field(default_factory=dict)
    more: str = ""
    hold: str = "incremental"
    hold_ttl_s: float = 2.0
    heartbeat_s: float = 0.3
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def write(self) -> None:
        """The configuration, with its plans."""
        (self.folder / "plans").mkdir(parents=True, exist_ok=True)
        for name, plan in self.plans.items():
            (self.folder / "plans" / f"{name}.toml").write_text(plan)
        text = CONFIG.format(
            port=self.port, url=self.url, provider=self.provider_port, hold=self.hold, more=self.more,
            hold_ttl_s=self.hold_ttl_s, heartbeat_s=self.heartbeat_s,
        )  # fmt: skip
        (self.folder / "gateway.toml").write_text(text)

    async def customers(self, wanted: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Make customers (id, plan); the key of each."""
        gateway = load_gateway(self.folder / "gateway.toml", {})
        clock = SystemClock()
        store = await open_store(self.url, clock=clock)
        keys = {}
        try:
            accounts = Accounts(store, store, lambda: gateway, clock)
            for customer_id, plan_id in wanted:
                await accounts.create_customer(customer_id, customer_id=customer_id, plan_id=plan_id)
                keys[customer_id] = (await accounts.create_key(customer_id, KeyWish())).secret
        finally:
            await store.close()
        return keys

    async def start(self) -> None:
        """Returns when it is ready. Raises RuntimeError with its log when it does not get there."""
        command = [sys.executable, "-m", "gatekeeper.cli.main", "serve", "--config", "gateway.toml"]
        command += ["--workers", str(self.workers)] if self.workers > 1 else []
        passed_on = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        passed_on["PYTHONPATH"] = os.pathsep.join((str(ROOT), passed_on.get("PYTHONPATH", "")))
        with (self.folder / "log").open("ab") as log:
            # A group of its own, so that one signal reaches every process of it.
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it outlives any loop, and is killed by its group
                command, cwd=self.folder, env=passed_on, stdout=log, stderr=log, start_new_session=True
            )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not await self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the gateway did not start:\n{self.log()}")
            await asyncio.sleep(0.02)

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()

    def pids(self) -> list[int]:
        """The first process, then its workers."""
        return tree(self.process.pid) if self.process is not None else []

    def log(self) -> str:
        """The last of what it said."""
        return (self.folder / "log").read_text(errors="replace")[-4_000:]

    def kill(self) -> None:
        """kill -9, every process at once."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=_STOP_TIMEOUT_S)

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return await asyncio.to_thread(self.process.wait, _STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -int(signal.SIGKILL)
