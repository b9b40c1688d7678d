"""README's tables and figures, one by one, against what they speak of."""

import re
import tomllib
from decimal import Decimal

import pytest
from house_files import ROOT, complain
from house_markdown import all_blocks, blocks, tables

from gatekeeper.cli.demo import ASK, charge_in_words
from gatekeeper.config import parse_gateway
from gatekeeper.config.plans import read_plan
from gatekeeper.demo.provider import expected_usage
from gatekeeper.meters import Metering, Outcome, RequestView, compile_meter
from gatekeeper.money import plain, units_text
from gatekeeper.rules.plans import Plan
from gatekeeper.web.openapi.document import documented

PAGES = ("/dashboard", "/portal", "/playground")
README = (ROOT / "README.md").read_text(encoding="utf-8")
STREAMS = ROOT / "tests" / "streams"
TYPES = {".sse": "text/event-stream", ".ndjson": "application/x-ndjson", ".json": "application/json"}
HEADLINE = "json(sseLastData(allData)).usage.total_tokens ?? 1"
# Every expression of the table: a stream of tests/streams, the units, and how sure they are.
EXPRESSIONS = [
    ("usage().total", "openai_chat_usage.sse", "15", "measured"),
    ("usage().input + 4 * usage().output", "openai_chat_usage.sse", "24", "measured"),
    (HEADLINE, "openai_chat_usage.sse", "15", "measured"),
    (HEADLINE, "openai_chat_no_usage.sse", "1", "default"),
    ("last(events, .json.usage.total_tokens)", "openai_chat_usage.sse", "15", "measured"),
    ("sum(events, .json.eval_count)", "ollama_chat.ndjson", "5", "measured"),
    ('count(events, .json.type == "content_block_delta")', "anthropic_new.sse", "1", "measured"),
    ("len(response.data)", "openai_image.json", "1", "measured"),
]


def rows(*heads: str) -> list[dict[str, str]]:
    """The rows of all tables with these columns."""
    return [row for table in tables(README) for row in table if set(heads) <= row.keys()]


def plans() -> dict[str, Plan]:
    read = {path.stem: read_plan(path.read_text("utf-8"), path.name)[0] for path in (ROOT / "plans").glob("*.toml")}
    assert None not in read.values()
    return {plan_id: plan for plan_id, plan in read.items() if plan is not None}


def test_every_expression_of_the_table_is_evaluated_here():
    shown = [row["expression"] for row in rows("expression", "reads")]
    assert shown
    assert set(shown) == {expression for expression, *_ in EXPRESSIONS}


@pytest.mark.parametrize(("expression", "name", "units", "source"), EXPRESSIONS)
def test_an_expression_of_the_table_reads_what_it_says(expression, name, units, source):
    metering = Metering({"m": compile_meter(expression)}, RequestView())
    kind = TYPES["." + name.rsplit(".", 1)[1]]
    metering.begin(200, kind, "", {"content-type": kind})
    metering.feed((STREAMS / name).read_bytes())
    reading = metering.finish(Outcome.COMPLETE)["m"]
    assert (reading.units, reading.source) == (Decimal(units), source)


def test_the_first_screen_has_the_sentence_the_commands_the_curl_and_the_charge():
    first = "\n".join(README.splitlines()[:40])
    assert "/gatekeeper demo\n" in first
    assert "/pytest\n" in first
    assert "curl -N http://127.0.0.1:8080/v1/chat/completions" in first
    starter = plans()["starter"]
    charged = charge_in_words(starter, expected_usage("openai", ASK))
    assert f"charged {charged}." in " ".join(first.split())


