"""How many tokens an input usually has: by the model's own tokenizer, where the operator has one counted.

The rule: the figure is for estimates and for what a rate is charged at first. Holds stand on the bytes, and what was
measured is settled as it was measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from gatekeeper.rules.requests import Ask
from gatekeeper.rules.texts import encoding_of, text_of

# (encoding, text) -> tokens; None: not now
Count: TypeAlias = Callable[[str, str], int | None]


def counted(ask: Ask, body: Mapping[str, Any], count: Count) -> Ask:
    """The ask with its input counted; as it was where the model's tokenizer is not known, the text is long, or not all
    of the input is text."""
    encoding = encoding_of(ask.model)
    if encoding is None or ask.media or ask.elsewhere:
        return ask
    text = text_of(body)
    return ask if not text else replace(ask, input_counted=count(encoding, text))
