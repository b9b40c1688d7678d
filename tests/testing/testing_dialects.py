"""Every strategy once, by name, for the tests that go through all of them."""

from collections.abc import Callable
from functools import partial

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from gatekeeper import testing
from gatekeeper.testing import ProviderStream

STRATEGIES: dict[str, Callable[..., SearchStrategy[ProviderStream]]] = {
    **{name: partial(testing.openai_streams, name) for name in testing.VENDORS},
    "completions": partial(testing.openai_streams, ("openai", "vllm"), endpoint="completions"),
    "responses": testing.openai_responses_streams,
    "anthropic": testing.anthropic_streams,
    "gemini": testing.gemini_streams,
    "cohere": testing.cohere_streams,
    "ollama": testing.ollama_streams,
    "embeddings": testing.embedding_answers,
    "other embeddings": partial(testing.embedding_answers, ("cohere", "gemini", "ollama")),
    "images": testing.image_answers,
    "rerank": testing.rerank_answers,
    "transcriptions": testing.transcription_streams,
    "speech": testing.speech_streams,
    "assistants": testing.assistants_streams,
    "llamacpp": testing.llamacpp_streams,
    "watsonx": testing.watsonx_streams,
    "tgi": testing.tgi_streams,
    "replicate": testing.replicate_streams,
    "bedrock": partial(testing.bedrock_streams, "converse"),
    "bedrock invoke": partial(testing.bedrock_streams, "invoke"),
}
# Always one answer, or always a stream; a switch that asks for the other is not kept.
NEVER_STREAMED = ("embeddings", "other embeddings", "images", "rerank")
ALWAYS_STREAMED = ("bedrock invoke",)


def sampled(streams: SearchStrategy[ProviderStream], examples: int, seed_number: int = 0) -> list[ProviderStream]:
    """That many responses, the same ones every time."""
    made: list[ProviderStream] = []

    def keep(stream: ProviderStream) -> None:
        made.append(stream)

    how = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    seed(seed_number)(how(given(streams)(keep)))()
    return made
