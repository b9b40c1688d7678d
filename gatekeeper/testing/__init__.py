"""Hypothesis strategies for authors of metering expressions: made-up provider streams that come with the truth.

    from gatekeeper.testing import assert_meters, openai_streams

    def test_our_meter():
        assert_meters("usage().total", openai_streams())

The rule: nothing here is imported by the gateway itself; it needs hypothesis (``pip install 'gatekeeper[testing]'``).
"""

import importlib.util

if importlib.util.find_spec("hypothesis") is None:
    raise ModuleNotFoundError(
        "gatekeeper.testing needs hypothesis: pip install 'gatekeeper[testing]'", name="hypothesis"
    )

from gatekeeper.testing.anthropic import anthropic_streams
from gatekeeper.testing.assistants import assistants_streams
from gatekeeper.testing.audio import speech_streams, transcription_streams
from gatekeeper.testing.bedrock import bedrock_streams
from gatekeeper.testing.checks import assert_chunking_law, assert_meters, assert_never_defaults
from gatekeeper.testing.cohere import cohere_streams
from gatekeeper.testing.everything import any_streams
from gatekeeper.testing.gemini import gemini_streams
from gatekeeper.testing.llamacpp import llamacpp_streams
from gatekeeper.testing.ollama import ollama_streams
from gatekeeper.testing.openai import openai_streams
from gatekeeper.testing.replicate import replicate_streams
from gatekeeper.testing.responses import RESPONSES_VENDORS, openai_responses_streams
from gatekeeper.testing.script import Switches
from gatekeeper.testing.single import embedding_answers, image_answers, rerank_answers
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.tgi import tgi_streams
from gatekeeper.testing.vendors import VENDORS
from gatekeeper.testing.watsonx import watsonx_streams
from gatekeeper.testing.wiring import chunkings

__all__ = [
    "RESPONSES_VENDORS",
    "VENDORS",
    "ProviderStream",
    "Switches",
    "anthropic_streams",
    "any_streams",
    "assert_chunking_law",
    "assert_meters",
    "assert_never_defaults",
    "assistants_streams",
    "bedrock_streams",
    "chunkings",
    "cohere_streams",
    "embedding_answers",
    "gemini_streams",
    "image_answers",
    "llamacpp_streams",
    "ollama_streams",
    "openai_responses_streams",
    "openai_streams",
    "replicate_streams",
    "rerank_answers",
    "speech_streams",
    "tgi_streams",
    "transcription_streams",
    "watsonx_streams",
]
