"""The one-line checks: they pass what is right, and show what is wrong as small as it goes."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields

import pytest

from gatekeeper.cli.main import main
from gatekeeper.diagnostics import Mistakes
from gatekeeper.meters import RequestView, compile_meter
from gatekeeper.testing import (
    ProviderStream,
    anthropic_streams,
    any_streams,
    assert_chunking_law,
    assert_meters,
    assert_never_defaults,
    assistants_streams,
    bedrock_streams,
    cohere_streams,
    gemini_streams,
    llamacpp_streams,
    ollama_streams,
    openai_responses_streams,
    openai_streams,
    watsonx_streams,
)

HEADLINE = "json(sseLastData(allData)).usage.total_tokens"
# Ways to be wrong that have cost somebody money, and the streams that show it.
WRONG = {
    "the last data may say nothing": (HEADLINE, openai_streams()),
    "a default is no measurement": (f"{HEADLINE} ?? 1", openai_streams()),
    "Groq hides it": ("last(events, .json.usage.total_tokens)", openai_streams("groq")),
    "cumulative usage is not summed": ("sum(events, .json.usage.total_tokens)", openai_streams("perplexity")),
    "continuous usage is not summed": ("sum(events, .json.usage.total_tokens)", openai_streams("vllm")),
    "reasoning stands outside": (
        "last(events, .json.usage.prompt_tokens) + last(events, .json.usage.completion_tokens)", openai_streams("xai")
    ),
    "start and delta are not added": (
        "let a = merge(events, e => e.json.message.usage); let b = merge(events, e => e.json.usage);"
        " (a.input_tokens ?? 0) + (b.input_tokens ?? 0) + b.output_tokens", anthropic_streams(streamed=True)
    ),
    "the last total counts, not the largest": ("max(events, .json.usageMetadata.totalTokenCount)", gemini_streams()),
    "not only response.completed": (
        'last(filter(events, e => e.json.type == "response.completed"), .json.response.usage.total_tokens)',
        openai_responses_streams(streamed=True),
    ),
    "billed units are another count": (
        "last(events, .json.delta.usage.billed_units.input_tokens)"
        " + last(events, .json.delta.usage.billed_units.output_tokens)",
        cohere_streams(streamed=True),
    ),
    "a cached prompt has no count": (
        "last(events, .json.prompt_eval_count) + last(events, .json.eval_count)", ollama_streams()
    ),
    "the steps of a run are in the run": ("sum(events, .json.usage.total_tokens)", assistants_streams()),
    "Amazon leaves the cache out": (
        "last(events, .json.usage.inputTokens + .json.usage.outputTokens)", bedrock_streams("converse")
    ),
    "the first event has the input": (
        "last(events, .json.results[0].input_token_count + .json.results[0].generated_token_count)", watsonx_streams()
    ),
    "the timings leave the cache out": (
        "last(events, .json.timings.prompt_n + .json.timings.predicted_n)", llamacpp_streams(usage=True)
    ),
    "a flat price is no measured total": ("1", any_streams()),
}  # fmt: skip


def complaint_of(check, *arguments, **how):
    with pytest.raises(AssertionError) as raised:
        check(*arguments, **how)
    return str(raised.value)


@pytest.mark.parametrize("name", WRONG)
def test_a_meter_that_is_wrong_is_found_and_replays_to_what_it_read(name, tmp_path, capsys):
    expression, streams = WRONG[name]
    # What a seed makes depends on what else is loaded; the search ends at the first that is found.
    said = complaint_of(assert_meters, expression, streams, examples=3_000, save_to=tmp_path / "found")
    assert f"meter     {expression}" in said and "expected" in said and "--- the stream" in said
    command = re.search(r"^  replay    (.*)$", said, re.MULTILINE).group(1)
    read = re.search(r"^  read      (\S+), (\w+)", said, re.MULTILINE)
    program, *arguments = shlex.split(command)
    assert program == "gatekeeper" and main([*arguments, "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert (replayed["units"] or "nothing", replayed["source"]) == read.groups(), command
    assert len(list(tmp_path.glob("found.*"))) == 1


@pytest.mark.parametrize(
    ("reads", "expression"),
    [
        ("total", "usage().total"),
        ("output", "usage().output"),
        ("cached_input", "usage().cached_input"),
        (lambda usage: usage["input"] + 4 * usage["output"], "usage().input + 4 * usage().output"),
        (lambda usage: usage["total"] or None, "usage().total"),
    ],
)
def test_a_meter_that_is_right_passes(reads, expression):
    assert_meters(expression, any_streams(), reads=reads, examples=40)


def test_a_compiled_meter_is_taken_too():
    assert_meters(compile_meter("usage().total ?? 1"), openai_streams(), examples=50)


def test_a_wrong_expression_is_a_mistake_and_no_counter_example():
    with pytest.raises(Mistakes, match="usag"):
        assert_meters("usag().total", openai_streams())


def test_a_function_that_is_wrong_is_not_hidden():
    with pytest.raises(TypeError):
        assert_meters("usage().total", openai_streams(usage=True, cuts=False), reads=lambda usage: usage["total"] + "1")


def test_a_counter_example_is_as_small_as_it_goes():
    said = complaint_of(assert_meters, "usage().total + 1", openai_streams(usage=True))
    assert "expected  2, measured" in said and "read      3, measured" in said and "whole" in said
    assert said.count("data: ") == 4, said
    assert "it says   input 1, output 1, total 2" in said


def test_a_name_that_has_its_suffix_keeps_it(tmp_path):
    complaint_of(assert_meters, "1", openai_streams(usage=True, streamed=True), save_to=str(tmp_path / "a" / "b.sse"))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.sse"]


def test_a_replay_names_what_the_file_cannot():
    stream = ProviderStream(
        "x", "x", b"", b"", "application/stream+json", "br", None, True, status=429, outcome="cut"
    )  # fmt: skip
    assert stream.replay_command("a 'b'", "x.ndjson", 7).endswith(
        "--stream x.ndjson --content-type application/stream+json --content-encoding br --status 429"
        " --outcome cut --chunk 7"
    )
    assert stream.suffix == ".ndjson"


def test_the_chunking_law_holds():
    assert_chunking_law("count(events) + len(allData)", any_streams(), examples=60)


def test_a_broken_chunking_law_would_be_seen():
    """No expression can break it, so here is a stream whose pieces are not its body."""

    class Torn(ProviderStream):
        def pieces(self, sizes=()):
            return super().pieces(sizes)[: 2 if sizes else None]

    def torn(stream):
        return Torn(**{field.name: getattr(stream, field.name) for field in fields(stream)})

    said = complaint_of(assert_chunking_law, "usage().total", openai_streams(usage=True, encodings=False).map(torn))
    assert "as for the response in one piece" in said and "in pieces of" in said


def test_a_fallback_where_there_is_usage_is_found():
    assert_never_defaults("usage().total", any_streams(), examples=100)
    said = complaint_of(assert_never_defaults, f"{HEADLINE} ?? 1", openai_streams("groq"))
    assert "read      1, default" in said
    assert_never_defaults(f"{HEADLINE} ?? 1", openai_streams(usage=False), examples=40)


def test_the_request_reaches_the_meter():
    body = b'{"n": 3}'
    view = RequestView(body=body, request_bytes=len(body))
    triple = {"reads": lambda usage: 3 * usage["total"], "examples": 30}
    assert_meters("request.n * usage().total", openai_streams(), request=view, **triple)
    complaint_of(assert_meters, "request.n * usage().total", openai_streams(), **triple)


def test_another_seed_tries_other_streams():
    def tried(seed):
        seen = []
        assert_meters(
            "usage().total", openai_streams().map(lambda stream: seen.append(stream) or stream), seed=seed, examples=20
        )
        return seen

    assert tried(1) == tried(1) != tried(2)
    assert tried(None) == tried(0)


def test_without_hypothesis_the_import_says_what_to_install():
    script = "import sys; sys.modules['hypothesis'] = None; import gatekeeper.testing"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("gatekeeper.testing needs hypothesis: pip install 'gatekeeper[testing]'")
