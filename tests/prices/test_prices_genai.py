"""The bundled price list: known prices, who sells what, parts priced as parts, and no network."""

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price, data
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.prices.genai import GenaiPrices
from gatekeeper.rules.prices import Origin, PriceBook, TokenPrice, bound

D = Decimal
PRICES = GenaiPrices()
OPENAI = ("openai", "https://api.openai.com")
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)


def listed(model: str, upstream: str = "", url: str = "", at_ms: int = AT_MS) -> TokenPrice:
    price = PRICES.price(model, at_ms, upstream, url)
    assert price is not None, model
    return price


@pytest.mark.parametrize(
    ("model", "read", "cached", "written"),
    [
        ("gpt-4o", "2.5", "1.25", "10"),
        ("gpt-4o-2024-08-06", "2.5", "1.25", "10"),
        ("gpt-4o-mini", "0.15", "0.075", "0.6"),
        ("o1", "15", "7.5", "60"),
        ("claude-3-5-haiku-latest", "0.8", "0.08", "4"),
        ("gemini-2.5-pro", "1.25", "0.125", "10"),
        ("mistral-large-latest", "2", None, "6"),
    ],
)
def test_a_published_price_is_known_by_the_name_of_the_model_alone(model, read, cached, written):
    price = listed(model)
    assert (price.rates.input, price.rates.output, price.per) == (D(read), D(written), 1_000_000)
    assert price.rates.cached_input == (None if cached is None else D(cached))
    assert price.origin is Origin.GENAI_PRICES


def test_the_longer_context_of_gemini_and_claude_costs_more():
    gemini = listed("gemini-2.5-pro", "google", "https://generativelanguage.googleapis.com")
    assert PRICES.cost("gemini-2.5-pro", {"input": 200_000, "output": 1_000}, AT_MS) == D("0.26")
    assert PRICES.cost("gemini-2.5-pro", {"input": 200_001, "output": 1_000}, AT_MS) == D("0.5150025")
    assert bound(gemini)[:2] == (2_500, 15_000)
    assert bound(gemini, input_tokens=1_000)[:2] == (1_250, 10_000)


def test_cached_and_reasoning_tokens_are_priced_as_parts():
    usage = {"input": 1_000, "cached_input": 400, "output": 100, "reasoning": 80, "total": 1_100}
    assert PRICES.cost("gpt-4o", usage, AT_MS) == D("0.003")
    claude = {"input": 1_000, "cached_input": 500, "cache_write": 100, "cache_write_1h": 40, "output": 10}
    expected = (400 * D("0.8") + 500 * D("0.08") + 60 * D(1) + 40 * D("1.6") + 10 * D(4)) / 10**6
    assert PRICES.cost("claude-3-5-haiku-latest", claude, AT_MS) == expected


def test_audio_by_the_hour_and_searches_are_counted_too():
    assert PRICES.cost("whisper-1", {"input": None, "output": None, "total": None, "seconds": 60}, AT_MS) == D("0.006")
    searched = {"input": 0, "output": 0, "requests": 2}
    assert PRICES.cost("claude-3-5-haiku-latest", searched, AT_MS) == D("0.02")


@pytest.mark.parametrize("model", ["no-such-model", "", "x" * 257, "tts-1", "dall-e-3", "deepcoder-14b-preview:free"])
def test_what_has_no_price_that_we_could_count_is_unknown_and_not_free(model):
    assert PRICES.price(model, AT_MS, *OPENAI) is None
    assert PRICES.cost(model, {"input": 1, "output": 1, "total": 2}, AT_MS) is None


def test_who_sells_is_known_by_the_url_then_by_the_name_then_guessed():
    by_url = listed("anthropic/claude-3.5-haiku", "mine", "https://openrouter.ai/api")
    assert by_url.provider == "openrouter"
    assert listed("llama-3.3-70b-versatile", "groq", "http://10.0.0.7:8000").provider == "groq"
    assert listed("gpt-4o", "anything", "http://127.0.0.1:9").provider == "openai"
    assert listed("openai/gpt-4o", "litellm", "http://127.0.0.1:4000").provider == "openai"
    assert listed("GPT-4o", "OpenAI").provider == "openai"
    # An upstream that only bears a provider's name may sell other models as well.
    assert listed("claude-3-5-haiku-latest", "openai", "http://127.0.0.1:9").provider == "anthropic"
    assert listed("gpt-4o", "azure", "https://me.openai.azure.com/openai").provider == "azure"


