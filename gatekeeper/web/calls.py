"""ASGI on one side, a typed Call on the other. The rule: raw ASGI, one ``send`` for one upstream read."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable

from starlette.types import Receive, Scope, Send

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Dialect, Gateway, Route
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import RawHeaders
from gatekeeper.proxy.call import Aborted, Call, CallerGone
from gatekeeper.proxy.outgoing import CALL_ENTROPY_BYTES, new_call_id, quoted
from gatekeeper.proxy.pipeline import Proxy
from gatekeeper.rules.routing import Match, NoMethod
from gatekeeper.web.credentials import read_credentials
from gatekeeper.web.problems import internal, problem, problem_event

log = logging.getLogger("gatekeeper.web")

# An upload of which nothing has come for so long is not slow but stuck, and what it holds is missing to other calls;
# proxies and servers commonly wait 30 to 60 s.
BODY_WAIT_S = 30.0
# TRACE shows whoever asks what the upstream was sent, its key included; CONNECT is for a proxy that tunnels.
NEVER = frozenset({"TRACE", "CONNECT"})
_USUAL = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class AsgiCaller:
    """The client's side of one call, over ASGI (implements ``proxy.call.Caller``)."""

    __slots__ = (
        "_body_wait_s", "_call_id", "_dialect", "_on_gone", "_receive", "_send", "_watcher",
        "body_read", "ended", "stalled", "started",
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
    ) -> None:
        self._body_wait_s = body_wait_s
        self.stalled = False
        self._dialect = dialect
        self._call_id = call_id
        self._receive = receive
        self._send = send
        self.body_read = not has_body
        self._on_gone: Callable[[], None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.started = False
        self.ended = False

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The request body in pieces. Raises CallerGone, also (``stalled`` is set then) for one that does not come."""
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

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head."""
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes = b"") -> None:
        """Send the last piece."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    def told(self, refusal: Refusal) -> bytes | None:
        """The refusal as an event of the stream."""
        return problem_event(refusal, self._dialect, self._call_id)

    def watch(self, on_gone: Callable[[], None]) -> None:
        """One ``receive`` waits for the disconnect, also before the first token; after a streamed upload only."""
        self._on_gone = on_gone
        if self.body_read:
            self._start_watching()

    def unwatch(self) -> None:
        """Stop watching; calling it twice is harmless."""
        self._on_gone = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._on_gone is not None:
            self._on_gone()


class Calls:
    """The raw ASGI endpoint for configured routes."""

    def __init__(
        self, proxy: Proxy, gateway: Callable[[], Gateway], clock: Clock, *, body_wait_s: float = BODY_WAIT_S
    ) -> None:
        self._body_wait_s = body_wait_s
        self._proxy = proxy
        self._gateway = gateway
        self._clock = clock

    def match(self, scope: Scope) -> Match[Route] | NoMethod | None:
        """The configured route of a request, decided on its raw path."""
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        name = host.decode("latin-1").lower()
        name = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() and ":" in name else name
        return self._gateway().router.find(_raw_path(scope), scope["method"], name)

    async def serve(self, scope: Scope, receive: Receive, send: Send, match: Match[Route]) -> None:
        """One call, from head to end. An abort returns without ending the body: the server closes the connection."""
        call = self._call(scope, match)
        has_body = call.header(b"transfer-encoding") is not None or call.header(b"content-length") not in (None, b"0")
        caller = AsgiCaller(
            receive,
            send,
            has_body=has_body,
            dialect=call.route.dialect,
            call_id=call.id,
            body_wait_s=self._body_wait_s,
        )
        try:
            _check_method(call)
            self._check_headers(call)
            await self._proxy.serve(call, caller)
        except Refusal as refusal:
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
            id=new_call_id(now_ms, secrets.token_bytes(CALL_ENTROPY_BYTES)),
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
        if sum(len(name) + len(value) + 4 for name, value in call.headers) > bytes_max:
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
