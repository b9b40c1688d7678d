"""ASGI on one side, a typed Call on the other. The rule: raw ASGI, one ``send`` for one upstream read."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from starlette.types import Receive, Scope, Send

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Dialect, Gateway, Route
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import RawHeaders
from gatekeeper.proxy.call import Aborted, Call, CallerGone
from gatekeeper.proxy.outgoing import CALL_ENTROPY_BYTES, new_call_id, quoted
from gatekeeper.proxy.pipeline import Proxy
from gatekeeper.rules.routing import Choice, Match, NoMethod
from gatekeeper.tallies import Tallies
from gatekeeper.web.credentials import read_credentials
from gatekeeper.web.problems import internal, problem, problem_event

log = logging.getLogger("gatekeeper.web")

# An upload of which nothing has come for so long is not slow but stuck, and what it holds is missing to other calls;
# proxies and servers commonly wait 30 to 60 s.
BODY_WAIT_S = 30.0
# TRACE shows whoever asks what the upstream was sent, its key included; CONNECT is for a proxy that tunnels.
NEVER = frozenset({"TRACE", "CONNECT"})
PEER = "gatekeeper.peer"
_USUAL = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Peer(Protocol):
    """What our own server can tell of the client beyond ASGI (``protocol.GatewayProtocol`` puts one into the scope as
    ``PEER``): without a task for each call that waits for the client to hang up."""

    def whole_body(self) -> bytes | None:
        """Take the request body, if all of it is here."""
        ...

    def began(self, status: int, headers: RawHeaders) -> bool:
        """Write the head, if it is of the usual kind; False: send it by ASGI."""
        ...

    def wrote(self, chunk: bytes) -> bool:
        """Write a piece of the body, if that is all there is to do; False: send it by ASGI."""
        ...

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call this, once, if the client hangs up (also if it has)."""
        ...

    def unwatch(self) -> None:
        """Call nobody."""
        ...


class AsgiCaller:
    """The client's side of one call, over ASGI (implements ``proxy.call.Caller``)."""

    __slots__ = (
        "_back", "_body_wait_s", "_call_id", "_on_gone", "_peer", "_receive", "_send", "_watcher",
        "body_read", "dialect", "ended", "stalled", "started",
    )  # fmt: skip

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        has_body: bool,
        dialect: Dialect = Dialect.OPENAI,
        call_id: str = "",
        body_wait_s: float = BODY_WAIT_S,
        peer: Peer | None = None,
    ) -> None:
        self._body_wait_s = body_wait_s
        self._peer = peer
        self.stalled = False
        self.dialect = dialect
        self._call_id = call_id
        self._back = b""
        self._receive = receive
        self._send = send
        self.body_read = not has_body
        self._on_gone: Callable[[], None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.started = False
        self.ended = False

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The request body in pieces. Raises CallerGone, also (``stalled`` is set then) for one that does not come."""
        if self._back:
            back, self._back = self._back, b""
            yield back
        while not self.body_read:
            try:
                async with asyncio.timeout(self._body_wait_s):
                    message = await self._receive()
            except TimeoutError:
                self.stalled = True
                raise CallerGone(f"nothing more of the request came for {self._body_wait_s:g} s") from None
            if message["type"] == "http.disconnect":
                raise CallerGone("the client hung up before its request was complete")
            self.body_read = not message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece
        if self._on_gone is not None:
            self._start_watching()

    def at_hand(self) -> bytes | None:
        """The whole body, where it is here and nothing of it was read; else None, and ``body`` gives it."""
        if self.body_read or self._back or self._peer is None:
            return None
        whole = self._peer.whole_body()
        self.body_read = whole is not None
        return whole

    def unread(self, read: bytes) -> None:
        """The next ``body`` begins with this."""
        self._back = read + self._back

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head."""
        self.started = True
        if self._peer is not None and self._peer.began(status, headers):
            return
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        if self._peer is not None and self._peer.wrote(chunk):
            return
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes = b"") -> None:
        """Send the last piece."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    def told(self, refusal: Refusal) -> bytes | None:
        """The refusal as an event of the stream."""
        return problem_event(refusal, self.dialect, self._call_id)

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Wait for the disconnect, also before the first token; after a streamed upload only."""
        self._on_gone = on_gone
        if self.body_read:
            self._start_watching()

    def unwatch(self) -> None:
        """Stop watching; calling it twice is harmless."""
        self._on_gone = None
        if self._peer is not None:
            self._peer.unwatch()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def _start_watching(self) -> None:
        if self._peer is not None and self._on_gone is not None:
            # Our own server tells it by a plain call; under any other one a ``receive`` waits for it in a task.
            self._peer.watch(self._on_gone)
        elif self._watcher is None:
            self._watcher = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._on_gone is not None:
            self._on_gone()


class _Entropy:
    """Random bytes of the operating system, asked for many at once: asking costs as much as a write to a socket."""

    def __init__(self) -> None:
        self._left = b""
        # Two processes must not spend the same.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def take(self, count: int) -> bytes:
        """So many of them, never to be had again."""
        if len(self._left) < count:
            self._left = secrets.token_bytes(max(4_096, count))
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def _forget(self) -> None:
        self._left = b""


_ENTROPY = _Entropy()


