"""The fake provider's bill can be foretold, and its answers never change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.demo import paragraphs, tokens
from gatekeeper.demo.asking import Api, BadAsk, answer
from gatekeeper.demo.bill import expected_usage

HELLO = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [([], 0), ([""], 0), (["a"], 1), (["abcd"], 1), (["Hello"], 2), (["ab", "cd"], 1), (["éé"], 1), (["日本"], 2)],
)
def test_a_token_is_four_bytes_rounded_up(texts, expected):
    assert tokens.count(texts) == expected


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_the_pieces_of_a_text_are_its_tokens(text):
    assert "".join(tokens.pieces(text)) == text
    assert len(tokens.pieces(text)) == tokens.count([text])


def test_the_same_question_is_answered_alike_on_every_machine():
    assert paragraphs.paragraph("Hello", 0) == (
        "It is easier to keep a promise that you have written down. "
        "The bridge held, because somebody had counted the weight before the crowd came. "
        "A river does not hurry, and yet it never arrives late."
    )


def test_another_seed_gives_another_answer():
    assert len({paragraphs.paragraph("Hello", seed) for seed in range(5)}) > 1


def test_hello_costs_two_tokens_of_input_and_the_length_of_its_answer():
    output = tokens.count([paragraphs.paragraph("Hello", 0)])
    assert expected_usage("openai", HELLO) == {"input": 2, "output": output, "total": 2 + output}


@given(st.integers(1, 200), st.integers(1, 4))
def test_max_tokens_bounds_every_choice(bound, wanted):
    said = answer(Api.OPENAI, {**HELLO, "max_tokens": bound, "n": wanted})
    assert len(said.choices) == wanted
    assert all(len(choice.pieces) <= bound for choice in said.choices)
    assert all(choice.complete or len(choice.pieces) == bound for choice in said.choices)


def test_the_newer_spelling_of_max_tokens_wins():
    assert expected_usage("openai", {**HELLO, "max_tokens": 9, "max_completion_tokens": 4})["output"] == 4


def test_the_long_model_says_two_thousand_tokens():
    assert expected_usage("openai", {**HELLO, "model": "demo-long"})["output"] == 2_000


def test_all_texts_of_a_request_count_as_input_and_nothing_else_does():
    parts = [{"type": "text", "text": "abcd"}, {"type": "image", "source": {"data": "xxxxxxxxxxxxxxxx"}}]
    request = {"system": "efgh", "max_tokens": 5, "messages": [{"role": "user", "content": parts}]}
    assert expected_usage("anthropic", request) == {"input": 2, "output": 5, "total": 7}


def test_counting_tokens_is_free():
    assert expected_usage("anthropic-count-tokens", HELLO)["total"] == 0


@pytest.mark.parametrize(
    ("dialect", "request_json", "said"),
    [
        ("openai", {"model": "m"}, "'messages' must be a list"),
        ("openai", {**HELLO, "n": 0}, "'n' must be a whole number of at least 1"),
        ("openai", {**HELLO, "n": 99}, "At most 16 choices"),
        ("openai", {**HELLO, "max_tokens": "9"}, "'max_tokens' must be a whole number"),
        ("anthropic", HELLO, "max_tokens: Field required"),
        ("gemini", {"contents": []}, "'contents' must be a list"),
        ("openai-embeddings", {"input": []}, "'input' must be a text or a list"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(dialect, request_json, said):
    with pytest.raises(BadAsk, match=said):
        expected_usage(dialect, request_json)


@pytest.mark.parametrize(
    ("given_input", "expected"), [("Hello", 2), (["Hello", "abcd"], 3), ([11, 12, 13], 3), ([[1, 2], [3]], 3)]
)
def test_embeddings_bill_texts_by_their_bytes_and_numbers_one_by_one(given_input, expected):
    usage = expected_usage("openai-embeddings", {"model": "m", "input": given_input})
    assert usage == {"input": expected, "output": 0, "total": expected}
