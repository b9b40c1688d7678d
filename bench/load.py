"""The load clients, each a process of its own: ``python -m bench.load '{"mode": ...}'`` prints one line of JSON.

The rule: a client checks what it receives. ``wrong`` counts answers that were not exactly what the provider sent.
"""

import asyncio
import json
import random
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import httptools
import uvloop

from bench.payloads import EVENT_BYTES, JSON_BODY, STAMP_AT, STAMP_DIGITS, request, rewritten, stamps, whole

# After the end of the window, streams under way may end; then they are cut.
GRACE_S = 1.6
# For all streams that are held open together.
OPEN_TIMEOUT_S = 30.0
_STAMP_END = STAMP_AT + STAMP_DIGITS


def percentile(found: Sequence[float], share: float) -> float:
    """The value below which ``share`` of all lie; 0 where there is none."""
    ordered = sorted(found)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


class Tally:
    """What all clients of a run saw together."""

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.calls = self.events = self.wrong = self.failed = 0
        self.delays_ns: list[int] = []
        self.first_ns: list[int] = []
        self.why = ""

    def fail(self, why: str) -> None:
        """An answer that is no answer."""
        self.failed += 1
        self.why = self.why or why


class Client(asyncio.Protocol):
    """One connection that asks again until the time is over. ``events`` None: the answers are JSON."""

    def __init__(
        self, tally: Tally, asked: bytes, events: int | None, *, usage: bool, paced: bool, rewrites: bool
    ) -> None:
        self._tally = tally
        self._request = asked
        self._events = events
        self._usage = usage
        self._paced = paced
        self._rewrites = rewrites
        self._transport: Any = None
        self._parser: Any = None
        self._body = bytearray()
        self._stamp_at = 0
        self._asked_ns = self._now_ns = 0
        self._waiting = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once."""
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """In the middle of an answer: a failure."""
        if self._waiting and time.monotonic() < self._tally.until_s + GRACE_S:
            self._tally.fail(f"the connection was lost: {exc!r}")
        if not self.done.done():
            self.done.set_result(None)

    def cut(self) -> None:
        """Stop now."""
        self._waiting = False
        self._transport.abort()

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body.clear()
        self._stamp_at = 0
        self._waiting = True
        self._asked_ns = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """One instant for all that one read brought."""
        self._now_ns = time.monotonic_ns()
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        """Only 200 is an answer."""
        if self._parser.get_status_code() != 200:
            self._tally.fail(f"status {self._parser.get_status_code()}")

    def on_body(self, piece: bytes) -> None:
        """Collect, and read the time stamps of paced events that have come to their end."""
        body = self._body
        if not body:
            self._tally.first_ns.append(self._now_ns - self._asked_ns)
        body += piece
        if self._events is None:
            return
        if self._rewrites:
            self._read_rewritten()
            return
        at, end = self._stamp_at, self._events * EVENT_BYTES
        while at < end and len(body) - at >= EVENT_BYTES:
            if self._paced:
                self._tally.delays_ns.append(self._now_ns - int(body[at + STAMP_AT : at + _STAMP_END]))
            at += EVENT_BYTES
        self._tally.events += (at - self._stamp_at) // EVENT_BYTES
        self._stamp_at = at

    def _read_rewritten(self) -> None:
        for at, stamp_ns in stamps(bytes(self._body), self._stamp_at):
            self._stamp_at = at
            self._tally.events += 1
            if self._paced:
                self._tally.delays_ns.append(self._now_ns - stamp_ns)

    def _is_right(self, body: bytes) -> bool:
        if self._rewrites:
            return rewritten(body, self._events)
        return body == JSON_BODY if self._events is None else whole(body, self._events, usage=self._usage)

    def on_message_complete(self) -> None:
        """Check the whole answer; ask again while there is time."""
        self._waiting = False
        tally = self._tally
        tally.calls += 1
        body = bytes(self._body)
        if not self._is_right(body):
            tally.wrong += 1
            tally.why = tally.why or f"wrong body, its end: {body[-200:]!r}"
        if time.monotonic() < tally.until_s and self._parser.should_keep_alive():
            # Not from inside the parser's callback.
            asyncio.get_running_loop().call_soon(self._ask)
        else:
            self._transport.close()


async def clients(spec: dict[str, Any]) -> dict[str, Any]:
    """``connections`` clients for ``seconds``; the starts of paced streams are spread over one second."""
    loop = asyncio.get_running_loop()
    kind, _, count = spec["wish"].partition(" ")
    events = int(count) if count else None
    ask_usage = spec.get("ask_usage", True)
    asked = _asked(spec)
    paced = kind == "paced"
    spread_s = 1.0 if paced else 0.0
    began_s = time.monotonic()
    tally = Tally(began_s + spread_s + spec["seconds"])
    chance = random.Random(1)
    running: list[Client] = []

    async def one(wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        while time.monotonic() < tally.until_s:
            made = Client(tally, asked, events, usage=ask_usage, paced=paced, rewrites=spec.get("rewrites", False))
            running.append(made)
            try:
                await loop.create_connection(lambda made=made: made, "127.0.0.1", spec["port"])  # type: ignore[misc]
            except OSError as error:
                tally.fail(f"no connection: {error}")
                return
            await made.done
            running.remove(made)

    tasks = [loop.create_task(one(chance.uniform(0, spread_s))) for _ in range(spec["connections"])]
    await asyncio.sleep(spread_s)
    before = tally.calls, tally.events
    await asyncio.sleep(spec["seconds"])
    within = tally.calls - before[0], tally.events - before[1]
    await asyncio.wait(tasks, timeout=GRACE_S)
    left = list(running)
    for client in left:
        client.cut()
    await asyncio.wait(tasks)
    return {
        "calls": tally.calls,
        "events": tally.events,
        "calls_per_s": within[0] / spec["seconds"],
        "events_per_s": within[1] / spec["seconds"],
        "wrong": tally.wrong,
        "failed": tally.failed,
        "cut": len(left),
        "why": tally.why,
        "first_ms": _ms(tally.first_ns),
        "delay_ms": _ms(tally.delays_ns),
    }


def _asked(spec: dict[str, Any]) -> bytes:
    return request(
        spec["port"], spec["key"], spec["wish"], ask_usage=spec.get("ask_usage", True), headers=spec.get("headers")
    )


def _ms(found_ns: Sequence[float]) -> dict[str, float]:
    return {"p50": percentile(found_ns, 0.5) / 1e6, "p99": percentile(found_ns, 0.99) / 1e6, "count": len(found_ns)}


def alone(spec: dict[str, Any]) -> dict[str, Any]:
    """One connection, one call after another, over a blocking socket: nothing of an event loop is in the times."""
    asked = _asked(spec)
    count = int(spec["wish"].partition(" ")[2] or 0)
    firsts: list[int] = []
    lasts: list[int] = []
    wrong = 0
    why = ""
    until_s = time.monotonic() + spec["seconds"]
    with socket.create_connection(("127.0.0.1", spec["port"]), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < until_s:
            answer = _Answer()
            parser = httptools.HttpResponseParser(answer)
            began_ns, first_ns = time.perf_counter_ns(), 0
            connection.sendall(asked)
            while not answer.complete:
                data = connection.recv(262_144)
                now_ns = time.perf_counter_ns()
                if not data:
                    raise ConnectionError("the proxy hung up")
                parser.feed_data(data)
                if answer.body and not first_ns:
                    first_ns = now_ns
            firsts.append(first_ns - began_ns)
            lasts.append(now_ns - began_ns)
            body = bytes(answer.body)
            if spec.get("rewrites"):
                right = rewritten(body, count or None)
            else:
                right = whole(body, count) if count else body == JSON_BODY
            if parser.get_status_code() != 200 or not right:
                wrong += 1
                why = why or f"{parser.get_status_code()} {body[-200:]!r}"
    # The first calls pay for connections and caches.
    skip = min(20, len(firsts) // 10)
    return {
        "calls": len(firsts),
        "wrong": wrong,
        "why": why,
        "first_ms": _ms(firsts[skip:]),
        "last_ms": _ms(lasts[skip:]),
    }


class _Answer:
    """What the parser of a blocking client calls."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, piece: bytes) -> None:
        """A piece."""
        self.body += piece

    def on_message_complete(self) -> None:
        """The end."""
        self.complete = True


