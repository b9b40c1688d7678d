"""What a usage record costs, what it can cost at most, and which price is asked."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.prices import (
    Bound,
    Origin,
    PriceBook,
    PriceOverride,
    Rates,
    Tier,
    TokenPrice,
    bound,
    cost_dollars,
    cost_nano,
    in_order,
    matches,
)
from gatekeeper.wire.tap import Tap
from gatekeeper.wire.usage import UsageFold

STREAMS = Path(__file__).resolve().parents[1] / "streams"
D = Decimal
GPT = TokenPrice("gpt-4o", Origin.TOML, Rates(input=D("2.5"), output=D(10), cached_input=D("1.25")))
CLAUDE = TokenPrice(
    "claude",
    Origin.TOML,
    Rates(input=D(3), output=D(15), cached_input=D("0.3"), cache_write=D("3.75"), cache_write_1h=D(6)),
    tiers=(Tier(200_000, Rates(input=D(6), output=D("22.5"), cached_input=D("0.6"), cache_write=D("7.5"))),),
    search=D("0.01"),
)


def price(rates: Rates | None = None, **more: Any) -> TokenPrice:
    return TokenPrice("m", Origin.TOML, rates or Rates(), **more)


def test_cached_tokens_are_a_part_of_the_input_and_cost_less():
    assert cost_dollars(GPT, {"input": 1_000, "cached_input": 400, "output": 100, "total": 1_100}) == D("0.003")
    assert cost_nano(GPT, {"input": 1_000, "cached_input": 400, "output": 100, "total": 1_100}) == 3_000_000


def test_reasoning_is_a_part_of_the_output_and_costs_like_it_unless_it_has_a_rate():
    usage = {"input": 0, "output": 100, "reasoning": 60}
    assert cost_dollars(GPT, usage) == D("0.001")
    assert cost_dollars(price(Rates(input=D(1), output=D(10), reasoning=D(3))), usage) == D("0.00058")


def test_every_kind_of_cache_write_has_its_rate():
    usage = {"input": 1_000, "cached_input": 200, "cache_write": 300, "cache_write_1h": 100, "output": 10}
    # 500 plain, 200 read from the cache, 200 written for minutes, 100 for an hour.
    assert cost_dollars(CLAUDE, usage) == (500 * D(3) + 200 * D("0.3") + 200 * D("3.75") + 100 * D(6) + 150) / 10**6


@pytest.mark.parametrize(
    ("file", "content_type"),
    [
        ("anthropic_hour.sse", "text/event-stream"),
        ("anthropic_hour.json", "application/json"),
        ("bedrock_converse_hour.json", "application/json"),
    ],
)
def test_what_a_provider_keeps_for_an_hour_has_the_price_of_an_hour(file: str, content_type: str):
    tap, fold = Tap(content_type, ""), UsageFold()
    for event in tap.feed((STREAMS / file).read_bytes())[1] + tap.finish(True):
        fold.feed(event)
    usage = fold.result()
    assert usage is not None and (usage["cache_write"], usage["cache_write_1h"]) == (100, 40)
    # 400 plain, 500 read from the cache, 60 written for minutes, 40 for an hour.
    expected = (400 * D(3) + 500 * D("0.3") + 60 * D("3.75") + 40 * D(6) + 10 * D(15)) / 10**6
    assert cost_dollars(CLAUDE, usage) == expected
    without = {name: count for name, count in usage.items() if name != "cache_write_1h"}
    assert cost_dollars(CLAUDE, without) == expected - 40 * (D(6) - D("3.75")) / 10**6


def test_a_tier_is_for_all_tokens_of_a_call_and_begins_above_its_figure():
    assert cost_dollars(CLAUDE, {"input": 200_000, "output": 2}) == D("0.60003")
    assert cost_dollars(CLAUDE, {"input": 200_001, "output": 2}) == D("1.200051")


def test_searches_are_paid_beside_tokens():
    assert cost_dollars(CLAUDE, {"input": 0, "output": 0, "requests": 3}) == D("0.03")


def test_a_call_is_paid_once_and_a_reranker_by_what_it_counts():
    reranker = price(request=D("0.002"))
    assert cost_dollars(reranker, {"input": None, "output": None, "total": None, "requests": 5}) == D("0.01")
    assert cost_dollars(reranker, {}) == D("0.002")
    sonar = price(Rates(input=D(1), output=D(1)), request=D("0.012"))
    assert cost_dollars(sonar, {"input": 10, "output": 10, "requests": 4}) == D("0.01202")


def test_audio_is_paid_by_the_second_where_seconds_are_counted():
    assert cost_dollars(price(hour=D("0.36")), {"input": None, "output": None, "seconds": 30}) == D("0.003")
    assert cost_dollars(price(hour=D("0.36")), {"input": 5, "output": 5, "total": 10}) is None


def test_what_is_counted_and_has_no_rate_has_no_price():
    embedding = price(Rates(input=D("0.02")))
    assert cost_dollars(embedding, {"input": 100, "output": None, "total": 100}) == D("0.000002")
    assert cost_dollars(embedding, {"input": 100, "output": 0}) == D("0.000002")
    assert cost_dollars(embedding, {"input": 100, "output": 1}) is None
    assert cost_dollars(GPT, {"seconds": 5}) is None
    assert cost_nano(GPT, {}) is None


def test_what_the_record_does_not_split_is_completed_or_costs_the_dearer_rate():
    assert cost_dollars(GPT, {"input": 100, "output": None, "total": 150}) == D("0.00075")
    assert cost_dollars(GPT, {"input": None, "output": 50, "total": 150}) == D("0.00075")
    assert cost_dollars(GPT, {"input": None, "output": None, "total": 150}) == D("0.0015")
    assert cost_dollars(GPT, {"input": 100, "output": None, "total": None}) == D("0.00025")


def test_parts_that_overlap_are_paid_from_the_dearest_down_and_no_token_twice():
    audio = price(Rates(input=D(2), output=D(8), cached_input=D(1), audio_input=D(40)))
    assert cost_dollars(audio, {"input": 100, "cached_input": 80, "audio_input": 50, "output": 0}) == D("0.00205")


def test_what_the_provider_says_it_bills_beats_what_the_model_read():
    usage = {"input": 900, "output": 50, "total": 950, "billed": {"input_tokens": 100, "output_tokens": 40}}
    assert cost_dollars(GPT, usage) == D("0.00065")


@pytest.mark.parametrize("odd", [True, "5", None, D("NaN"), D("-1"), float("inf"), [5], {}])
def test_a_count_that_is_no_number_is_as_if_it_were_not_there(odd):
    assert cost_dollars(GPT, {"input": 100, "cached_input": odd, "output": 0}) == D("0.00025")
    assert cost_dollars(GPT, {"input": odd, "output": odd, "total": odd}) is None


def test_a_cost_beyond_the_ledger_is_cut_to_what_it_can_store():
    assert cost_nano(GPT, {"input": 10**30, "output": D("1e40")}) == 2**63 - 1


def test_the_figure_is_rounded_once_half_to_even():
    third = price(Rates(input=D(1), output=D(0)), per=3)
    assert cost_nano(third, {"input": 2, "output": 0}) == 666_666_667
    half = price(Rates(input=D("0.0005"), output=D("0.0005")))
    assert [cost_nano(half, {"input": count, "output": 0}) for count in (1, 3, 5)] == [0, 2, 2]
    assert cost_nano(half, {"input": 1, "output": 2}) == 2


def test_a_bound_takes_the_dearest_rate_that_can_apply_and_rounds_up():
    assert bound(GPT) == Bound(2_500, 10_000, 0)
    assert bound(CLAUDE) == Bound(7_500, 22_500, 0)
    assert bound(CLAUDE, input_tokens=200_000) == Bound(6_000, 15_000, 0)
    assert bound(price(Rates(input=D("0.0001"), output=D("0.0011")), request=D("0.0000000001"))) == Bound(1, 2, 1)


rates_of = st.builds(
    Rates,
    **{name: st.one_of(st.none(), st.decimals(0, 100, places=4)) for name in (
        "cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input", "reasoning", "audio_output",
    )},
    input=st.decimals(0, 100, places=4),
    output=st.decimals(0, 100, places=4),
)  # fmt: skip
counts = st.integers(0, 10**6)
usages = st.fixed_dictionaries(
    {"input": counts, "output": counts},
    optional=dict.fromkeys(
        ("cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input", "reasoning", "audio_output"),
        counts,
    ),
)


@examples(200)
@given(rates_of, rates_of, st.integers(1, 10**6), usages)
def test_no_record_costs_more_than_its_bound(base: Rates, above: Rates, start: int, usage: Mapping[str, int]):
    tiered = price(base, tiers=(Tier(start, above),))
    most = bound(tiered, usage["input"])
    cost = cost_nano(tiered, usage)
    assert cost is not None
    assert cost <= most.input_nano * usage["input"] + most.output_nano * usage["output"]
    assert most <= bound(tiered)


@examples(100)
@given(usages)
def test_parts_without_a_rate_change_nothing(usage: Mapping[str, int]):
    plain = price(Rates(input=D(2), output=D(7)))
    assert cost_nano(plain, usage) == usage["input"] * 2_000 + usage["output"] * 7_000


def test_the_evidence_is_json_and_names_everything_that_was_used():
    assert CLAUDE.evidence() == {
        "model": "claude",
        "source": "toml",
        "per": 1_000_000,
        "input": "3",
        "output": "15",
        "cached_input": "0.3",
        "cache_write": "3.75",
        "cache_write_1h": "6",
        "tiers": [{"above": 200_000, "input": "6", "output": "22.5", "cached_input": "0.6", "cache_write": "7.5"}],
        "search": "0.01",
    }
    dated = price(Rates(input=D(1)), from_ms=5, until_ms=7, provider="openai", request=D(0))
    shown = dated.evidence()
    assert (shown["from_ms"], shown["until_ms"], shown["provider"], shown["request"]) == (5, 7, "openai", "0")


class Listed:
    """A public list that knows one model."""

    def price(self, model: str, at_ms: int, upstream: str = "", url: str = "") -> TokenPrice | None:
        return GPT if model == "gpt-4o" else None


def override(pattern: str, upstream: str | None = None, **more: Any) -> PriceOverride:
    return PriceOverride(pattern, price(Rates(input=D(1), output=D(1)), **more), upstream)


def test_a_declared_price_beats_the_list_in_its_days_and_at_its_upstream_only():
    mine = override("gpt-*", "azure", from_ms=100, until_ms=200)
    book = PriceBook((mine,), Listed())
    assert book.price("gpt-4o", 100, "azure") == mine.price
    assert book.price("gpt-4o", 199, "azure") == mine.price
    for at_ms, upstream in ((99, "azure"), (200, "azure"), (150, "openai")):
        assert book.price("gpt-4o", at_ms, upstream) == GPT


def test_an_unknown_model_has_no_price_unless_there_is_a_ceiling():
    assert PriceBook((), Listed()).price("no-such-model", 0) is None
    assert PriceBook().price("gpt-4o", 0) is None
    assert PriceBook((), Listed()).at("openai").cost("no-such-model", {"input": 1, "output": 1}, 0) is None
    ceiling = TokenPrice("*", Origin.CEILING, Rates(input=D(30), output=D(180)))
    book = PriceBook((), Listed(), ceiling)
    assert book.price("no-such-model", 0) == ceiling
    assert book.price("gpt-4o", 0) == GPT
    assert book.price(None, 0) == ceiling


def test_a_call_without_a_model_is_covered_by_the_pattern_for_all_only():
    assert PriceBook((override("g*"),), Listed()).price(None, 0) is None
    anything = override("*")
    assert PriceBook((anything,), Listed()).price(None, 0) == anything.price


def test_the_most_specific_price_is_asked_first_and_of_equals_the_first_that_was_written():
    wide, long, whole, here = override("*"), override("gpt-4o*"), override("gpt-4"), override("*", "azure")
    same = override("*gpt-4o")
    assert in_order((wide, long, same, whole, here)) == (here, whole, long, same, wide)


def test_the_prices_of_an_upstream_are_a_price_list_of_the_metering_language():
    prices = PriceBook((override("m", "local"),)).at("local", "http://127.0.0.1")
    assert prices.cost("m", {"input": 1, "output": 2}, 0) == D("0.000003")
    assert PriceBook((override("m", "local"),)).at("other").cost("m", {"input": 1}, 0) is None


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "GPT-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o*", "gpt-4o", True),
        ("*", "", True),
        ("*mini", "gpt-4o-mini", True),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "acb", False),
        ("a*a", "a", False),
        ("a*b*b", "ab", False),
        ("[a]?", "a1", False),
    ],
)
def test_a_star_is_any_text_and_nothing_else_is_special(pattern: str, name: str, fits: bool):
    assert matches(pattern, name) is fits


def test_fractions_that_a_record_writes_as_text_are_counted() -> None:
    price = TokenPrice("whisper-1", Origin.TOML, hour=Decimal("0.36"))
    assert cost_nano(price, {"seconds": "12.5"}) == cost_nano(price, {"seconds": Decimal("12.5")}) == 1_250_000
    assert cost_nano(price, {"seconds": "12.5 or so"}) is None
