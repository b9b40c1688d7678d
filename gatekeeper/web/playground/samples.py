"""The small answers that come with the playground: one of each dialect, made up by our own fake provider and our own
strategies. The rule: a sample is a file; its name says its content type."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent / "streams"
_TYPES = {
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
    ".bin": "application/vnd.amazon.eventstream",
}
# In the order in which they are offered.
_TITLES = {
    "openai-chat.sse": "OpenAI chat, streamed",
    "openai-chat.json": "OpenAI chat, one JSON answer",
    "openai-responses.sse": "OpenAI responses, streamed",
    "openai-embeddings.json": "OpenAI embeddings",
    "openai-transcription.sse": "OpenAI transcription, streamed",
    "anthropic-messages.sse": "Anthropic messages, streamed",
    "anthropic-messages.json": "Anthropic messages, one JSON answer",
    "gemini-stream.sse": "Gemini, streamed",
    "gemini-array.json": "Gemini, a JSON array in pieces",
    "mistral-chat.sse": "Mistral chat, streamed",
    "xai-chat.sse": "xAI chat, streamed",
    "bedrock-invoke.bin": "Bedrock converse, binary frames",
    "cohere-chat.sse": "Cohere chat, streamed",
    "cohere-rerank.json": "Cohere rerank",
    "llamacpp-completion.sse": "llama.cpp chat, streamed",
    "ollama-chat.ndjson": "Ollama chat, JSON lines",
    "tgi-generate.sse": "Text Generation Inference, streamed",
    "watsonx-generation.sse": "watsonx generation, streamed",
}


class Sample(NamedTuple):
    """An answer as it comes over the wire."""

    name: str
    title: str
    content_type: str
    body: bytes

    @property
    def text(self) -> str | None:
        """The body as text; None where it is none."""
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError:
            return None


@lru_cache(maxsize=1)
def samples() -> Mapping[str, Sample]:
    """All of them by name. Some 30 KB, read when they are first asked for."""
    return {
        name: Sample(name, title, _TYPES[Path(name).suffix], (FOLDER / name).read_bytes())
        for name, title in _TITLES.items()
    }