class Calls:
    """The raw ASGI endpoint for configured routes."""

    def __init__(
        self,
        proxy: Proxy,
        gateway: Callable[[], Gateway],
        clock: Clock,
        *,
        body_wait_s: float = BODY_WAIT_S,
        tallies: Tallies | None = None,
    ) -> None:
        self._tallies = tallies or Tallies()
        self._body_wait_s = body_wait_s
        self._proxy = proxy
        self._gateway = gateway
        self._clock = clock

    def match(self, scope: Scope) -> Match[Route] | Choice[Route] | NoMethod | None:
        """The configured route of a request, decided on its raw path; or those that decide on its body."""
        path, method, router = _raw_path(scope), scope["method"], self._gateway().router
        quick = router.quick(path, method)
        if quick is not None:
            return quick
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        name = host.decode("latin-1").lower()
        name = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() and ":" in name else name
        return router.find(path, method, name)

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        match: Match[Route],
        candidates: Sequence[Match[Route]] = (),
    ) -> None:
        """One call, from head to end. An abort returns without ending the body: the server closes the connection.
        With ``candidates`` the request decides which of them serves; ``match`` speaks until then."""
        call = self._call(scope, match)
        has_body = call.header(b"transfer-encoding") is not None or call.header(b"content-length") not in (None, b"0")
        caller = AsgiCaller(
            receive,
            send,
            has_body=has_body,
            dialect=call.route.dialect,
            call_id=call.id,
            body_wait_s=self._body_wait_s,
            peer=scope.get(PEER),
        )
        try:
            _check_method(call)
            self._check_headers(call)
            if candidates:
                call = await self._proxy.choose(call, caller, candidates)
                caller.dialect = call.route.dialect
            await self._proxy.serve(call, caller)
        except Refusal as refusal:
            self._tallies.refused(refusal.code.value)
            if refusal.private:
                log.warning("call %s refused: %s: %s", call.id, refusal.code, refusal.private)
            await _answer(caller, refusal, call)
        except Aborted as aborted:
            log.warning("call %s aborted: %s", call.id, aborted)
            if not caller.started:
                await _answer(caller, internal(call.id), call)
        except CallerGone as gone:
            # Who has stalled is told below.
            log.info("call %s: %s", call.id, gone)
        except Exception:
            log.exception("call %s on %s failed", call.id, quoted(call.path))
            if not caller.started:
                await _answer(caller, internal(call.id), call)
        finally:
            caller.unwatch()
        if caller.stalled and not caller.started:
            wait_s = f"{self._body_wait_s:g} s"
            await _answer(
                caller, Refusal(Code.BAD_REQUEST, f"Nothing more of the request body came for {wait_s}."), call
            )

    def _call(self, scope: Scope, match: Match[Route]) -> Call:
        # A copy: a server may go on to write trailers into its own list.
        headers: RawHeaders = list(scope["headers"])
        client = scope.get("client")
        now_ms = self._clock.now_ms()
        return Call(
            id=new_call_id(now_ms, _ENTROPY.take(CALL_ENTROPY_BYTES)),
            gateway=self._gateway(),
            route=match.route,
            names=match.names,
            method=scope["method"],
            path=_raw_path(scope),
            headers=headers,
            credentials=read_credentials(headers, scope["query_string"]),
            scheme=scope.get("scheme", "http"),
            client_host=client[0] if client else None,
            started_ms=now_ms,
            started_s=self._clock.monotonic_s(),
        )

    def _check_headers(self, call: Call) -> None:
        bytes_max = call.gateway.server.header_bytes_max
        if sum([len(name) + len(value) + 4 for name, value in call.headers]) > bytes_max:
            raise Refusal(Code.HEADERS_TOO_LARGE, f"The request headers are larger than {bytes_max} bytes.")


def _check_method(call: Call) -> None:
    if call.method in NEVER:
        raise no_method(call.method, call.route.methods or _USUAL)


def no_method(method: str, allowed: frozenset[str]) -> Refusal:
    """405 for what no route forwards (RFC 9110 9.3.8: TRACE must not disclose what is sensitive)."""
    methods = ", ".join(sorted(allowed - NEVER))
    return Refusal(Code.METHOD_NOT_ALLOWED, f"{method} is never forwarded.", headers=(("Allow", methods),))


def _raw_path(scope: Scope) -> bytes:
    raw: bytes | None = scope.get("raw_path")
    return scope["path"].encode("utf-8") if raw is None else raw.partition(b"?")[0]


async def _answer(caller: AsgiCaller, refusal: Refusal, call: Call) -> None:
    status, headers, body = problem(refusal, call.route.dialect, call.id)
    if caller.stalled or (not caller.body_read and call.header(b"expect") is not None):
        # Whoever waits for the 100 may send its body now or not: only a new connection is clear (RFC 9110 10.1.1).
        headers.append((b"connection", b"close"))
    await caller.start(status, [*headers, (b"content-length", str(len(body)).encode("ascii"))])
    await caller.end(b"" if call.method == "HEAD" else body)


def dialect_of(path: str) -> Dialect:
    """Whose SDK probably calls an URL that no route claims."""
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.GEMINI if path.startswith("/v1beta/") else Dialect.OPENAI
