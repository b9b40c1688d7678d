"""What a request asks for, and how its body is changed: every other byte stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.requests import TOKENS_MAX, Ask, read_ask, twin, with_output_bound
from gatekeeper.rules.splicing import names_of, with_field

CHAT = "/v1/chat/completions"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def asked(body: dict, dialect: str = "openai", path: str = CHAT) -> Ask:
    return read_ask(dialect, path, {}, body, len(json.dumps(body)))


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=6), JSON, st.sampled_from([None, 2]), st.booleans())
def test_a_field_is_set_and_every_other_stays(body, value, indent, escaped):
    text = json.dumps(body, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    for name in [*body, "new", 'q"uo\\te']:
        changed = json.loads(with_field(text, (name,), value))
        assert changed == {**body, name: value}


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4), JSON)
def test_a_nested_field_is_set_and_what_is_no_object_is_replaced(body, inner):
    text = json.dumps({**body, "o": inner}).encode()
    kept = inner if isinstance(inner, dict) else {}
    assert json.loads(with_field(text, ("o", "f"), 7)) == {**body, "o": {**kept, "f": 7}}


def test_all_other_bytes_stay_as_they_came():
    body = b' \n{ "n" : 1.50 , "max_tokens":\t100, "t": "a\\"}{,:\\\\", "big": 123456789012345678901234567890 }\r\n'
    assert with_field(body, ("max_tokens",), 7) == body.replace(b"100", b"7")
    assert with_field(b"{}", ("a", "b"), True) == b'{"a":{"b":true}}'


def test_a_field_that_stands_twice_is_set_twice_also_where_its_name_is_escaped():
    assert with_field(b'{"a":1,"\\u0061":2,"b":{"a":3}}', ("a",), 9) == b'{"a":9,"\\u0061":9,"b":{"a":3}}'


def test_deep_nesting_is_no_recursion():
    body = b'{"deep":' + b"[" * 1000 + b"]" * 1000 + b',"max_tokens":5}'
    assert with_field(body, ("max_tokens",), 3) == body.replace(b":5}", b":3}")


@pytest.mark.parametrize("stated", [100, 100.0, "100"])
def test_a_bound_counts_in_every_spelling_that_a_lenient_server_takes(stated):
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample"):
        assert asked({"messages": [], name: stated}).output_tokens == 100
    for config, name in (("generationConfig", "maxOutputTokens"), ("generation_config", "max_output_tokens")):
        ask = asked({config: {name: stated, "candidateCount": 2}}, "gemini", "/v1beta/models/m:generateContent")
        assert (ask.output_tokens, ask.choices) == (200, 2)


@pytest.mark.parametrize("stated", [True, -1, 1.5, "x", None, "-5", [1], {"a": 1}, "²"])
def test_what_is_no_count_counts_as_absent(stated):
    assert asked({"messages": [], "max_tokens": stated}).output_tokens is None


def test_an_absurd_wish_is_one_for_all_there_is():
    ask = asked({"messages": [], "max_tokens": 2**62, "n": 2**62})
    assert ask.output_tokens == TOKENS_MAX


def test_choices_and_prompts_multiply_the_output():
    assert asked({"messages": [], "max_tokens": 10, "n": 3}).output_tokens == 30
    assert asked({"prompt": ["a", "b"], "max_tokens": 10, "best_of": 4}).output_tokens == 80
    assert asked({"prompt": [[1, 2], [3]], "max_tokens": 10}).output_tokens == 20
    assert asked({"prompt": [1, 2, 3], "max_tokens": 10}).output_tokens == 10


def test_the_larger_of_two_spellings_counts_and_lowering_never_raises():
    body = {"messages": [], "max_tokens": 10, "max_completion_tokens": 1000}
    ask = asked(body)
    assert ask.output_tokens == 1000
    lowered = json.loads(with_output_bound(json.dumps(body).encode(), ask, 500))
    assert (lowered["max_tokens"], lowered["max_completion_tokens"]) == (10, 500)


@pytest.mark.parametrize(
    ("dialect", "path", "body", "expected"),
    [
        ("openai", CHAT, {"model": "gpt-4o", "messages": []}, {"max_tokens": 50}),
        ("openai", CHAT, {"model": "o3", "messages": []}, {"max_completion_tokens": 50}),
        ("openai", CHAT, {"messages": [], "max_tokens": "900"}, {"max_tokens": 50}),
        ("openai", CHAT, {"messages": [], "max_tokens": -1}, {"max_tokens": 50}),
        ("openai", "/v1/responses", {"input": "x"}, {"max_output_tokens": 50}),
        ("openai", "/v1/completions", {"prompt": "x"}, {"max_tokens": 50}),
        ("anthropic", "/v1/messages", {"messages": [], "max_tokens": 900}, {"max_tokens": 50}),
        ("gemini", "/m:generateContent", {"contents": []}, {"generationConfig": {"maxOutputTokens": 50}}),
        (
            "gemini",
            "/m:generateContent",
            {"generation_config": {"max_output_tokens": 900}, "max_tokens": 5},
            {"generation_config": {"max_output_tokens": 50}, "max_tokens": 5},
        ),
        (
            "gemini",
            "/m:generateContent",
            {"generationConfig": {"topK": 1}},
            {"generationConfig": {"topK": 1, "maxOutputTokens": 50}},
        ),
    ],
)  # fmt: skip
def test_the_output_is_lowered_in_the_spelling_of_the_dialect(dialect, path, body, expected):
    ask = asked(body, dialect, path)
    assert json.loads(with_output_bound(json.dumps(body).encode(), ask, 50)) == {**body, **expected}


def test_choices_share_the_lowered_output_and_each_gets_at_least_one():
    body = {"messages": [], "n": 4, "max_tokens": 100}
    text = json.dumps(body).encode()
    assert json.loads(with_output_bound(text, asked(body), 43))["max_tokens"] == 10
    assert json.loads(with_output_bound(text, asked(body), 3))["max_tokens"] == 1


def test_pictures_count_by_piece_and_text_by_its_letters():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    ask = asked({"messages": [{"role": "user", "content": [picture]}]})
    assert (ask.media, ask.input_bytes < 500) == (1, True)
    for source in (
        {"type": "text", "media_type": "text/plain", "data": "word " * 20_000},
        {"type": "base64", "url": "data:text/plain;base64," + "A" * 100_000},
    ):
        document = asked({"messages": [{"content": [{"type": "document", "source": source}]}]}, "anthropic")
        assert (document.media, document.input_bytes > 99_000) == (0, True)


def test_embeddings_make_no_output():
    ask = asked({"input": "x", "max_tokens": 5}, path="/v1/embeddings")
    assert (ask.makes_output, ask.output_path) == (False, None)


_SPELLED = st.sampled_from(['"model"', '"mod\\u0065l"', '"n"', '"max_tokens"', '"messages"', '"other"'])
_VALUED = st.sampled_from(['"model"', "1", '{"model":1,"model":2}', '["n","n"]', '"\\"model\\""', "{}"])


@given(st.lists(st.tuples(_SPELLED, _VALUED), max_size=5))
def test_twins_are_found_as_if_every_name_was_read(fields):
    body = ("{" + ",".join(f"{name}:{value}" for name, value in fields) + "}").encode()
    names = [name for name in names_of(body) if name in ("model", "n", "max_tokens")]
    assert twin(body) == next((name for name in names if names.count(name) > 1), None)
