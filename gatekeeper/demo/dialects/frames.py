"""The pieces in which an answer is sent, and the framing of server-sent events (WHATWG HTML 9.2).

The rule: a frame knows how many tokens it carries, so that whoever sends it can keep a human pace.
"""

import json
from typing import Any, NamedTuple


class Frame(NamedTuple):
    """Bytes that are sent together, and how many tokens of the answer they hold."""

    payload: bytes
    tokens: int = 0


def compact(value: Any) -> str:
    """JSON without spaces, as OpenAI and Anthropic stream it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def sse(value: Any, event: str | None = None) -> bytes:
    """One event with ``\\n`` line ends; ``event`` names it."""
    named = f"event: {event}\n" if event else ""
    return f"{named}data: {compact(value)}\n\n".encode()
