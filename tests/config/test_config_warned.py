"""Expressions that are legal and probably wrong: each is warned of on the routes where it is, and on no other."""

from pathlib import Path

import pytest

from gatekeeper.config import load_gateway

ROOT = Path(__file__).resolve().parents[2]
TOML = """
plans = "plans"
[upstreams.one]
url = "{url}"
auth = {{ type = "none" }}
[[routes]]
name = "route"
path = "{path}"
upstream = "one"
{key} = '''{expression}'''
"""
CHAT, MESSAGES, WATSONX = "/v1/chat/completions", "/v1/messages", "/ml/v1/text/generation_stream"
HEADLINE = "json(sseLastData(allData)).usage.total_tokens"
XAI = "let u = last(events, .json.usage); (u.completion_tokens + u.completion_tokens_details.reasoning_tokens) ?? null"


@pytest.fixture
def warned(tmp_path):
    """What is said of an expression on a route."""
    (tmp_path / "plans").symlink_to(ROOT / "plans")

    def read(expression, path=CHAT, url="http://127.0.0.1:9", key="meter"):
        text = TOML.format(url=url, path=path, key=key, expression=expression)
        (tmp_path / "gateway.toml").write_text(text)
        found = load_gateway(tmp_path / "gateway.toml", {}).warnings
        return [one for one in found if one.source.name.endswith("gateway.toml")]

    return read


@pytest.mark.parametrize(
    ("expression", "path", "said", "at"),
    [
        ("last(events, .json.usage.total_tokens)", CHAT, "there is no default", "last("),
        ("usage().total ?? 1", CHAT, "this constant is charged", "1'''"),
        ("sum(events, .json.usage.total_tokens) ?? null", CHAT, "a growing usage in every event", "sum("),
        (f"{HEADLINE} ?? null", MESSAGES, "the last data of a stream holds no usage here", "sseLastData"),
        (f"{HEADLINE} ?? null", WATSONX, "the last data of a stream holds no usage here", "sseLastData"),
        ("(usage().input + usage().cached_input) ?? null", CHAT, "counts it twice", "usage().cached_input"),
        ("(usage().cache_write + usage().cache_write_1h) ?? null", MESSAGES, "counts it twice", "usage().cache_write_"),
        (XAI, CHAT, "counts it twice", "u.completion_tokens_details"),
    ],
)
def test_what_is_probably_wrong_is_warned_of_at_its_place_in_the_file(warned, expression, path, said, at):
    [warning] = warned(expression, path)
    assert said in warning.message
    assert warning.source.text[warning.span.start :].startswith(at)


@pytest.mark.parametrize(
    ("expression", "path", "url"),
    [
        ("usage().total", CHAT, "http://127.0.0.1:9"),
        ("usage().total", MESSAGES, "http://127.0.0.1:9"),
        ("usage().total", WATSONX, "http://127.0.0.1:9"),
        (f"{HEADLINE} ?? null", CHAT, "http://127.0.0.1:9"),
        (XAI, CHAT, "https://api.x.ai"),
        ("usage().input - (usage().cached_input ?? 0) * 0.9 + usage().output * 4", CHAT, "http://127.0.0.1:9"),
        ("usage().cached_input", CHAT, "http://127.0.0.1:9"),
        ("count(events) * 0.01", CHAT, "http://127.0.0.1:9"),
    ],
)
def test_what_is_right_is_not_warned_of(warned, expression, path, url):
    assert [one.message for one in warned(expression, path, url)] == []


def test_a_request_without_an_answer_has_nothing_to_miss(warned):
    assert warned("request.max_tokens ?? 1", key="estimate") == []