def test_the_curl_of_the_first_screen_is_what_the_demo_prints():
    (shown,) = [block.text for block in blocks(README, "README.md") if block.text.startswith("curl ")]
    code = (ROOT / "gatekeeper" / "cli" / "demo.py").read_text(encoding="utf-8")
    printed = re.search(r"^  (curl -N .*?)\n\n", code, re.MULTILINE | re.DOTALL)[1]
    body = '{"model": "demo-small", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    printed = printed.replace("{url}", "http://127.0.0.1:8080").replace("{key}", "gk_...").replace("\\\\", "\\")
    assert printed.replace("{json.dumps(ASK)}", body).split() == shown.split()


def test_the_table_of_plans_is_the_one_of_the_shipped_files():
    expected = []
    for plan in sorted(plans().values(), key=lambda plan: plan.monthly_price):
        cap = None if plan.quota is None else plan.quota.cap
        month = " a month" if plan.quota is not None and plan.quota.window == "month" else ""
        rate = next((rate.cap for rate in plan.rates if rate.per_ms == 60_000), None)
        beyond = "-" if cap is None else "blocked"
        if plan.overage is not None:
            assert plan.overage.per == 1
            beyond = f"${plain(plan.overage.dollars)} per token"
        expected.append(
            {
                "plan": plan.name,
                "per month": f"${plain(plan.monthly_price)}",
                "included": "unlimited" if cap is None else f"{int(units_text(cap)):,}{month}",
                "tokens per minute": "unlimited" if rate is None else f"{int(units_text(rate)):,}",
                "beyond": beyond,
            }
        )
    assert rows("plan", "beyond") == expected


def test_the_table_of_variables_is_what_the_configuration_lets_override():
    code = "".join(path.read_text("utf-8") for path in (ROOT / "gatekeeper" / "config").glob("*.py"))
    assert sorted(row["variable"] for row in rows("variable")) == sorted(
        set(re.findall(r'(?:override|_Budget)\("(\w+)"', code))
    )


def test_the_variables_of_the_shipped_file_are_named():
    example = (ROOT / "gateway.toml.example").read_text(encoding="utf-8")
    asked = re.findall(r"^[^#\n]*\$\{(\w+_API_KEY)", example, re.MULTILINE)
    assert len(asked) >= 5
    assert [name for name in asked if f"`{name}`" not in README] == []


def test_the_table_of_urls_is_what_is_served():
    # The routes are made of the operations that the document is made of; pages for people are not in it.
    served = {re.sub(r"\{\w+\}", "{id}", path) for _, path in documented()}
    shown = {path for row in rows("url", "answers") for path in re.findall(r"/[\w/{}.-]+", row["url"])}
    shown = {re.sub(r"\{\w+\}", "{id}", path) for path in shown if not path.startswith(PAGES)}
    wrong = [f"not served: {path}" for path in shown - served] + [
        f"not in README.md: {path}" for path in served - shown
    ]
    assert not wrong, complain(sorted(wrong), "README's URLs differ from those of web:")


def test_the_least_configuration_needs_no_environment():
    (text,) = [block.text for block in all_blocks() if block.text.startswith("# gateway.toml\n")]
    files = {path.name: path.read_text("utf-8") for path in (ROOT / "plans").glob("*.toml")}
    gateway = parse_gateway(text, "gateway.toml", files, {})
    assert [route.name for route in gateway.router.routes] == ["chat"]


def test_the_map_shows_the_floors_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "floors")
    (floors, *_) = [block for block in all_blocks() if block.where.startswith("gatekeeper/README.md")]
    assert [re.split(r"\s{2,}", line)[0] for line in floors.text.splitlines()] == layers


def test_the_rooms_that_the_map_speaks_of_exist():
    text = (ROOT / "gatekeeper" / "README.md").read_text(encoding="utf-8")
    spoken = set(re.findall(r"`([a-z]+/[a-z_]+)(?:\.[A-Z]\w+)?`", text))
    assert spoken
    package = ROOT / "gatekeeper"
    missing = [name for name in sorted(spoken) if not ((package / f"{name}.py").exists() or (package / name).is_dir())]
    assert not missing, complain(missing, "gatekeeper/README.md speaks of modules that do not exist:")
