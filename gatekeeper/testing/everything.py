"""All dialects at once.

The rule: a new dialect is added here, and every check that takes ``any_streams()`` has it.
"""

from typing import Unpack

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gatekeeper.testing.anthropic import anthropic_streams
from gatekeeper.testing.assistants import assistants_streams
from gatekeeper.testing.audio import speech_streams, transcription_streams
from gatekeeper.testing.bedrock import bedrock_streams
from gatekeeper.testing.cohere import cohere_streams
from gatekeeper.testing.gemini import gemini_streams
from gatekeeper.testing.llamacpp import llamacpp_streams
from gatekeeper.testing.ollama import ollama_streams
from gatekeeper.testing.openai import openai_streams
from gatekeeper.testing.replicate import replicate_streams
from gatekeeper.testing.responses import openai_responses_streams
from gatekeeper.testing.script import SwitchWords
from gatekeeper.testing.single import EMBEDDERS, embedding_answers, image_answers, rerank_answers
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.tgi import tgi_streams
from gatekeeper.testing.vendors import VENDORS
from gatekeeper.testing.watsonx import watsonx_streams


def any_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of every provider and endpoint that is known here. Keywords: see ``Switches``."""
    chat = openai_streams(tuple(VENDORS), **switches)
    dialects = [
        # Nine vendors behind one door: it is opened more often.
        chat,
        chat,
        chat,
        anthropic_streams(**switches),
        gemini_streams(**switches),
        openai_responses_streams(**switches),
        openai_streams(("openai", "vllm"), endpoint="completions", **switches),
        cohere_streams(**switches),
        ollama_streams(**switches),
        bedrock_streams(**switches),
        assistants_streams(**switches),
        llamacpp_streams(**switches),
        watsonx_streams(**switches),
        tgi_streams(**switches),
        transcription_streams(**switches),
        speech_streams(**switches),
    ]
    if switches.get("usage") is not True:
        dialects.append(replicate_streams(**switches))
    if switches.get("streamed") is not True:
        dialects.append(embedding_answers(EMBEDDERS, **switches))
        dialects.append(image_answers(**switches))
        dialects.append(rerank_answers(**switches))
    return st.one_of(dialects)
