"""What of an input is not text: pictures and sound in base64, and what stands somewhere else.

The rule: a byte-level tokenizer makes at most one token of a byte, so the bytes of the body bound the tokens of its
text. Media are counted by piece instead, because providers price a picture by its pixels and not by its letters; but
only what says that it is media AND is base64. What looks like it and is text counts as text.
"""

import re
from collections.abc import Mapping
from typing import Any

from gatekeeper.frozen import record

# A base64 string shorter than this is counted as text: it costs little either way.
_MEDIA_LETTERS_MIN = 1_024
_BASE64 = re.compile(r"[A-Za-z0-9+/_\r\n-]+={0,2}[\r\n]*")
_DATA_URL = re.compile(r"data:(?!text/|application/json)[^,;]{0,100}(?:;[^,;]{0,100})*;base64,", re.IGNORECASE)
# Where the kind of the data beside is written: Anthropic, Gemini (both spellings), OpenAI's sound.
_KIND_KEYS = ("media_type", "mime_type", "mimeType", "format")
_KINDS = frozenset(_KIND_KEYS)
_MEDIA_KIND = re.compile(r"(?:image|audio|video)/.*|application/pdf|wav|mp3|pcm16|flac|opus|ogg", re.IGNORECASE)
_DATA_KEYS = frozenset({"data", "file_data"})
_URL_KEYS = frozenset({"url", "image_url"})
# What is named here is read by the provider and nowhere in the request.
_REFERENCES = frozenset(
    {"file_id", "file_ids", "file_uri", "fileUri", "file_url", "previous_response_id", "conversation", "cachedContent",
     "cached_content", "vector_store_ids", "container"}
)  # fmt: skip
# Tools that run at the provider and put what they find into the input.
_SERVER_TOOL = re.compile(
    r"web_search|file_search|code_interpreter|code_execution|computer|mcp|web_fetch|google_?search|url_?context|retrieval",
    re.IGNORECASE,
)
_SERVER_TOOL_KEYS = frozenset({"googleSearch", "google_search", "urlContext", "url_context", "codeExecution"})


@record(frozen=True, slots=True)
class Inputs:
    """``media`` pieces with ``media_bytes`` bytes of base64 in the body; ``elsewhere`` parts that are not in it."""

    media: int = 0
    media_bytes: int = 0
    elsewhere: int = 0


def look_at(body: Mapping[str, Any]) -> Inputs:
    """Looks through a request. An iterative walk: a hostile body may be nested deeply."""
    media = size = elsewhere = 0
    # A stored prompt is named by its id, where a legacy completion has a text.
    if isinstance(body.get("prompt"), Mapping):
        elsewhere += 1
    tools = body.get("tools")
    elsewhere += sum(map(_runs_there, tools)) if isinstance(tools, list) else 0
    waiting: list[Any] = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += [item for item in value if isinstance(item, (dict, list))]
            continue
        is_media = not _KINDS.isdisjoint(value) and any(
            isinstance(kind := value.get(key), str) and _MEDIA_KIND.fullmatch(kind) for key in _KIND_KEYS
        )
        for key, item in value.items():
            if key in _REFERENCES and item:
                elsewhere += 1
            elif isinstance(item, str):
                letters = _media_letters(key, item, is_media)
                media, size = media + (letters is not None), size + (letters or 0)
            elif isinstance(item, (dict, list)):
                waiting.append(item)
    return Inputs(media, size, elsewhere)


def _media_letters(key: str, text: str, is_media: bool) -> int | None:
    """How many letters of base64 a text is, if it is media; 0 for a picture that is only named."""
    if key in _URL_KEYS and text[:8].lower().startswith(("http:", "https:")):
        return 0
    if len(text) < _MEDIA_LETTERS_MIN:
        return 0 if text[:5].lower() == "data:" and _DATA_URL.match(text) else None
    start = 0
    if found := _DATA_URL.match(text):
        start = found.end()
    elif not (is_media and key in _DATA_KEYS):
        return None
    return len(text) if _BASE64.fullmatch(text, start) else None


def _runs_there(tool: object) -> bool:
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    return (isinstance(kind, str) and _SERVER_TOOL.match(kind) is not None) or not _SERVER_TOOL_KEYS.isdisjoint(tool)
