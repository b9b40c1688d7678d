"""What a request asks for, read out of its JSON body: model, stream or not, and the bounds of what it can cost.

The rule: the input bound is a true one. A byte-level tokenizer makes at most one token of a byte, so the bytes of
the body bound the tokens of its text; media in base64 are counted by piece instead, because providers price an
image by its size in pixels and not by its letters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gatekeeper.rules.splicing import with_field

# Largest published price of one picture at default detail is below this (Anthropic, OpenAI and Gemini image docs);
# `input_tokens_max` of a route overrides it where files or server tools are used.
MEDIA_TOKENS = 4_096
# No answer has a billion tokens; a larger wish is one for all there is. It bounds every sum that is stored.
TOKENS_MAX = 10**9
_DIGITS_MAX = 20
# A base64 string shorter than this is counted as text: it costs little either way.
_MEDIA_BYTES_MIN = 1_024
_MEDIA_KEYS = frozenset({"data", "file_data", "b64_json", "image", "image_url", "url"})
_OUTPUT_NAMES = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample")
_FLAT = tuple((name,) for name in _OUTPUT_NAMES)
# Google's servers read both spellings of every field.
_GEMINI_CONFIGS = ("generationConfig", "generation_config")
_GEMINI = tuple((config, name) for config in _GEMINI_CONFIGS for name in ("maxOutputTokens", "max_output_tokens"))
# Bytes a token, from above: no tokenizer in use averages more over a whole text.
_BYTES_PER_TOKEN_MOST = 8
_BYTES_PER_TOKEN_USUAL = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request asks for.

    ``output_tokens`` is the client's own bound for the whole call (per choice times ``choices``), None if it names
    none. ``output_path`` is where that bound stands, or where one would have to be put (None: there is no such
    field); ``output_spellings`` are all the places where it may stand. ``makes_output`` is False where the answer
    holds no generated tokens (embeddings).
    """

    model: str | None = None
    streamed: bool = False
    input_bytes: int = 0
    media: int = 0
    choices: int = 1
    output_tokens: int | None = None
    output_path: tuple[str, ...] | None = None
    output_spellings: tuple[tuple[str, ...], ...] = _FLAT
    makes_output: bool = True
    wants_usage: bool = False

    def input_bound(self, input_tokens_max: int | None) -> int:
        """Most tokens that the input can be; ``input_tokens_max`` is the route's bound of what is not text."""
        if not self.media:
            return self.input_bytes
        return self.input_bytes + (input_tokens_max if input_tokens_max is not None else MEDIA_TOKENS * self.media)

    @property
    def input_usual(self) -> int:
        """A usual figure for the input in tokens: for rates, and for estimates after the fact."""
        return -(-self.input_bytes // _BYTES_PER_TOKEN_USUAL)

    @property
    def input_least(self) -> int:
        """Fewest tokens that the input can be."""
        return self.input_bytes // _BYTES_PER_TOKEN_MOST


def read_ask(dialect: str, path: str, names: Mapping[str, str], body: Mapping[str, Any], body_bytes: int) -> Ask:
    """Reads any of the dialects ``openai``, ``anthropic``, ``gemini``. Fields of a wrong type count as absent: the
    upstream is the one to complain."""
    media, media_bytes = _media(body)
    model = names.get("model") or _text(body.get("model"))
    streamed = body.get("stream") is True
    if dialect == "gemini":
        return _read_gemini(path, model, body, body_bytes - media_bytes, media)
    options = body.get("stream_options")
    choices = _bounded(max(1, _count(body.get("n")) or 1, _count(body.get("best_of")) or 1), _prompts(body))
    stated = [(name, found) for name in _OUTPUT_NAMES if (found := _count(body.get(name))) is not None]
    makes_output = not path.endswith(("/embeddings", "/moderations", "/rerank", "/count_tokens"))
    where = (stated[0][0],) if stated else _output_field(dialect, path, model, body)
    return Ask(
        model=model,
        streamed=streamed,
        input_bytes=body_bytes - media_bytes,
        media=media,
        choices=choices,
        output_tokens=_bounded(max(found for _, found in stated), choices) if stated else None,
        output_path=where if makes_output else None,
        makes_output=makes_output,
        wants_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
    )


def _read_gemini(path: str, model: str | None, body: Mapping[str, Any], text_bytes: int, media: int) -> Ask:
    used = [name for name in _GEMINI_CONFIGS if isinstance(body.get(name), Mapping)]
    counts = [(config, name) for config in used for name in ("candidateCount", "candidate_count")]
    choices = max([1, *(_count(_at(body, path)) or 1 for path in counts)])
    stated = [found for path in _GEMINI if (found := _count(_at(body, path))) is not None]
    makes_output = "embedContent" not in path and "countTokens" not in path and "batchEmbedContents" not in path
    return Ask(
        model=model,
        streamed="streamGenerateContent" in path,
        input_bytes=text_bytes,
        media=media,
        choices=choices,
        output_tokens=_bounded(max(stated), choices) if stated else None,
        output_path=((used or _GEMINI_CONFIGS)[0], "maxOutputTokens") if makes_output else None,
        output_spellings=_GEMINI,
        makes_output=makes_output,
    )


def _output_field(dialect: str, path: str, model: str | None, body: Mapping[str, Any]) -> tuple[str, ...] | None:
    if path.endswith("/responses"):
        return ("max_output_tokens",)
    if dialect == "anthropic":
        return ("max_tokens",)
    if "messages" in body:
        # OpenAI's reasoning models refuse `max_tokens`; other servers know only that.
        reasons = model is not None and model.startswith(("o1", "o3", "o4", "gpt-5"))
        return ("max_completion_tokens",) if reasons else ("max_tokens",)
    return ("max_tokens",) if "prompt" in body and "/images/" not in path else None


def with_output_bound(body: bytes, ask: Ask, output_tokens: int) -> bytes:
    """The body with its bound of output lowered to ``output_tokens`` for the whole call, in every spelling it uses;
    one that is lower already stays."""
    assert ask.output_path is not None
    bound = max(1, output_tokens // ask.choices)
    parsed = orjson.loads(body)
    stated = {path: found for path in ask.output_spellings if (found := _count(_at(parsed, path))) is not None}
    for path, found in (stated or {ask.output_path: bound}).items():
        body = with_field(body, path, min(found, bound))
    return body


def _at(parsed: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: Any = parsed
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _prompts(body: Mapping[str, Any]) -> int:
    """How many prompts one completion call carries: each of a list gets its own choices."""
    prompt = body.get("prompt")
    return len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)) else 1


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    """A number as lenient servers read it: ``100``, ``100.0`` and ``"100"`` (protobuf's JSON, pydantic). None where it
    is no count."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS_MAX:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return min(value, TOKENS_MAX)


def _bounded(tokens: int, choices: int) -> int:
    return min(tokens * choices, TOKENS_MAX)


def _media(body: Mapping[str, Any]) -> tuple[int, int]:
    """(pieces of media, bytes of their base64). An iterative walk: a hostile body may be nested deeply."""
    pieces = size = 0
    waiting: list[Any] = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            # Anthropic's plain-text document carries its text under the same name as a picture its letters.
            is_text = value.get("type") == "text"
            for key, item in value.items():
                if isinstance(item, str):
                    if is_text or item.startswith("data:text/"):
                        continue
                    if item.startswith("data:") or (key in _MEDIA_KEYS and len(item) >= _MEDIA_BYTES_MIN):
                        pieces += 1
                        size += len(item) if item.isascii() else 0
                    elif key in {"file_id", "file_uri", "fileUri", "previous_response_id"} or (
                        key in {"url", "image_url"} and item.startswith(("http:", "https:"))
                    ):
                        pieces += 1
                else:
                    waiting.append(item)
        elif isinstance(value, list):
            waiting.extend(item for item in value if isinstance(item, (dict, list)))
    return pieces, size
