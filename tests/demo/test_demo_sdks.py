"""The official clients parse every answer of the fake provider, and read the usage that was foretold."""

import asyncio

import anthropic
import openai
import pytest

from gatekeeper.demo.provider import DEMO_KEYS, expected_usage

MESSAGES = [{"role": "user", "content": "Tell me about rivers."}]


def openai_arguments(url: str) -> dict:
    return {"base_url": f"{url}/v1", "api_key": DEMO_KEYS["openai"], "max_retries": 0}


def anthropic_arguments(url: str) -> dict:
    return {"base_url": url, "api_key": DEMO_KEYS["anthropic"], "max_retries": 0}


@pytest.mark.parametrize("request_json", [{}, {"max_tokens": 5}, {"n": 3}, {"seed": 7}])
def test_openai_reads_a_chat_completion(provider_url, request_json):
    asked = {"model": "demo-small", "messages": MESSAGES, **request_json}
    with openai.OpenAI(**openai_arguments(provider_url)) as client:
        completion = client.chat.completions.create(**asked)
    expected = expected_usage("openai", asked)
    assert completion.usage.prompt_tokens == expected["input"]
    assert completion.usage.completion_tokens == expected["output"]
    assert completion.usage.total_tokens == expected["total"]
    assert len(completion.choices) == asked.get("n", 1)
    assert {choice.finish_reason for choice in completion.choices} == {"length" if "max_tokens" in asked else "stop"}


def test_openai_streams_the_same_text_as_it_answers_at_once(provider_url):
    asked = {"model": "demo-small", "messages": MESSAGES, "n": 2}
    with openai.OpenAI(**openai_arguments(provider_url)) as client:
        whole = client.chat.completions.create(**asked)
        said = ["", ""]
        usages = []
        with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
            for chunk in stream:
                for choice in chunk.choices:
                    said[choice.index] += choice.delta.content or ""
                usages.append(chunk.usage)
    assert said == [choice.message.content for choice in whole.choices]
    assert usages[-1].total_tokens == expected_usage("openai", asked)["total"]
    assert not any(usages[:-1])


def test_openai_streams_asynchronously(provider_url):
    asked = {"model": "demo-small", "messages": MESSAGES}

    async def talk() -> list:
        async with openai.AsyncOpenAI(**openai_arguments(provider_url)) as client:
            stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
            return [chunk async for chunk in stream]

    chunks = asyncio.run(talk())
    assert chunks[-1].usage.total_tokens == expected_usage("openai", asked)["total"]
    assert chunks[-2].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(("bound", "status"), [(None, "completed"), (5, "incomplete")])
def test_openai_reads_and_streams_responses(provider_url, bound, status):
    asked = {"model": "demo-small", "input": "Tell me about rivers.", "instructions": "Be brief."}
    if bound:
        asked["max_output_tokens"] = bound
    with openai.OpenAI(**openai_arguments(provider_url)) as client:
        whole = client.responses.create(**asked)
        with client.responses.create(**asked, stream=True) as stream:
            events = list(stream)
    expected = expected_usage("openai-responses", asked)
    for response in (whole, events[-1].response):
        assert response.status == status
        assert (response.usage.input_tokens, response.usage.output_tokens) == (expected["input"], expected["output"])
        assert response.usage.total_tokens == expected["total"]
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_openai_decodes_embeddings_of_both_encodings(provider_url):
    asked = {"model": "demo-small", "input": ["one text", "and another"], "dimensions": 8}
    with openai.OpenAI(**openai_arguments(provider_url)) as client:
        packed = client.embeddings.create(**asked)
        plain = client.embeddings.create(**asked, encoding_format="float")
    assert packed.usage.total_tokens == expected_usage("openai-embeddings", asked)["total"]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(number * number for number in other.embedding) == pytest.approx(1)


def test_openai_reads_pictures_and_models(provider_url):
    with openai.OpenAI(**openai_arguments(provider_url)) as client:
        pictures = client.images.generate(model="demo-small", prompt="A river", n=2)
        models = [model.id for model in client.models.list()]
    asked = {"prompt": "A river", "n": 2}
    assert len(pictures.data) == 2
    assert pictures.usage.total_tokens == expected_usage("openai-images", asked)["total"]
    assert models == ["demo-small", "demo-long"]


@pytest.mark.parametrize("bound", [5, 1000])
def test_anthropic_reads_and_streams_a_message(provider_url, bound):
    asked = {"model": "demo-small", "max_tokens": bound, "system": "Be brief.", "messages": MESSAGES}
    with anthropic.Anthropic(**anthropic_arguments(provider_url)) as client:
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            said = "".join(stream.text_stream)
            streamed = stream.get_final_message()
    expected = expected_usage("anthropic", asked)
    for message in (whole, streamed):
        assert (message.usage.input_tokens, message.usage.output_tokens) == (expected["input"], expected["output"])
        assert message.stop_reason == ("max_tokens" if bound == 5 else "end_turn")
    assert said == whole.content[0].text == streamed.content[0].text


def test_anthropic_streams_asynchronously_and_lists_models(provider_url):
    asked = {"model": "demo-small", "max_tokens": 9, "messages": MESSAGES}

    async def talk() -> tuple:
        async with anthropic.AsyncAnthropic(**anthropic_arguments(provider_url)) as client:
            async with client.messages.stream(**asked) as stream:
                message = await stream.get_final_message()
            counted = await client.messages.count_tokens(model="demo-small", messages=MESSAGES)
            return message, counted, [model.id async for model in client.models.list()]

    message, counted, models = asyncio.run(talk())
    assert message.usage.output_tokens == 9
    assert counted.input_tokens == message.usage.input_tokens == expected_usage("anthropic", asked)["input"]
    assert models == ["demo-small", "demo-long"]


def test_the_clients_raise_their_own_errors(provider_url):
    with openai.OpenAI(**openai_arguments(provider_url)) as client:
        with pytest.raises(openai.RateLimitError) as limited:
            client.chat.completions.create(model="demo-error-429", messages=MESSAGES)
        with pytest.raises(openai.APIError, match="The server had an error"):
            list(client.chat.completions.create(model="demo-error-midstream", messages=MESSAGES, stream=True))
    assert limited.value.code == "rate_limit_exceeded"
    assert limited.value.response.headers["retry-after"] == "1"
    with anthropic.Anthropic(**anthropic_arguments(provider_url)) as client:
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            client.messages.create(model="demo-error-529", max_tokens=5, messages=MESSAGES)
        with (
            pytest.raises(anthropic.APIStatusError, match="Overloaded"),
            client.messages.stream(model="demo-error-midstream", max_tokens=50, messages=MESSAGES) as stream,
        ):
            stream.get_final_message()
    assert overloaded.value.body["error"]["type"] == "overloaded_error"


def test_a_reset_in_the_middle_reaches_the_client_as_a_broken_connection(provider_url):
    with openai.OpenAI(**openai_arguments(provider_url)) as client:
        stream = client.chat.completions.create(model="demo-reset", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIConnectionError):
            list(stream)
