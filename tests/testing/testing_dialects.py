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
    "images": testing.image_answers,
}


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