def test_a_seller_that_its_url_gives_away_sells_nothing_that_it_does_not_list():
    assert PRICES.price("claude-3-5-haiku-latest", AT_MS, *OPENAI) is None


def test_a_price_that_changes_with_time_is_the_one_of_the_call():
    noon, night = (int(datetime(2026, 3, 1, hour, tzinfo=UTC).timestamp() * 1000) for hour in (12, 20))
    deepseek = next(seller for seller in data.providers if seller.id == "deepseek")
    for model in ("deepseek-chat", "deepseek-reasoner"):
        for at_ms in (noon, night):
            entry = deepseek.find_model(model).get_prices(datetime.fromtimestamp(at_ms / 1000, UTC))
            assert listed(model, "deepseek", at_ms=at_ms).rates.input == entry.input_mtok
    prices = {listed("deepseek-reasoner", "deepseek", at_ms=at_ms).rates.input for at_ms in (noon, night)}
    assert len(prices) == 2


def test_a_dated_price_says_from_when_until_when_it_holds():
    dated = [
        (seller, model)
        for seller in data.providers
        for model in seller.models
        if isinstance(model.prices, list) and all(hasattr(each.constraint, "start_date") for each in model.prices[1:])
    ]
    assert len(dated) > 50
    for seller, model in dated:
        for entry in model.prices[1:]:
            start = datetime.combine(entry.constraint.start_date, datetime.min.time(), UTC)
            at_ms = int(start.timestamp() * 1000)
            price = PRICES.price(model.id, at_ms, seller.id)
            if price is not None and price.provider == seller.id and price.model == model.id:
                assert price.from_ms == at_ms
                assert price.valid(at_ms)


def test_times_beyond_any_calendar_do_not_raise():
    for at_ms in (-(10**18), 10**18):
        assert PRICES.price("deepseek-chat", at_ms) is not None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "claude-3-5-haiku-latest", "gemini-2.5-pro", "o1"]),
    st.integers(0, 400_000), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100_000),
)  # fmt: skip
def test_a_cost_is_to_the_digit_what_the_package_itself_computes(model, read, cached, kept, written):
    cached, kept = read * cached // 200, read * kept // 200
    price = listed(model)
    usage = {"input": read, "cached_input": cached, "output": written, "total": read + written}
    theirs = {"input_tokens": read, "cache_read_tokens": cached, "output_tokens": written}
    if price.rates.cache_write is not None:
        usage["cache_write"] = theirs["cache_write_tokens"] = kept
    expected = calc_price(Usage(**theirs), model, provider_id=price.provider, genai_request_timestamp=AT)
    assert PRICES.cost(model, usage, AT_MS) == expected.total_price


def test_every_entry_of_the_list_can_be_read():
    priced = 0
    for seller in data.providers:
        for model in seller.models:
            price = PRICES.price(model.id, AT_MS, seller.id)
            priced += price is not None
            if price is not None:
                assert min(bound(price)) >= 0
                assert price.evidence()["source"] == "genai-prices"
    assert priced > 1_500


def test_the_list_is_the_fallback_of_a_book():
    prices = PriceBook((), PRICES).at(*OPENAI)
    assert prices.price("gpt-4o", AT_MS) == listed("gpt-4o", *OPENAI)
    assert prices.cost("gpt-4o", {"input": 1_000_000, "output": 0}, AT_MS) == D("2.5")


def test_no_more_names_are_remembered_than_allowed():
    few = GenaiPrices(remembered_max=2)
    first = few.price("gpt-4o", AT_MS)
    assert [few.price(f"nobody-has-this-{number}", AT_MS) for number in range(5)] == [None] * 5
    assert few.price("gpt-4o", AT_MS) == first
    assert few.remembered <= 2


OFFLINE = """
import socket, sys

def refuse(*arguments, **more):
    raise AssertionError("the network was asked")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from gatekeeper.prices.genai import GenaiPrices
assert not any(name.partition(".")[0] == "genai_prices" for name in sys.modules), "imported before it was needed"
prices = GenaiPrices()
prices.warm()
assert "genai_prices" in sys.modules
assert str(prices.cost("gpt-4o", {"input": 1000, "output": 0}, 1_772_366_400_000)) == "0.0025"
assert prices.price("no-such-model", 0, "openai", "https://api.openai.com") is None
import threading
assert threading.active_count() == 1, "something runs in the background"
"""


def test_the_network_is_never_asked_and_the_package_is_imported_late():
    done = subprocess.run([sys.executable, "-W", "error", "-c", OFFLINE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