async def held(spec: dict[str, Any]) -> dict[str, Any]:
    """Open ``connections`` streams that stay open, say ``ready`` when all have begun, wait for a line on stdin."""
    asked = _asked(spec)
    wanted = int(spec["wish"].partition(" ")[2])
    held_open: list[asyncio.StreamWriter] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", spec["port"])
        held_open.append(writer)
        writer.write(asked)
        received = b""
        while len(stamps(received)) < wanted:
            piece = await reader.read(65_536)
            if not piece:
                raise ConnectionError("the proxy hung up")
            received += piece

    async with asyncio.timeout(OPEN_TIMEOUT_S):
        # A burst larger than any listen queue would measure the kernel's retries.
        for at in range(0, spec["connections"], 50):
            await asyncio.gather(*(one() for _ in range(at, min(at + 50, spec["connections"]))))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for writer in held_open:
        writer.transport.abort()
    return {"held": len(held_open)}


def main() -> None:
    """Run what the specification asks for."""
    spec = json.loads(sys.argv[1])
    match spec["mode"]:
        case "alone":
            print(json.dumps(alone(spec)))
        case "held":
            print(json.dumps(uvloop.run(held(spec))))
        case _:
            print(json.dumps(uvloop.run(clients(spec))))


if __name__ == "__main__":
    main()
