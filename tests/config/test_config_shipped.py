"""The files that are shipped: they load, say what they promise, and teach nothing that does not work."""

import re
import shutil
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from gatekeeper.config.gateway import AuthKind, Dialect, Gateway, RouteExample, Variable
from gatekeeper.config.read import load_gateway
from gatekeeper.diagnostics import Mistakes
from gatekeeper.meters import Mark, Meter, Metering, Outcome, Reading, RequestView
from gatekeeper.money import MICRO_PER_UNIT, NANO_PER_DOLLAR
from gatekeeper.rules.limits import Mode, Window
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.routing import Match

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "gateway.toml.example"
KEYS = {
    "OPENAI_API_KEY": "sk-openai",
    "ANTHROPIC_API_KEY": "sk-anthropic",
    "GEMINI_API_KEY": "AIza",
    "MISTRAL_API_KEY": "mistral",
    "ADMIN_API_KEY": "admin",
}
# What only the commented tables read.
SECRETS = {"WEBHOOK_SECRET": "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "SMTP_PASSWORD": "mail"}


def installed(directory: Path, text: str | None = None, env: Mapping[str, str] = KEYS) -> Gateway:
    shutil.copytree(ROOT / "plans", directory / "plans", dirs_exist_ok=True)
    path = directory / "gateway.toml"
    path.write_text(EXAMPLE.read_text(encoding="utf-8") if text is None else text, encoding="utf-8")
    return load_gateway(path, env)


def test_the_example_starts_without_any_key_and_warns_of_each(tmp_path: Path) -> None:
    gateway = installed(tmp_path, env={})
    assert {upstream.auth.kind for upstream in gateway.upstreams.values()} == {AuthKind.NONE}
    assert sum("is empty" in warning.message for warning in gateway.warnings) == 4
    assert gateway.admin_key is None
    assert gateway.server.host == "127.0.0.1"


def test_the_example_with_keys_only_warns_of_the_price_of_starter(tmp_path: Path) -> None:
    gateway = installed(tmp_path)
    (warning,) = gateway.warnings
    assert "cost $1829 on 'starter' and $99 on the next plan, 'pro'" in warning.message


@pytest.mark.parametrize(
    ("path", "upstream", "dialect", "free"),
    [
        ("/v1/chat/completions", "openai", Dialect.OPENAI, False),
        ("/v1/embeddings", "openai", Dialect.OPENAI, False),
        ("/v1/images/generations", "openai", Dialect.OPENAI, False),
        ("/v1/responses", "openai", Dialect.OPENAI, False),
        ("/v1/messages", "anthropic", Dialect.ANTHROPIC, False),
        ("/v1/messages/count_tokens", "anthropic", Dialect.ANTHROPIC, True),
        ("/v1beta/models/gemini-2.5-pro:generateContent", "google", Dialect.GEMINI, False),
        ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", "google", Dialect.GEMINI, False),
        ("/v1beta/models/gemini-2.5-pro:countTokens", "google", Dialect.GEMINI, True),
        ("/mistral/v1/chat/completions", "mistral", Dialect.OPENAI, False),
        ("/mistral/v1/embeddings", "mistral", Dialect.OPENAI, False),
        ("/local/v1/chat/completions", "local", Dialect.OPENAI, False),
    ],
)
def test_each_provider_is_reached_by_its_path(
    tmp_path: Path, path: str, upstream: str, dialect: Dialect, free: bool
) -> None:
    match = installed(tmp_path).router.find(path.encode(), "POST")
    assert isinstance(match, Match)
    route = match.route
    assert (route.upstream, route.dialect, route.free) == (upstream, dialect, free)
    assert {header.value for header in route.set_headers} == {Variable.USER_ID, Variable.PLAN_ID}


def test_each_upstream_gets_its_key_where_its_provider_wants_it(tmp_path: Path) -> None:
    upstreams = installed(tmp_path).upstreams
    found = {name: (each.auth.kind.value, each.auth.name) for name, each in upstreams.items()}
    assert found == {
        "openai": ("bearer", ""),
        "anthropic": ("header", "x-api-key"),
        "google": ("query", "key"),
        "mistral": ("bearer", ""),
        "local": ("none", ""),
    }
    secrets = {name: each.auth.secret.reveal() for name, each in upstreams.items() if each.auth.secret is not None}
    assert secrets == {"openai": "sk-openai", "anthropic": "sk-anthropic", "google": "AIza", "mistral": "mistral"}


def commented_tables(lines: list[str]) -> list[range]:
    """Where whole tables stand in comments: from ``# [[name]]`` (or ``# [mail]``) to the last comment line after it."""
    starts = [number for number, line in enumerate(lines) if re.fullmatch(r"# \[(?:\[[a-z._]+\]|mail)\]", line)]
    plain = [number for number, line in enumerate(lines) if not line.startswith("#")]
    return [range(start, min(number for number in plain if number > start)) for start in starts]


def test_all_commented_tables_of_the_example_load_when_they_are_taken_in(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").split("\n")
    tables = commented_tables(lines)
    assert len(tables) == 12
    inside = {number for table in tables for number in table}
    text = "\n".join(line.removeprefix("# ") if number in inside else line for number, line in enumerate(lines))
    gateway = installed(tmp_path, text, KEYS | SECRETS)
    assert [each.limit.name for each in gateway.limits] == [
        "user-dollars-day",
        "user-acme-alice-dollars-day",
        "user-model-each-gpt-4o-requests-day",
        "customer-dollars-day",
        "key-units-images-month",
        "customer-dollars-month",
    ]
    assert [each.subscription.target for each in gateway.notifications] == ["books", "customers", "(alerts)"]
    assert [each.limit.name for each in gateway.rates] == ["agent-requests-per-minute"]
    assert [each.pattern for each in gateway.prices] == ["gpt-4o*", "*"]
    assert gateway.usage_shapes[0].name == "acme"


def test_every_commented_setting_of_the_example_loads_when_it_is_taken_in(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    lines = text.split("\n")
    whole = {number for table in commented_tables(lines) for number in table}
    commented = [number for number, line in enumerate(lines) if re.match(r"# [a-z_]+ = ", line) and number not in whole]
    assert len(commented) >= 15
    for number in commented:
        setting = lines[number].removeprefix("# ")
        key = setting.split(" = ")[0]
        # The setting takes the place of an active one of its name in the same table.
        table = max(at for at in range(number) if lines[at].startswith("["))
        kept = [
            line for at, line in enumerate(lines) if not (at > table and at < number and line.startswith(f"{key} = "))
        ]
        loaded = "\n".join(setting if line == lines[number] else line for line in kept)
        if key == "mode":
            loaded = loaded.replace('# customer = "local"', 'customer = "local"')
        if key == "customer":
            loaded = loaded.replace('# mode = "none"', 'mode = "none"')
        if key in ("proxy", "http2"):
            loaded = loaded.replace('# transport = "httpx"', 'transport = "httpx"')
        if key == "tls":
            loaded = loaded.replace("http://127.0.0.1:11434", "https://127.0.0.1:11434")
        try:
            installed(tmp_path, loaded)
        except Mistakes as mistakes:
            raise AssertionError(f"{setting}\n{mistakes.render()}") from None


def test_the_compatible_form_of_the_meter_stands_in_the_example_word_for_word() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert '# meter = "json(sseLastData(allData)).usage.total_tokens ?? 1"' in text
    assert text.count('\nmeter = "usage().total"') == 1


def measured(meter: Meter, example: RouteExample) -> Reading:
    metering = Metering({"meter": meter}, RequestView(method="POST"))
    metering.begin(example.status, example.content_type, "", {})
    metering.feed(example.body or b"")
    return metering.finish(Outcome.COMPLETE)["meter"]


def test_the_examples_of_the_shipped_routes_hold(tmp_path: Path) -> None:
    routes = [route for route in installed(tmp_path).router.routes if route.examples]
    assert [route.name for route in routes] == ["chat", "messages"]
    for route in routes:
        for example in route.examples:
            reading = measured(route.meter, example)
            assert (reading.units, reading.source) == (example.units, Mark.MEASURED)


def test_the_compatible_form_measures_the_same_on_the_shipped_stream(tmp_path: Path) -> None:
    active, compatible = 'meter = "usage().total"', '# meter = "json(sseLastData(allData)).usage.total_tokens ?? 1"'
    text = EXAMPLE.read_text(encoding="utf-8").replace(active, "").replace(compatible, compatible.removeprefix("# "))
    chat = next(route for route in installed(tmp_path, text).router.routes if route.name == "chat")
    assert chat.meter.text == "json(sseLastData(allData)).usage.total_tokens ?? 1"
    assert measured(chat.meter, chat.examples[0]).units == 87


PLANS = [
    # id, dollars a month, quota, what happens above it, tokens a minute, price of Stripe
    ("free", 0, 10_000, Mode.BLOCK, 1_000, None),
    ("starter", 29, 100_000, Mode.OVERAGE, 10_000, "price_starter_llmgateway"),
    ("pro", 99, 1_000_000, Mode.OVERAGE, 100_000, "price_pro_llmgateway"),
    ("enterprise", 499, None, Mode.BLOCK, None, "price_enterprise_llmgateway"),
]


@pytest.mark.parametrize(("name", "dollars", "units", "mode", "rate", "stripe"), PLANS)
def test_a_shipped_plan_has_the_figures_that_were_promised(
    tmp_path: Path, name: str, dollars: int, units: int | None, mode: Mode, rate: int | None, stripe: str | None
) -> None:
    plan: Plan = installed(tmp_path).plans[name]
    assert plan.monthly_price == Decimal(dollars)
    assert plan.quota is not None
    assert plan.quota.cap == (None if units is None else units * MICRO_PER_UNIT)
    assert plan.quota.mode is mode
    assert plan.quota.window is (Window.MONTH if name == "free" else Window.BILLING_PERIOD)
    assert [each.cap for each in plan.rates] == ([] if rate is None else [rate * MICRO_PER_UNIT])
    assert plan.clamp_output
    assert plan.stripe_price == stripe
    assert len(plan.examples) >= 2


@pytest.mark.parametrize(
    ("name", "units", "dollars"),
    [
        ("starter", 100_000, "29"),
        ("starter", 100_001, "29.002"),
        ("starter", 1_000_000, "1829"),
        ("pro", 1_000_000, "99"),
        ("pro", 1_000_001, "99.001"),
        ("enterprise", 10**10, "499"),
    ],
)
def test_a_shipped_plan_charges_to_the_digit(tmp_path: Path, name: str, units: int, dollars: str) -> None:
    charged = installed(tmp_path).plans[name].period_charge_nano(units * MICRO_PER_UNIT)
    assert charged == Decimal(dollars) * NANO_PER_DOLLAR


def test_exactly_the_four_plans_are_shipped_and_nothing_else(tmp_path: Path) -> None:
    assert set(installed(tmp_path).plans) == {name for name, *_ in PLANS}
