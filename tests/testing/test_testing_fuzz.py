"""``gatekeeper.cli.fuzz``: right meters pass, wrong ones become a file that replays."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from testing_dialects import sampled

from gatekeeper.cli.fuzz import fuzz
from gatekeeper.cli.main import main
from gatekeeper.cli.output import Unusable
from gatekeeper.config import load_gateway
from gatekeeper.testing.guessing import streams_for

ROOT = Path(__file__).resolve().parents[2]
HEADLINE = "json(sseLastData(allData)).usage.total_tokens ?? 1"
TOML = """
plans = "plans"
[upstreams.a]
url = "http://127.0.0.1:9"
auth = {{ type = "none" }}
[upstreams.xai]
url = "https://api.x.ai"
auth = {{ type = "none" }}
[[routes]]
name = "one"
path = "{path}"
upstream = "{upstream}"
dialect = "{dialect}"
meter = '''{meter}'''
{more}
"""


@pytest.fixture
def configured(tmp_path):
    """A gateway with one route."""
    (tmp_path / "plans").symlink_to(ROOT / "plans")

    def make(meter, path="/v1/chat/completions", dialect="openai", upstream="a", more=""):
        text = TOML.format(meter=meter, path=path, dialect=dialect, upstream=upstream, more=more)
        (tmp_path / "gateway.toml").write_text(text)
        return load_gateway(tmp_path / "gateway.toml", {})

    return make


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", "openai"),
        ("/v1/completions", "openai"),
        ("/v1/embeddings", "openai"),
        ("/v1/images/generations", "openai"),
        ("/v1/responses", "openai"),
        ("/api/chat", "openai"),
        ("/v1/threads/runs", "openai"),
        ("/ml/v1/text/generation_stream", "openai"),
        ("/model/m/converse-stream", "openai"),
        ("/model/m/converse", "anthropic"),
        ("/model/m/invoke-with-response-stream", "anthropic"),
        ("/v1/*", "openai"),
        ("/v1/messages", "anthropic"),
        ("/v1beta/models/{model}:streamGenerateContent", "gemini"),
        ("/v1beta/models/{model}:generateContent", "gemini"),
        ("/v1beta/models/{model}:embedContent", "gemini"),
    ],
)
def test_usage_total_is_right_on_every_route(configured, tmp_path, path, dialect):
    said = []
    gateway = configured("usage().total", path, dialect)
    assert fuzz(gateway, 0.15, tmp_path / "found", seed=1, tell=said.append) == []
    assert said[0] == "seed 1" and said[1].startswith("one meter: ok, ") and said[1].endswith("(reads total)")
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(
    ("path", "meter", "reads"),
    [
        ("/v2/rerank", "usage().requests", "reads requests"),
        ("/v1/audio/transcriptions", "usage().seconds", "reads seconds"),
        ("/v1/audio/speech", "usage().total", "reads total"),
        ("/generate_stream", "usage().output", "reads output"),
        ("/generate", "usage().output", "reads output"),
        ("/v1/predictions", "durationMs / 1000", "laws"),
        ("/v2/embed", "usage().input", "reads total"),
        ("/api/embed", "usage().total", "reads total"),
    ],
)
def test_an_endpoint_that_says_no_total_has_its_own_streams(configured, tmp_path, path, meter, reads):
    said = []
    assert fuzz(configured(meter, path), 0.15, tmp_path / "found", seed=1, tell=said.append) == []
    assert said[1].startswith("one meter: ok, ") and reads in said[1]


def test_a_binary_counter_example_replays(configured, tmp_path, capsys):
    forgets_the_cache = "last(events, .json.usage.inputTokens + .json.usage.outputTokens)"
    gateway = configured(forgets_the_cache, "/model/m/converse-stream")
    (found,) = fuzz(gateway, 20, tmp_path / "found", seed=1, tell=lambda line: None)
    assert found.file.name == "one-meter.bin" and "application/vnd.amazon.eventstream" in found.command
    assert main([*shlex.split(found.command)[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["units"] == found.got.split(",")[0]


def test_a_wrong_meter_becomes_a_file_that_replays(configured, tmp_path, capsys):
    said = []
    (found,) = fuzz(configured(HEADLINE), 20, tmp_path / "found", seed=1, tell=said.append)
    assert "WRONG" in said[1]
    assert (found.route, found.meter, found.got) == ("one", "meter", "1, default")
    assert found.expected.endswith(", measured") and found.file.name.startswith("one-meter.")
    assert found.command in found.text and HEADLINE in found.text
    assert main([*shlex.split(found.command)[1:], "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert (replayed["units"], replayed["source"]) == ("1", "default")


def test_a_weighted_meter_is_held_to_the_laws(configured, tmp_path):
    said = []
    weighted = configured("usage().input + 4 * usage().output")
    assert fuzz(weighted, 0.3, tmp_path, seed=1, tell=said.append) == []
    assert "laws, and no fallback" in said[1]


def test_a_charged_meter_that_always_falls_back_is_found(configured, tmp_path):
    gateway = configured(HEADLINE, "/v1/messages", "anthropic")
    (found,) = fuzz(gateway, 20, tmp_path / "found", seed=1, tell=lambda line: None)
    assert found.expected == "a measured figure: the response has usage"


def test_a_meter_that_errs_is_found(configured, tmp_path):
    gateway = configured("usage().total / (usage().output - 1)")
    (found,) = fuzz(gateway, 20, tmp_path / "found", seed=1, tell=lambda line: None)
    assert "error" in found.got


def test_named_meters_are_tried_too(configured, tmp_path):
    more = 'meters = { bad = "1 / (usage().output - 1)", flat = "1" }'
    # The time is shared by three meters, of which two are right and take all of theirs.
    found = fuzz(configured("usage().total", more=more), 8, tmp_path / "found", seed=1, tell=lambda line: None)
    assert [(one.meter, one.file.name) for one in found] == [("bad", "one-bad.sse")]


def test_a_meter_of_dollars_has_prices(configured, tmp_path):
    assert fuzz(configured("cost(model, usage())"), 0.2, tmp_path, seed=1, tell=lambda line: None) == []


def test_the_upstream_tells_the_vendor(configured):
    gateway = configured("usage().total", upstream="xai")
    (route,) = gateway.router.routes
    make = streams_for(route, gateway.upstreams["xai"].host)
    assert {stream.vendor for stream in sampled(make(), 10)} == {"xai"}
    assert len({stream.vendor for stream in sampled(streams_for(route)(), 120)}) > 5


def test_a_sum_that_forgets_the_reasoning_of_xai_is_found(configured, tmp_path):
    usage = "let u = last(events, e => (e.json.usage ?? e.json.x_groq.usage));"
    expression = f"{usage} (u.prompt_tokens + u.completion_tokens) ?? usage().total"
    (found,) = fuzz(configured(expression), 30, tmp_path, seed=1, tell=lambda line: None)
    assert "openai/xai" in found.text


def test_free_routes_and_unknown_endpoints_are_left_alone(configured, tmp_path):
    said = []
    assert fuzz(configured("1", more="free = true"), 0.1, tmp_path, seed=1, tell=said.append) == []
    assert said == ["seed 1"]
    assert fuzz(configured("1", "/v1/moderations"), 0.1, tmp_path, seed=1, tell=said.append) == []
    assert said[-1] == "one: no streams are known for /v1/moderations; not tried"


def test_a_seed_is_made_where_none_is_given(configured, tmp_path):
    said = []
    fuzz(configured("usage().total"), 0.05, tmp_path, tell=said.append)
    assert said[0].startswith("seed ") and said[0][5:].isdigit()


def test_without_hypothesis_it_says_what_to_install(configured, tmp_path, monkeypatch):
    gateway = configured("usage().total")
    for name in [name for name in sys.modules if name.startswith("gatekeeper.testing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(Unusable) as raised:
        fuzz(gateway, 0.1, tmp_path, seed=1, tell=lambda line: None)
    assert raised.value.hint == "pip install 'gatekeeper[testing]'"
