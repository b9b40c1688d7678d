"""The official SDK clients of OpenAI and Anthropic, sync and async, held to every byte and word.

``python -m bench.mixed_sdk '{"port": ..., "key": ..., "seconds": ..., "seed": ...}'`` prints one line of JSON. The
rule: the SDKs are used as their users use them; a transport below them copies the bytes that they were given.
"""

import asyncio
import itertools
import json
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai

from bench.answers import MODELS, OUTPUT_TOKENS_MAX, SHAPES, Dialect, Wish, answer, bytes_of

# The number of a wish says who made it: that of the raw clients are below this.
FIRST_NUMBER = 1 << 40
_TIMEOUT_S = 60
# OSError: a connection that breaks off may come up as what it is.
_ERRORS = (openai.OpenAIError, anthropic.AnthropicError, ValueError, OSError)


# Of the call that this task or thread makes.
_HEARD: "ContextVar[Heard]" = ContextVar("heard")


@dataclass
class Heard:
    """What came over the wire in answer to one call."""

    call_id: str = ""
    body: bytearray = field(default_factory=bytearray)


def tees(made_with: type) -> tuple[Any, Any]:
    """(sync, async) transports that copy what comes, for the HTTP package of an SDK: each insists on its own, httpx or
    a fork of it. ``made_with`` is a client class of the SDK."""
    http: Any = next(
        sys.modules[found.__module__.partition(".")[0]]
        for found in made_with.__mro__
        if found.__module__.partition(".")[0] in ("httpx", "httpx2")
    )

    class Copied(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, copy: bytearray) -> None:
            self._stream = stream
            self._copy = copy

        def __iter__(self) -> Iterator[bytes]:
            for piece in self._stream:
                self._copy += piece
                yield piece

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in self._stream:
                self._copy += piece
                yield piece

        def close(self) -> None:
            self._stream.close()

        async def aclose(self) -> None:
            await self._stream.aclose()

    def heard(response: Any) -> Any:
        one = _HEARD.get()
        one.call_id = response.headers.get("x-gatekeeper-call-id", "")
        response.stream = Copied(response.stream, one.body)
        return response

    class Tee(http.HTTPTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            return heard(super().handle_request(request))

    class AsyncTee(http.AsyncHTTPTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            return heard(await super().handle_async_request(request))

    return (
        http.Client(transport=Tee(), timeout=_TIMEOUT_S),
        http.AsyncClient(transport=AsyncTee(), timeout=_TIMEOUT_S),
    )


@dataclass
class Results:
    """What all clients of this process saw together."""

    complete: dict[str, tuple[int, int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    received: int = 0

    def add(self, who: str, wish: Wish, heard: Heard, text: str) -> None:
        """Hold one call to the truth."""
        found = answer(wish.dialect, wish.stream, wish.shape)
        self.calls[who] = self.calls.get(who, 0) + 1
        self.received += len(heard.body)
        truth = bytes_of(wish)
        # Where lines end with CRLF, OpenAI's sync SDK hangs up at the CR that ends the empty line after "[DONE]".
        if bytes(heard.body) not in (truth, truth.removesuffix(b"\n") if truth.endswith(b"\r\n") else truth):
            pairs = enumerate(zip(heard.body, truth, strict=False))
            at = next((at for at, (one, other) in pairs if one != other), None)
            where = f"{len(heard.body)} of {len(truth)}" if at is None else f"wrong from byte {at} on"
            self.wrong.append(f"{who}, call {heard.call_id} ({wish}): wrong bytes: {where}")
        elif text != found.text:
            self.wrong.append(f"{who}, call {heard.call_id} ({wish}): the SDK made another text of the right bytes")
        if heard.call_id in self.complete or not heard.call_id:
            self.wrong.append(f"{who}: no id, or one twice: {heard.call_id!r}")
        self.complete[heard.call_id] = (found.units, found.cost_nano)


class Wishes:
    """One client's wishes, one after another, out of the seed and its own number."""

    def __init__(self, seed: int, client: int, dialect: Dialect) -> None:
        self._chance = random.Random(f"{seed} {client}")
        self._numbers = itertools.count(FIRST_NUMBER * (client + 1))
        self._dialect = dialect

    def next(self) -> Wish:
        """Another."""
        chance = self._chance
        return Wish(
            number=next(self._numbers),
            dialect=self._dialect,
            stream=chance.random() < 0.6,
            shape=chance.randrange(SHAPES),
            ask_usage=chance.random() < 0.5,
            pause_ms=chance.choice([0, 0, 0, 1]),
        )


def _arguments(wish: Wish) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model": MODELS[wish.dialect],
        "max_tokens": OUTPUT_TOKENS_MAX,
        "messages": [{"role": "user", "content": wish.words()}],
    }
    if wish.stream and wish.dialect is Dialect.CHAT:
        made["stream"] = True
        if wish.ask_usage:
            made["stream_options"] = {"include_usage": True}
    return made


def _chat_text(chunk: Any) -> str:
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


def openai_sync(client: openai.OpenAI, wish: Wish) -> str:
    """One call; its text."""
    said = client.chat.completions.create(**_arguments(wish))
    if wish.stream:
        return "".join(_chat_text(chunk) for chunk in said)
    return str(said.choices[0].message.content)


async def openai_async(client: openai.AsyncOpenAI, wish: Wish) -> str:
    """One call; its text."""
    said = await client.chat.completions.create(**_arguments(wish))
    if wish.stream:
        return "".join([_chat_text(chunk) async for chunk in said])
    return str(said.choices[0].message.content)


def anthropic_sync(client: anthropic.Anthropic, wish: Wish) -> str:
    """One call; its text."""
    if wish.stream:
        with client.messages.stream(**_arguments(wish)) as stream:
            return "".join(stream.text_stream)
    said: Any = client.messages.create(**_arguments(wish)).content[0]
    return str(said.text)


async def anthropic_async(client: anthropic.AsyncAnthropic, wish: Wish) -> str:
    """One call; its text."""
    if wish.stream:
        async with client.messages.stream(**_arguments(wish)) as stream:
            return "".join([text async for text in stream.text_stream])
    said: Any = (await client.messages.create(**_arguments(wish))).content[0]
    return str(said.text)


class Clients:
    """Two clients of each SDK, sync and async, that call until the time is over."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._url = f"http://127.0.0.1:{spec['port']}"
        self._key = spec["key"]
        self._seed = spec["seed"]
        self._until_s = time.monotonic() + spec["seconds"]
        self.results = Results()

    def _made(self, dialect: Dialect, *, asynchronous: bool) -> Any:
        package: Any = openai if dialect is Dialect.CHAT else anthropic
        http = tees(package.DefaultHttpxClient)[asynchronous]
        names = {Dialect.CHAT: ("OpenAI", "/v1"), Dialect.MESSAGES: ("Anthropic", "")}
        name, below = names[dialect]
        build = getattr(package, f"Async{name}" if asynchronous else name)
        return build(base_url=self._url + below, api_key=self._key, http_client=http, max_retries=0)

    def sync(self, dialect: Dialect, number: int) -> None:
        """In a thread of its own."""
        wishes = Wishes(self._seed, number, dialect)
        call: Any = openai_sync if dialect is Dialect.CHAT else anthropic_sync
        with self._made(dialect, asynchronous=False) as made:
            while time.monotonic() < self._until_s:
                wish, heard = wishes.next(), Heard()
                _HEARD.set(heard)
                try:
                    self.results.add(f"{dialect} sync", wish, heard, call(made, wish))
                except _ERRORS as error:
                    self._broke(f"{dialect} sync", wish, heard, error)

    def _broke(self, who: str, wish: Wish, heard: Heard, error: Exception) -> None:
        self.results.wrong.append(f"{who}, call {heard.call_id} ({wish}): {error!r}")

    async def asynchronous(self, dialect: Dialect, number: int) -> None:
        """In the loop."""
        wishes = Wishes(self._seed, number, dialect)
        call: Any = openai_async if dialect is Dialect.CHAT else anthropic_async
        async with self._made(dialect, asynchronous=True) as made:
            while time.monotonic() < self._until_s:
                wish, heard = wishes.next(), Heard()
                _HEARD.set(heard)
                try:
                    self.results.add(f"{dialect} async", wish, heard, await call(made, wish))
                except _ERRORS as error:
                    self._broke(f"{dialect} async", wish, heard, error)

    async def run(self) -> None:
        """All of them, to their ends."""
        threads = [
            threading.Thread(target=self.sync, args=(dialect, number)) for number, dialect in enumerate(list(Dialect))
        ]
        for thread in threads:
            thread.start()
        async with asyncio.TaskGroup() as group:
            for number, dialect in enumerate([*Dialect, *Dialect], len(threads)):
                group.create_task(self.asynchronous(dialect, number))
        for thread in threads:
            await asyncio.to_thread(thread.join)


def main() -> None:
    """Run what the specification asks for."""
    clients = Clients(json.loads(sys.argv[1]))
    asyncio.run(clients.run())
    found = clients.results
    said = {"complete": found.complete, "wrong": found.wrong, "calls": found.calls, "received": found.received}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
