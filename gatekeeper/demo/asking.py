"""What a request asks for, and the answer it gets: the part of the fake provider that every dialect shares.

The rule: pure. Both the rendered answer and the bill (``bill``) come from the one ``Answer`` made here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gatekeeper.demo import paragraphs, tokens

LONG_MODEL = "demo-long"
# Long enough to be cut by any small budget, short enough to be relayed in a test.
LONG_TOKENS = 2_000
# One call is answered from memory; these keep a mistyped number from filling it.
CHOICES_MAX = 16
INPUTS_MAX = 2_048


class Api(StrEnum):
    """The shapes of request that the fake provider answers."""

    OPENAI = "openai"
    OPENAI_RESPONSES = "openai-responses"
    OPENAI_EMBEDDINGS = "openai-embeddings"
    OPENAI_IMAGES = "openai-images"
    ANTHROPIC = "anthropic"
    ANTHROPIC_COUNT = "anthropic-count-tokens"
    GEMINI = "gemini"
    GEMINI_COUNT = "gemini-count-tokens"


class BadAsk(ValueError):
    """The request cannot be answered; the text is what the provider says in its 400."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One text, as its tokens. ``complete`` is False when the caller's bound cut it."""

    pieces: tuple[str, ...]
    complete: bool

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said and what it counts: tokens of the input, and a text for each choice asked for."""

    input_tokens: int
    choices: tuple[Choice, ...] = ()

    @property
    def output_tokens(self) -> int:
        """Tokens of all choices."""
        return sum(len(choice.pieces) for choice in self.choices)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, ready to be rendered in its dialect. ``id`` is unique within the provider."""

    api: Api
    model: str
    body: Mapping[str, Any]
    answer: Answer
    id: str
    created_s: int
    reports_usage: bool = True


def answer(api: Api, body: Mapping[str, Any], model: str = "") -> Answer:
    """The answer to a request body; ``model`` only where the body does not name it (Gemini). Raises BadAsk."""
    said = list(_texts(api, body))
    if api is Api.OPENAI_EMBEDDINGS:
        return Answer(sum(counted for counted in embedding_inputs(body)))
    input_tokens = tokens.count(said)
    if api in (Api.ANTHROPIC_COUNT, Api.GEMINI_COUNT, Api.OPENAI_IMAGES):
        return Answer(input_tokens)
    seed = _whole_number(body, "seed", default=0, least=None)
    output_max = _output_max(api, body)
    wanted = _choice_count(api, body)
    named = str(body.get("model", model))
    return Answer(
        input_tokens, tuple(_choice("".join(said), seed + index, output_max, named) for index in range(wanted))
    )


def embedding_inputs(body: Mapping[str, Any]) -> list[int]:
    """Tokens of each input of an embeddings request: a text, a list of texts, one or many lists of token numbers."""
    given = body.get("input")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not given:
        raise BadAsk("'input' must be a text or a list that is not empty.")
    if len(given) > INPUTS_MAX:
        raise BadAsk(f"'input' may hold at most {INPUTS_MAX} entries.")
    if all(isinstance(entry, int) for entry in given):
        return [len(given)]
    return [tokens.count([entry]) if isinstance(entry, str) else len(_list(entry, "input")) for entry in given]


def _choice(question: str, seed: int, output_max: int | None, model: str) -> Choice:
    if model == LONG_MODEL:
        natural = paragraphs.long_text(question, seed, LONG_TOKENS * tokens.BYTES_A_TOKEN)
    else:
        natural = paragraphs.paragraph(question, seed)
    said = tokens.pieces(natural)
    if output_max is None or len(said) <= output_max:
        return Choice(said, complete=True)
    return Choice(said[:output_max], complete=False)


def _output_max(api: Api, body: Mapping[str, Any]) -> int | None:
    """The caller's bound on one text. OpenAI's newer spelling wins; Anthropic requires one."""
    match api:
        case Api.OPENAI:
            newer = _whole_number(body, "max_completion_tokens", default=0, least=1)
            return newer or _whole_number(body, "max_tokens", default=0, least=1) or None
        case Api.OPENAI_RESPONSES:
            return _whole_number(body, "max_output_tokens", default=0, least=1) or None
        case Api.ANTHROPIC:
            if "max_tokens" not in body:
                raise BadAsk("max_tokens: Field required")
            return _whole_number(body, "max_tokens", default=1, least=1)
        case _:
            return _whole_number(_settings(body), "maxOutputTokens", default=0, least=1) or None


def _choice_count(api: Api, body: Mapping[str, Any]) -> int:
    asked = 1
    if api is Api.OPENAI:
        asked = _whole_number(body, "n", default=1, least=1)
    if api is Api.GEMINI:
        asked = _whole_number(_settings(body), "candidateCount", default=1, least=1)
    if asked > CHOICES_MAX:
        raise BadAsk(f"At most {CHOICES_MAX} choices can be asked for.")
    return asked


def _settings(body: Mapping[str, Any]) -> Mapping[str, Any]:
    found = body.get("generationConfig")
    return found if isinstance(found, Mapping) else {}


def _whole_number(body: Mapping[str, Any], name: str, *, default: int, least: int | None) -> int:
    found = body.get(name)
    if found is None:
        return default
    if isinstance(found, bool) or not isinstance(found, int) or (least is not None and found < least):
        raise BadAsk(f"'{name}' must be a whole number{'' if least is None else f' of at least {least}'}.")
    return found


def _texts(api: Api, body: Mapping[str, Any]) -> Iterator[str]:
    """Every text of the input, in order: what is counted as input tokens. Anything but text counts nothing."""
    match api:
        case Api.OPENAI:
            yield from _messages(_list(body.get("messages"), "messages"))
        case Api.ANTHROPIC | Api.ANTHROPIC_COUNT:
            yield from _content(body.get("system"))
            yield from _messages(_list(body.get("messages"), "messages"))
        case Api.OPENAI_RESPONSES:
            yield from _content(body.get("instructions"))
            given = body.get("input")
            yield from _content(given) if isinstance(given, str) else _messages(_list(given, "input"))
        case Api.OPENAI_IMAGES:
            yield from _content(body.get("prompt"))
        case Api.GEMINI | Api.GEMINI_COUNT:
            for name in ("systemInstruction", "system_instruction"):
                yield from _gemini_content(body.get(name))
            for turn in _list(body.get("contents"), "contents"):
                yield from _gemini_content(turn)
        case Api.OPENAI_EMBEDDINGS:
            return


def _messages(messages: Sequence[Any]) -> Iterator[str]:
    for message in messages:
        if isinstance(message, Mapping):
            yield from _content(message.get("content"))


def _content(content: Any) -> Iterator[str]:
    """A text, or parts of which those with a ``text`` count."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                yield part["text"]


def _gemini_content(content: Any) -> Iterator[str]:
    if isinstance(content, Mapping):
        yield from _content(content.get("parts"))


def _list(found: Any, name: str) -> Sequence[Any]:
    if not isinstance(found, list) or not found:
        raise BadAsk(f"'{name}' must be a list that is not empty.")
    return found
