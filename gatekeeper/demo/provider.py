"""The fake provider's URLs, its check of the key, and the way from a request to its reply.

The rule: an upstream must never see a customer's key. A request that carries anything like ``gk_`` in a header or its
query is refused with 401, whatever else it carries.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gatekeeper.clock import Clock, SystemClock
from gatekeeper.demo.asking import Api, Ask, BadAsk, answer
from gatekeeper.demo.behaviour import HEADER, Behaviour, Mode, behaviour
from gatekeeper.demo.bill import expected_usage
from gatekeeper.demo.dialects import anthropic, gemini, openai, responses
from gatekeeper.demo.dialects.frames import Frame, compact
from gatekeeper.demo.sending import Reply

__all__ = ["DEMO_KEYS", "DEMO_MODELS", "TOKENS_PER_S", "build_app", "expected_usage"]

# Not secrets: the fake provider guards nothing.
DEMO_KEYS: Mapping[str, str] = {
    "openai": "sk-demo-openai",
    "anthropic": "sk-ant-demo-anthropic",
    "gemini": "demo-gemini",
}
DEMO_MODELS = ("demo-small", "demo-long")
# About as fast as a person reads.
TOKENS_PER_S = 30.0
# A prompt of many books; more is a mistake of the caller.
BODY_BYTES_MAX = 32 * 1024 * 1024
_HTML = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"


class _ErrorBody(Protocol):
    def __call__(self, status: int, message: str) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """How one API is rendered. ``stream`` is None where there is only JSON."""

    api: Api
    whole: Callable[[Ask], dict[str, Any]]
    error_body: _ErrorBody
    stream: Callable[[Ask], Iterator[Frame]] | None = None
    broken: Callable[[], bytes] = openai.broken


_CHAT = _Endpoint(Api.OPENAI, openai.whole, openai.error_body, openai.events, openai.broken)
_RESPONSES = _Endpoint(Api.OPENAI_RESPONSES, responses.whole, responses.error_body, responses.events, responses.broken)
_EMBEDDINGS = _Endpoint(Api.OPENAI_EMBEDDINGS, openai.embeddings, openai.error_body)
_IMAGES = _Endpoint(Api.OPENAI_IMAGES, openai.pictures, openai.error_body)
_MESSAGES = _Endpoint(Api.ANTHROPIC, anthropic.whole, anthropic.error_body, anthropic.events, anthropic.broken)
_COUNT = _Endpoint(Api.ANTHROPIC_COUNT, anthropic.counted, anthropic.error_body)
_GEMINI = _Endpoint(Api.GEMINI, gemini.whole, gemini.error_body, gemini.events, gemini.broken)
_GEMINI_ARRAY = _Endpoint(Api.GEMINI, gemini.whole, gemini.error_body, gemini.array, gemini.broken)
_GEMINI_COUNT = _Endpoint(Api.GEMINI_COUNT, gemini.counted, gemini.error_body)


def build_app(
    expected_keys: Mapping[str, str] = DEMO_KEYS, tokens_per_s: float = TOKENS_PER_S, clock: Clock | None = None
) -> ASGIApp:
    """The fake provider as an ASGI application.

    ``expected_keys`` has the upstream keys under ``openai``, ``anthropic`` and ``gemini``; a dialect without one takes
    none. ``tokens_per_s`` 0 answers without pauses. ``clock`` gives the pauses and the ``created`` times.
    """
    provider = _Provider(expected_keys, tokens_per_s, clock or SystemClock())
    return Starlette(
        routes=[
            Route("/v1/chat/completions", provider.endpoint(_CHAT), methods=["POST"]),
            Route("/v1/responses", provider.endpoint(_RESPONSES), methods=["POST"]),
            Route("/v1/embeddings", provider.endpoint(_EMBEDDINGS), methods=["POST"]),
            Route("/v1/images/generations", provider.endpoint(_IMAGES), methods=["POST"]),
            Route("/v1/messages", provider.endpoint(_MESSAGES), methods=["POST"]),
            Route("/v1/messages/count_tokens", provider.endpoint(_COUNT), methods=["POST"]),
            Route("/v1/models", provider.list_models, methods=["GET"]),
            Route("/v1beta/models", provider.list_models, methods=["GET"]),
            Route("/v1beta/models/{call:path}", provider.call_gemini, methods=["POST"]),
        ]
    )


class _Provider:
    """What the URLs share: keys, pace, clock, and the number of the next answer."""

    def __init__(self, expected_keys: Mapping[str, str], tokens_per_s: float, clock: Clock) -> None:
        self._expected_keys = expected_keys
        self._tokens_per_s = tokens_per_s
        self._clock = clock
        self._numbers = itertools.count(1)

    def endpoint(self, endpoint: _Endpoint) -> Callable[[Request], Any]:
        """A URL whose request names its model, and whether to stream, in the body."""

        async def answer_request(request: Request) -> ASGIApp:
            return await self._reply(request, endpoint)

        return answer_request

    async def call_gemini(self, request: Request) -> ASGIApp:
        """``/v1beta/models/MODEL:METHOD``; what streams is decided by the URL."""
        model, _, method = request.path_params["call"].rpartition(":")
        events = request.query_params.get("alt") == "sse"
        match method:
            case "generateContent":
                return await self._reply(request, _GEMINI, model=model, stream=False)
            case "streamGenerateContent":
                return await self._reply(request, _GEMINI if events else _GEMINI_ARRAY, model=model, stream=True)
            case "countTokens":
                return await self._reply(request, _GEMINI_COUNT, model=model, stream=False)
        return JSONResponse(gemini.error_body(404, f"There is no method {method!r}."), 404)

    async def list_models(self, request: Request) -> ASGIApp:
        """The demo's models, in the dialect of whoever asks (Anthropic's clients name a version)."""
        now_s = self._clock.now_ms() // 1000
        if request.url.path.startswith("/v1beta/"):
            error_body, dialect, listed = gemini.error_body, "gemini", gemini.models(DEMO_MODELS)
        elif "anthropic-version" in request.headers:
            error_body, dialect, listed = anthropic.error_body, "anthropic", anthropic.models(DEMO_MODELS)
        else:
            error_body, dialect, listed = openai.error_body, "openai", openai.models(DEMO_MODELS, now_s)
        if refusal := self._refused_key(request, dialect):
            return JSONResponse(error_body(401, refusal), 401)
        return JSONResponse(listed)

    async def _reply(
        self, request: Request, endpoint: _Endpoint, *, model: str | None = None, stream: bool | None = None
    ) -> ASGIApp:
        if refusal := self._refused_key(request, endpoint.api.partition("-")[0]):
            return JSONResponse(endpoint.error_body(401, refusal), 401)
        try:
            body = await _body(request)
            named = _model(body) if model is None else model
            how = behaviour(named, request.headers.get(HEADER))
            if refused := _refused_on_purpose(endpoint, how):
                return refused
            ask = self._ask(endpoint.api, named, body, reports_usage=how.mode is not Mode.NO_USAGE)
            streamed = body.get("stream") is True if stream is None else stream
            frames, content_type = _rendered(endpoint, ask, how, streamed=streamed)
        except BadAsk as bad:
            return JSONResponse(endpoint.error_body(400, str(bad)), 400)
        accepts = "gzip" in request.headers.get("accept-encoding", "")
        return Reply(
            frames,
            headers={"content-type": content_type, "x-request-id": f"req_{ask.id}"},
            clock=self._clock,
            tokens_per_s=self._tokens_per_s,
            mode=how.mode,
            broken=endpoint.broken(),
            compress=how.mode is Mode.GZIP and accepts,
        )

    def _ask(self, api: Api, model: str, body: Mapping[str, Any], *, reports_usage: bool) -> Ask:
        number = f"demo{next(self._numbers):08d}"
        return Ask(api, model, body, answer(api, body, model), number, self._clock.now_ms() // 1000, reports_usage)

    def _refused_key(self, request: Request, dialect: str) -> str | None:
        """Why the key is refused, or None. The text never repeats the key."""
        headers = [value for _, value in request.headers.items()]
        if any("gk_" in value for value in [*headers, unquote(request.url.query)]):
            return "A key of the gateway (gk_...) has leaked to the provider."
        match dialect:
            case "openai":
                presented = _bearer(request)
            case "anthropic":
                # The documented header; version 2 of the provider's own SDK sends its key as a bearer instead.
                presented = request.headers.get("x-api-key") or _bearer(request)
            case _:
                presented = request.headers.get("x-goog-api-key") or request.query_params.get("key", "")
        if presented and presented == self._expected_keys.get(dialect):
            return None
        return "Incorrect API key provided." if presented else "No API key was provided."


def _bearer(request: Request) -> str:
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    return presented if scheme.lower() == "bearer" else ""


def _refused_on_purpose(endpoint: _Endpoint, how: Behaviour) -> Response | None:
    if how.mode is Mode.HTML:
        return HTMLResponse(_HTML, 502)
    if how.mode is not Mode.ERROR:
        return None
    retry = {"retry-after": "1"} if how.status in (429, 503, 529) else None
    message = f"The demo provider was asked to fail with {how.status}."
    return JSONResponse(endpoint.error_body(how.status, message), how.status, retry)


def _rendered(endpoint: _Endpoint, ask: Ask, how: Behaviour, *, streamed: bool) -> tuple[Iterator[Frame], str]:
    if streamed and endpoint.stream is not None:
        event_stream = endpoint.stream is not gemini.array
        return endpoint.stream(ask), "text/event-stream; charset=utf-8" if event_stream else "application/json"
    body = compact(endpoint.whole(ask)).encode()
    if how.mode in (Mode.RESET, Mode.HANG_MIDSTREAM):
        # Half of it comes before the trouble.
        return iter([Frame(body[: len(body) // 2], 3), Frame(body[len(body) // 2 :], 1)]), "application/json"
    return iter([Frame(body, ask.answer.output_tokens)]), "application/json"


def _model(body: Mapping[str, Any]) -> str:
    named = body.get("model")
    if not isinstance(named, str) or not named:
        raise BadAsk("'model' must be the name of a model.")
    return named


async def _body(request: Request) -> Mapping[str, Any]:
    """The request's JSON object. Raises BadAsk."""
    gathered = bytearray()
    try:
        async for piece in request.stream():
            gathered += piece
            if len(gathered) > BODY_BYTES_MAX:
                raise BadAsk(f"The body is larger than {BODY_BYTES_MAX} bytes.")
    except ClientDisconnect as gone:
        raise BadAsk("The caller hung up before the end of the body.") from gone
    try:
        found = json.loads(bytes(gathered))
    except ValueError as wrong:
        raise BadAsk("We could not parse the JSON body of your request.") from wrong
    if not isinstance(found, dict):
        raise BadAsk("The body of the request must be a JSON object.")
    return found
