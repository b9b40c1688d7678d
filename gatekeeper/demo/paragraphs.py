"""What the fake provider says: a paragraph of whole sentences, chosen by a digest of the question.

The rule: the same question and seed give the same text on every machine and in every Python version (a digest chooses,
not ``random``); the text is ASCII, so its tokens can be cut anywhere.
"""

import hashlib
from collections.abc import Iterator

SENTENCES = (
    "A river does not hurry, and yet it never arrives late.",
    "Most of what looks complicated is two simple things that nobody has told apart.",
    "The bridge held, because somebody had counted the weight before the crowd came.",
    "You can carry water in a basket, if you are willing to wait for winter.",
    "Every ledger tells a story, and the last line says whether it was true.",
    "The tea was still warm when the answer came.",
    "It is easier to keep a promise that you have written down.",
    "In the north the lamps are lit at three, and people speak more slowly.",
    "A good tool is quiet: you notice the work and not the handle.",
    "Nothing is lost as long as somebody remembers where it was put.",
    "The train stood for a minute at a station without a name.",
    "Small coins make a heavy purse.",
    "What can be measured can be argued about, which is already a kind of peace.",
    "She read the list twice, crossed out one word, and was content.",
    "The wind had turned, so the old mill began to work on its own.",
    "Ask the same question again tomorrow, and listen for what has changed.",
)

# Short enough to watch at reading speed, long enough to see that it streams.
SENTENCES_MIN = 3
SENTENCES_MAX = 6


def paragraph(question: str, seed: int) -> str:
    """Three to six sentences."""
    choices = _choices(question, seed)
    wanted = SENTENCES_MIN + next(choices) % (SENTENCES_MAX - SENTENCES_MIN + 1)
    return " ".join(SENTENCES[next(choices) % len(SENTENCES)] for _ in range(wanted))


def long_text(question: str, seed: int, length_bytes: int) -> str:
    """Text of exactly ``length_bytes`` bytes: sentences until it is full, then cut."""
    choices = _choices(question, seed)
    said: list[str] = []
    length = 0
    while length < length_bytes:
        sentence = SENTENCES[next(choices) % len(SENTENCES)] + " "
        said.append(sentence)
        length += len(sentence)
    return "".join(said)[:length_bytes]


def _choices(question: str, seed: int) -> Iterator[int]:
    """Endless bytes that only the question and the seed decide."""
    turn = 0
    while True:
        yield from hashlib.sha256(f"{seed}\n{turn}\n{question}".encode()).digest()
        turn += 1
