"""How the fake provider is told to go wrong: by model name (``demo-hang``) or header (``X-Demo: hang``).

The rule: all switches stand in this one table, and each says which real failure it imitates.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

HEADER = "x-demo"
_ERROR = re.compile(r"error-([45]\d\d)")


class Mode(StrEnum):
    """One way to answer. ``OK`` is the ordinary one."""

    OK = "ok"
    # An error status before any answer, as `error-429`; the number is in Behaviour.status.
    ERROR = "error"
    # HTTP 200, some text, then the dialect's error inside the stream (OpenAI, Anthropic and Gemini all do this).
    ERROR_MIDSTREAM = "error-midstream"
    # The connection breaks in the middle of the body.
    RESET = "reset"
    # Never a first byte.
    HANG = "hang"
    # Some text, then silence.
    HANG_MIDSTREAM = "hang-midstream"
    # Two seconds to the first byte, then five tokens a second.
    SLOW = "slow"
    # Never reports usage, as vLLM or Azure when unasked.
    NO_USAGE = "no-usage"
    # A proxy's HTML page in place of an answer (502).
    HTML = "html"
    # HTTP 200 and bytes that are no event stream and no JSON.
    GARBAGE = "garbage"
    # One event of more than 128 KiB: readers with a line limit lose what follows (facts of recorded streams: 100 KB).
    HUGE = "huge"
    # Compressed as the answer is made, when the caller accepts gzip (Anthropic does this).
    GZIP = "gzip"


_NAMED = {mode.value: mode for mode in Mode if mode is not Mode.ERROR}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered; ``status`` counts only for ``Mode.ERROR``."""

    mode: Mode = Mode.OK
    status: int = 500


def behaviour(model: str, header: str | None = None) -> Behaviour:
    """What the request asks for: the header first, then a model name that begins with ``demo-``."""
    asked = header if header is not None else model.removeprefix("demo-") if model.startswith("demo-") else ""
    if found := _ERROR.fullmatch(asked):
        return Behaviour(Mode.ERROR, int(found[1]))
    return Behaviour(_NAMED.get(asked, Mode.OK))
