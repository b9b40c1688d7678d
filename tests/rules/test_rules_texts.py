"""What a tokenizer is given to read, and of which models."""

import pytest

from gatekeeper.rules.requests import Ask, read_ask
from gatekeeper.rules.texts import TEXT_BYTES_MAX, encoding_of, text_of


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("openai/gpt-5-nano", "o200k_base"),
        ("ft:gpt-4o-mini:acme::1", "o200k_base"),
        ("o3", "o200k_base"),
        ("gpt-4.1-mini", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("GPT-3.5-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("claude-opus-4-1", None),
        ("gpt-44", None),
        ("o300", None),
        ("", None),
        (None, None),
    ],
)
def test_a_model_is_known_by_its_name(model, encoding):
    assert encoding_of(model) == encoding


def test_the_text_is_what_the_model_reads_and_nothing_else_of_the_request():
    body = {
        "model": "gpt-4o",
        "max_tokens": 500,
        "user": "somebody",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "strict": True}}],
    }
    lines = (text_of(body) or "").split("\n")
    assert lines[:8] == ["role", "system", "content", "Be kind.", "role", "user", "content", "type"]
    assert lines[-1] == "strict"
    assert not {"gpt-4o", "somebody", "500"} & set(lines)
    assert text_of({"model": "gpt-4o"}) == ""


def test_a_long_text_is_not_read_however_it_is_cut():
    one = "x" * TEXT_BYTES_MAX
    assert text_of({"prompt": one}) is None
    assert text_of({"prompt": ["x"] * TEXT_BYTES_MAX}) is None
    assert text_of({"prompt": "\N{PILE OF POO}" * (TEXT_BYTES_MAX // 3)}) is None
    assert text_of({"prompt": one[1:]}) == one[1:]
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    assert text_of({"prompt": deep}) == ""


def test_what_was_counted_is_the_usual_figure_and_changes_no_bound():
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    ask = read_ask("openai", "/v1/chat/completions", {}, body, 80)
    counted = Ask(**{name: getattr(ask, name) for name in Ask.__slots__} | {"input_counted": 12})
    assert (ask.input_usual, counted.input_usual) == (20, 12)
    assert (counted.input_bound(None), counted.input_least) == (ask.input_bound(None), ask.input_least) == (80, 10)
    # A count is within what is known for sure.
    for wrong, usual in ((0, 10), (500, 80)):
        assert Ask(input_bytes=80, input_counted=wrong).input_usual == usual
