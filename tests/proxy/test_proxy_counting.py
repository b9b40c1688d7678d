"""Estimates by the tokenizer of a model: what it counts, how long it may take, and what it never touches."""

import random
import time

import pytest

from gatekeeper import tokenizer
from gatekeeper.proxy.counting import counted
from gatekeeper.rules.requests import Ask
from gatekeeper.rules.texts import TEXT_BYTES_MAX

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def length(encoding: str, text: str) -> int:
    return len(text)


def test_only_what_is_all_text_for_a_known_model_is_counted():
    ask = Ask(model="gpt-4o", input_bytes=100)
    assert counted(ask, HELLO, length).input_counted == len("role\nuser\ncontent\nHello")
    for other in (
        Ask(model="claude-opus-4-1", input_bytes=100),
        Ask(model="gpt-4o", input_bytes=100, media=1),
        Ask(model="gpt-4o", input_bytes=100, elsewhere=1),
    ):
        assert counted(other, HELLO, length) is other
    assert counted(ask, {"prompt": "x" * 10_000}, length) is ask
    assert counted(ask, {}, length) is ask


@pytest.mark.skipif(not tokenizer.installed(), reason="pip install 'gatekeeper[tokenizer]'")
def test_the_tokenizer_counts_as_the_provider_publishes_and_within_milliseconds():
    tokenizer.warm()
    assert tokenizer.count("cl100k_base", "hello world") == 2
    assert tokenizer.count("o200k_base", "\N{CJK UNIFIED IDEOGRAPH-4ECA}\N{CJK UNIFIED IDEOGRAPH-5929}") == 1
    assert tokenizer.count("o200k_base", "half \ud83d a letter") > 3
    chance = random.Random(1)
    letters = "".join(chance.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(TEXT_BYTES_MAX))
    for text in (letters, "a" * TEXT_BYTES_MAX, "\N{PARTY POPPER}" * (TEXT_BYTES_MAX // 4), " " * TEXT_BYTES_MAX):
        took = []
        for _ in range(5):
            start = time.perf_counter()
            tokenizer.count("cl100k_base", text)
            took.append(time.perf_counter() - start)
        # 5 ms at most on the machine on which it was written; CI may be slower and busy.
        assert min(took) < 0.05
