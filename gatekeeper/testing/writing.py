"""The small things that all made-up responses share: text that models write, counts, and JSON as text.

The rule: the simplest comes first, so that a counter-example shrinks to it.
"""

import json
from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

# Text that is hard on somebody: quotes, line ends that are none, a sentinel, usage that is only talk, half an emoji.
_WORDS = (
    "Hello", " the", "\n", " caf\u00e9", "\u65e5\u672c\u8a9e", "\U0001f44b\U0001f3fd", '"', "\\", "", "}\n\n", "\u2028",
    "data: [DONE]\n\n", '"usage":{"total_tokens":1,"prompt_tokens":1}', 'event: error\ndata: {"error":{}}', "\x00",
)  # fmt: skip
_HALF_AN_EMOJI = "\ud83d"
# Events of this size pass through readers with a line limit of 64 KiB only in part.
_LONG_CHARACTERS = 70_000
_LONG_ONE_IN = 40


@cache
def words(noise: bool = True) -> SearchStrategy[list[str]]:
    """Pieces of text, as deltas carry them."""
    return st.lists(st.sampled_from((*_WORDS, _HALF_AN_EMOJI) if noise else _WORDS), min_size=1, max_size=5)


def draw_words(draw: DrawFn, noise: bool) -> list[str]:
    """The same, rarely with one delta that is very long."""
    made = draw(words(noise))
    if noise and rarely(draw, _LONG_ONE_IN):
        made.append("x" * _LONG_CHARACTERS)
    return made


@cache
def counts(least: int = 1) -> SearchStrategy[int]:
    """Numbers of tokens: mostly everyday ones."""
    return st.integers(least, 3_000) | st.integers(least, 2_000_000)


def up_to(most: int) -> SearchStrategy[int]:
    """A part of a count, from nothing of it to all."""
    return st.integers(0, most)


def rarely(draw: DrawFn, turns: int) -> bool:
    """True about once in so many turns; False is the simpler one."""
    return draw(_turns(turns)) == turns


@cache
def _turns(turns: int) -> SearchStrategy[int]:
    return st.integers(1, turns)


def as_json(value: Any, *, spaced: bool = False, ascii_only: bool = False, indented: bool = False) -> str:
    """JSON as text. What UTF-8 cannot hold (half an emoji) is escaped, whatever was asked for."""
    how: dict[str, Any] = {"indent": 2} if indented else {"separators": (", ", ": ") if spaced else (",", ":")}
    text = json.dumps(value, ensure_ascii=ascii_only, **how)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, **how)
    return text
