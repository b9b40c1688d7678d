"""The text of a request as a tokenizer reads it, and which tokenizer its model has. Pure: who counts is handed in.

The rule: it is for estimates. No count of ours bounds what a provider makes of a request: it writes the roles and the
tools its own way, and puts instructions before them that nobody sees. Bounds stay the bytes (see ``inputs``).
"""

import re
from collections.abc import Mapping
from typing import Any

# Of the slowest texts (long words of random letters) this takes 5 ms, of prose a tenth of that.
TEXT_BYTES_MAX = 8_192
# What of a body is read by the model, in the dialects of OpenAI (chat, completions, responses, embeddings) and others.
_READ = ("instructions", "system", "prompt", "messages", "input", "tools", "functions", "response_format", "text")
# Published by OpenAI with tiktoken (its ``model.py``): the newest models first, `gpt-4o` before `gpt-4`.
_O200K = re.compile(r"(?:chatgpt-4o|gpt-4o|gpt-4\.1|gpt-4\.5|gpt-5|gpt-oss|o1|o3|o4|codex-mini)(?:[-.@:].*)?")
_CL100K = re.compile(r"(?:gpt-4|gpt-3\.5|gpt-35|text-embedding-3|text-embedding-ada-002)(?:[-.@:].*)?")


def encoding_of(model: str | None) -> str | None:
    """The public tokenizer of a model by its name, ``o200k_base`` or ``cl100k_base``; None: not known."""
    if model is None:
        return None
    # As routers and fine-tunings name them: openai/gpt-4o, ft:gpt-4o-mini:acme::1.
    name = model.lower().removeprefix("ft:").rpartition("/")[2]
    if _O200K.fullmatch(name):
        return "o200k_base"
    return "cl100k_base" if _CL100K.fullmatch(name) else None


def text_of(body: Mapping[str, Any]) -> str | None:
    """What the model reads: names and texts, a line each, which stands for the marks around each message. None where
    that is more than TEXT_BYTES_MAX."""
    found: list[str] = []
    size = 0
    waiting: list[Any] = [body[name] for name in reversed(_READ) if name in body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += len(value) + 1
            if size > TEXT_BYTES_MAX:
                return None
            found.append(value)
        elif isinstance(value, Mapping):
            for name, item in reversed(list(value.items())):
                waiting += (item, name)
        elif isinstance(value, list):
            waiting += reversed(value)
    text = "\n".join(found)
    return text if len(text.encode("utf-8", "replace")) <= TEXT_BYTES_MAX else None
