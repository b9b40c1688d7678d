"""The fake provider's tokenizer: one token for every 4 bytes of UTF-8, rounded up.

The rule: it is simple enough to be done by hand, so a reader can check a bill. (About four bytes of English a token is
also what real tokenizers come to; nothing depends on that.)
"""

from collections.abc import Iterable

BYTES_A_TOKEN = 4


def count(texts: Iterable[str]) -> int:
    """Tokens of all texts put end to end; no text at all is 0 tokens."""
    total_bytes = sum(len(text.encode()) for text in texts)
    return -(-total_bytes // BYTES_A_TOKEN)


def pieces(text: str) -> tuple[str, ...]:
    """The text cut into its tokens, in order. Only for ASCII, where no cut can fall inside a character."""
    assert text.isascii(), text
    return tuple(text[start : start + BYTES_A_TOKEN] for start in range(0, len(text), BYTES_A_TOKEN))
