"""Keys, bad requests, and the failures that can be asked for."""

import asyncio

import httpx
import pytest

from gatekeeper.demo.behaviour import Behaviour, Mode, behaviour
from gatekeeper.demo.provider import DEMO_KEYS, build_app

CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
GEMINI = {"contents": [{"parts": [{"text": "Hello"}]}]}
GENERATE = "/v1beta/models/demo-small:generateContent"
BEARER = {"authorization": f"Bearer {DEMO_KEYS['openai']}"}


def send(method: str, path: str, **more) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=build_app(tokens_per_s=0))
        async with httpx.AsyncClient(transport=transport, base_url="http://provider") as client:
            return await client.request(method, path, **more)

    return asyncio.run(call())


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/chat/completions", CHAT, {}),
        ("/v1/chat/completions", CHAT, {"authorization": "Bearer sk-other"}),
        ("/v1/chat/completions", CHAT, {"authorization": DEMO_KEYS["openai"]}),
        ("/v1/chat/completions", CHAT, {"x-api-key": DEMO_KEYS["openai"]}),
        ("/v1/messages", CHAT, {"authorization": f"Bearer {DEMO_KEYS['openai']}"}),
        (GENERATE, GEMINI, {"x-goog-api-key": "AIza-other"}),
        (f"{GENERATE}?key=other", GEMINI, {}),
        ("/v1/chat/completions", CHAT, {**BEARER, "x-api-key": "gk_live_abc"}),
        (f"{GENERATE}?key=gk%5Flive_abc", GEMINI, {"x-goog-api-key": DEMO_KEYS["gemini"]}),
        ("/v1/messages", CHAT, {"x-api-key": "gk_live_abc"}),
    ],
)
def test_a_wrong_missing_or_leaked_key_is_refused_and_never_repeated(path, body, headers):
    answer = send("POST", path, json=body, headers=headers)
    assert answer.status_code == 401
    assert "other" not in answer.text
    assert "gk_live" not in answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1beta/models"])
def test_the_list_of_models_needs_a_key_too(path):
    assert send("GET", path).status_code == 401


def test_gemini_lists_its_models():
    answer = send("GET", "/v1beta/models", headers={"x-goog-api-key": DEMO_KEYS["gemini"]})
    assert [model["name"] for model in answer.json()["models"]] == ["models/demo-small", "models/demo-long"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"messages": []}', b'{"model": "m"}', b"\xff"])
def test_a_body_that_makes_no_sense_is_a_400_in_the_dialect(content):
    answer = send("POST", "/v1/chat/completions", content=content, headers=BEARER)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("dimensions", [0, -1, 5000, "8"])
def test_dimensions_out_of_bounds_are_a_400(dimensions):
    body = {"model": "m", "input": "x", "dimensions": dimensions}
    assert send("POST", "/v1/embeddings", json=body, headers=BEARER).status_code == 400


@pytest.mark.parametrize(
    ("model", "header", "expected"),
    [
        ("demo-small", None, Behaviour()),
        ("gpt-error-429", None, Behaviour()),
        ("demo-error-429", None, Behaviour(Mode.ERROR, 429)),
        ("demo-error-999", None, Behaviour()),
        ("demo-error", None, Behaviour()),
        ("demo-hang", None, Behaviour(Mode.HANG)),
        ("gpt-5", "reset", Behaviour(Mode.RESET)),
        ("demo-hang", "ok", Behaviour()),
    ],
)
def test_the_switches(model, header, expected):
    assert behaviour(model, header) == expected


@pytest.mark.parametrize(
    ("path", "body", "key", "where"),
    [
        ("/v1/chat/completions", {**CHAT, "model": "demo-error-503"}, BEARER, "type"),
        ("/v1/messages", {**CHAT, "model": "demo-error-503"}, {"x-api-key": DEMO_KEYS["anthropic"]}, "type"),
        (
            "/v1beta/models/demo-error-503:generateContent",
            GEMINI,
            {"x-goog-api-key": DEMO_KEYS["gemini"]},
            "status",
        ),
    ],
)
def test_an_error_that_was_asked_for_has_the_shape_of_its_dialect(path, body, key, where):
    answer = send("POST", path, json=body, headers=key)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"][where] in ("server_error", "api_error", "UNAVAILABLE")


def test_html_comes_with_a_bad_gateway():
    answer = send("POST", "/v1/chat/completions", json={**CHAT, "model": "demo-html"}, headers=BEARER)
    assert answer.status_code == 502
    assert answer.text.startswith("<html>")
