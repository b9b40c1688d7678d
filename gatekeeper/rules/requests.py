"""What a request asks for, read out of its JSON body: model, stream or not, and the bounds of what it can cost.

The rule: the input bound is a true one, or the ask says that it cannot be (``elsewhere``). See ``inputs``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import orjson

from gatekeeper.frozen import record
from gatekeeper.rules.inputs import Inputs, look_at
from gatekeeper.rules.splicing import names_of, with_field

# Largest published price of one picture at default detail is below this (Anthropic, OpenAI and Gemini image docs);
# `input_tokens_max` of a route overrides it where files or server tools are used.
MEDIA_TOKENS = 4_096
# No answer has a billion tokens; a larger wish is one for all there is. It bounds every sum that is stored.
TOKENS_MAX = 10**9
_DIGITS_MAX = 20
# The bound of output as OpenAI, Anthropic, TGI, llama.cpp and Ollama spell it.
_OUTPUT_NAMES = (
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "max_new_tokens",
    "n_predict",
    "num_predict",
)
# What is read here and decides about money or rights. Some servers take names in any case, some the first of twins.
_DECIDING = frozenset({"model", "stream", "n", "best_of", "background", "prompt", *_OUTPUT_NAMES})
_DECIDING_WRITTEN = tuple(f'"{name}"'.encode() for name in sorted(_DECIDING))
_MULTIPLIERS = frozenset({"n", "best_of", "prompt"})
_FLAT = tuple((name,) for name in _OUTPUT_NAMES)
# Google's servers read both spellings of every field.
_GEMINI_CONFIGS = ("generationConfig", "generation_config")
_GEMINI = tuple((config, name) for config in _GEMINI_CONFIGS for name in ("maxOutputTokens", "max_output_tokens"))
# Bytes a token, from above: no tokenizer in use averages more over a whole text.
_BYTES_PER_TOKEN_MOST = 8
_BYTES_PER_TOKEN_USUAL = 4


@record(frozen=True, slots=True)
class Ask:
    """What one request asks for.

    ``output_tokens`` is the client's own bound for the whole call (per choice times ``choices``), None if it names
    none. ``output_path`` is where that bound stands, or where one would have to be put (None: there is no such
    field); ``output_spellings`` are all the places where it may stand. ``makes_output`` is False where the answer
    holds no generated tokens (embeddings). ``elsewhere`` is how many parts of the input do not stand in the request
    (files, earlier responses, searches): nothing here bounds them. ``background`` asks for an answer that is made
    after this call has ended.
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
    elsewhere: int = 0
    background: bool = False
    # By the model's own tokenizer, where somebody counts; see ``texts``.
    input_counted: int | None = None

    def input_bound(self, input_tokens_max: int | None) -> int:
        """Most tokens that the input can be; ``input_tokens_max`` is the route's bound of what is not text."""
        pieces = self.media + self.elsewhere
        if not pieces:
            return self.input_bytes
        return self.input_bytes + (input_tokens_max if input_tokens_max is not None else MEDIA_TOKENS * pieces)

    @property
    def input_usual(self) -> int:
        """A usual figure for the input in tokens: for rates, and for estimates after the fact."""
        if self.input_counted is not None:
            return max(self.input_least, min(self.input_counted, self.input_bytes))
        return -(-self.input_bytes // _BYTES_PER_TOKEN_USUAL)

    @property
    def input_least(self) -> int:
        """Fewest tokens that the input can be."""
        return self.input_bytes // _BYTES_PER_TOKEN_MOST


def read_ask(dialect: str, path: str, names: Mapping[str, str], body: Mapping[str, Any], body_bytes: int) -> Ask:
    """Reads any of the dialects ``openai``, ``anthropic``, ``gemini``. Fields of a wrong type count as absent: the
    upstream is the one to complain."""
    inputs = look_at(body)
    model = model_of(names, body)
    if dialect == "gemini":
        return _read_gemini(path, model, body, body_bytes - inputs.media_bytes, inputs)
    options = body.get("stream_options")
    choices = 1
    if not _MULTIPLIERS.isdisjoint(body):
        choices = _bounded(max(1, _count(body.get("n")) or 1, _count(body.get("best_of")) or 1), _prompts(body))
    stated = [(name, found) for name in _OUTPUT_NAMES if name in body and (found := _count(body[name])) is not None]
    makes_output = not path.endswith(("/embeddings", "/moderations", "/rerank", "/count_tokens"))
    where = (stated[0][0],) if stated else _output_field(dialect, path, model, body)
    return Ask(
        model=model,
        streamed=_flag(body.get("stream")),
        input_bytes=body_bytes - inputs.media_bytes,
        media=inputs.media,
        elsewhere=inputs.elsewhere,
        background=_flag(body.get("background")),
        choices=choices,
        output_tokens=_bounded(max(found for _, found in stated), choices) if stated else None,
        output_path=where if makes_output else None,
        makes_output=makes_output,
        wants_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
    )


def as_model(ask: Ask, model: str, dialect: str, path: str, body: Mapping[str, Any]) -> Ask:
    """The same request to another model: its bound of output may have another name."""
    if ask.output_tokens is not None or ask.output_path is None or dialect == "gemini":
        return replace(ask, model=model)
    return replace(ask, model=model, output_path=_output_field(dialect, path, model, body))


def model_of(names: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    """The model that a request names, in its path or in its body."""
    return unquote(names["model"]) if names.get("model") else _text(body.get("model"))


def _read_gemini(path: str, model: str | None, body: Mapping[str, Any], text_bytes: int, inputs: Inputs) -> Ask:
    used = [name for name in _GEMINI_CONFIGS if isinstance(body.get(name), Mapping)]
    counts = [(config, name) for config in used for name in ("candidateCount", "candidate_count")]
    choices = max([1, *(_count(_at(body, path)) or 1 for path in counts)])
    stated = [found for path in _GEMINI if (found := _count(_at(body, path))) is not None]
    makes_output = "embedContent" not in path and "countTokens" not in path and "batchEmbedContents" not in path
    return Ask(
        model=model,
        streamed="streamGenerateContent" in path,
        input_bytes=text_bytes,
        media=inputs.media,
        elsewhere=inputs.elsewhere,
        choices=choices,
        output_tokens=_bounded(max(stated), choices) if stated else None,
        output_path=((used or _GEMINI_CONFIGS)[0], "maxOutputTokens") if makes_output else None,
        output_spellings=_GEMINI,
        makes_output=makes_output,
    )


def other_case(body: Mapping[str, Any]) -> str | None:
    """A top-level name that only differs in its case from one that decides; some servers (Go's) would read it so."""
    return next((name for name in body if name not in _DECIDING and name.lower() in _DECIDING), None)


def twin(body: bytes) -> str | None:
    """A top-level name that decides and stands twice; which of the two counts depends on the server. ``body`` is a JSON
    object."""
    # Reading the names takes a turn for every mark in it. A name without an escape that stands nowhere twice, at any
    # depth, is no twin.
    if b"\\u" not in body and all(body.count(name) < 2 for name in _DECIDING_WRITTEN):
        return None
    found = [name for name in names_of(body) if name in _DECIDING]
    return next((name for name in found if found.count(name) > 1), None)


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


def _flag(value: object) -> bool:
    """A truth as lenient servers read it (pydantic): ``true``, ``1``, ``"true"``."""
    return value in (True, "true", "True", "1")


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
