"""The shipped example: the expression that is charged on each of its routes, over what its providers have sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from gatekeeper.config import load_gateway
from gatekeeper.meters import Mark, Metering, Outcome, RequestView

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT.parent / "shared" / "fixtures"
KEYS = {f"{name}_API_KEY": "x" for name in ("OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL")}
# Whose recordings pass through which route, by the beginnings of their names.
PROVIDERS = {
    "chat": ("openai-chat", "azure", "trunc-openai", "bom-", "cr-", "crlf-", "done-"),
    "embeddings": ("openai-embeddings",),
    "images": ("openai-image",),
    "responses": ("openai-responses", "bedrock-mantle", "deepseek-responses"),
    "messages": ("anthropic", "trunc-anthropic", "trunc-utf8"),
    "gemini": ("gemini", "vertex", "trunc-gemini"),
    "gemini-stream": ("gemini", "vertex", "trunc-gemini"),
    "mistral-chat": ("mistral",),
    "local": ("vllm", "llamacpp", "tgi-chat", "ollama-openai", "openai-completions", "huggingface"),
}


def cases() -> list[Any]:
    if not FIXTURES.exists():
        return []
    recorded = [each for each in json.loads((FIXTURES / "expected.json").read_text()) if each["status"] == 200]
    return [
        pytest.param(route, each, id=f"{route}: {each['file']}")
        for route, beginnings in PROVIDERS.items()
        for each in recorded
        if each["file"].startswith(beginnings)
    ]


@pytest.fixture(scope="module")
def shipped():
    return load_gateway(ROOT / "gateway.toml.example", KEYS)


@pytest.mark.skipif(not FIXTURES.exists(), reason="the recorded responses are not on this machine")
@pytest.mark.parametrize(("name", "recorded"), cases())
def test_a_shipped_route_charges_what_its_provider_billed(shipped, name, recorded):
    [route] = [route for route in shipped.router.routes if route.name == name]
    body = (FIXTURES / recorded["file"]).read_bytes()
    expected = recorded["usage"].get("total")
    if recorded["family"] == "invalid-json":
        # A cut array is no JSON value, but its last whole element says what was used until then.
        expected = 304
    for size in (len(body) or 1, 7):
        metering = Metering({"meter": route.meter}, RequestView(), shapes=shipped.usage_shapes)
        metering.begin(200, recorded["content_type"], recorded["content_encoding"], {})
        for at in range(0, len(body), size):
            metering.feed(body[at : at + size])
        cut = recorded["file"].startswith("trunc-")
        reading = metering.finish(Outcome.CUT if cut else Outcome.COMPLETE)["meter"]
        assert reading.units == expected
        assert reading.source is (Mark.NONE if expected is None else Mark.MEASURED)


def test_every_charged_route_of_the_example_is_looked_at(shipped):
    charged = {route.name for route in shipped.router.routes if not route.free}
    assert charged - {"mistral-embeddings"} == set(PROVIDERS)


def test_no_shipped_expression_is_warned_of(shipped):
    assert [one.message for one in shipped.warnings if one.source.name.endswith("gateway.toml.example")] == []
