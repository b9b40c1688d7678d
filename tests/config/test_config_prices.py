"""``[[prices]]``, ``[costs]`` and what a route and the ledger do about costs that are not known yet."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.config.gateway import CostsConfig, Gateway, HoldKind, Route, Unpriced, UpstreamConfig
from gatekeeper.config.locate import locate
from gatekeeper.config.read import parse_gateway
from gatekeeper.diagnostics import Mistakes
from gatekeeper.rules.prices import Origin, PriceBook, Rates, Tier

LEAST = """
[upstreams.openai]
url = "https://api.openai.com"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "openai"
"""
D = Decimal


def parse(text: str) -> Gateway:
    return parse_gateway(LEAST + text, "gateway.toml", {"plans/free.toml": "monthly_price = 0\n"}, {})


def refused(text: str) -> str:
    with pytest.raises(Mistakes) as raised:
        parse(text)
    return raised.value.render()


def day(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def entry(model: str, read: str, more: str = "") -> str:
    return f'[[prices]]\nmodel = "{model}"\ninput = "{read}"\noutput = "10"\nper = "1M tokens"\n{more}\n'


def test_without_any_what_has_no_price_is_refused():
    gateway = parse("")
    assert (gateway.prices, gateway.costs) == ((), CostsConfig(Unpriced.REFUSE))


def test_everything_that_a_price_may_say_stands_in_the_gateway():
    (override,) = parse(
        """
        [[prices]]
        model = "gpt-4o*"
        upstream = "openai"
        from = 2026-01-01
        until = 2026-07-01
        input = "2.50"
        output = 10
        cached_input = "1.25"
        cache_write = "3"
        cache_write_1h = "4"
        audio_input = "5"
        image_input = "6"
        reasoning = "7"
        audio_output = "8"
        image_output = "9"
        request = "0.01"
        search = "0.02"
        hour = "0.36"
        per = "1K tokens"
        tiers = [{ above = 100, input = "5" }, { above = 200, output = "20" }]
        """
    ).prices
    assert (override.pattern, override.upstream) == ("gpt-4o*", "openai")
    price = override.price
    assert (price.origin, price.per) == (Origin.TOML, 1_000)
    parts = dict(
        zip(Rates.__dataclass_fields__, map(D, ("2.5", "10", "1.25", "3", "4", "5", "6", "7", "8", "9")), strict=True)
    )
    assert price.rates == Rates(**parts)
    assert price.tiers == (
        Tier(100, Rates(**parts | {"input": D(5)})),
        Tier(200, Rates(**parts | {"input": D(5), "output": D(20)})),
    )
    assert (price.request, price.search, price.hour) == (D("0.01"), D("0.02"), D("0.36"))
    assert (price.from_ms, price.until_ms) == (day("2026-01-01"), day("2026-07-01"))


def test_prices_are_added_with_a_date_and_each_ends_where_the_next_begins():
    text = entry("m", "3", "from = 2026-07-01") + entry("m", "1") + entry("m", "2", "from = 2026-01-01")
    book = PriceBook(parse(text).prices)

    def read(at: str) -> str:
        price = book.price("m", day(at))
        assert price is not None
        return str(price.rates.input)

    days = ("2020-01-01", "2025-12-31", "2026-01-01", "2026-06-30", "2026-07-01", "2030-01-01")
    assert [read(at) for at in days] == ["1", "1", "2", "2", "3", "3"]


def test_between_an_end_and_the_next_beginning_there_is_no_price():
    book = PriceBook(parse(entry("m", "1", "until = 2026-01-01") + entry("m", "2", "from = 2026-02-01")).prices)
    found = [book.price("m", day(at)) is not None for at in ("2025-12-31", "2026-01-01", "2026-01-31", "2026-02-01")]
    assert found == [True, False, False, True]


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("", "", True),
        ("from = 2026-01-01", "from = 2026-01-01", True),
        ("until = 2026-01-02", "from = 2026-01-01", True),
        ("from = 2026-01-01\nuntil = 2026-03-01", "until = 2026-02-01", True),
        ("until = 2026-01-01", "from = 2026-01-01", False),
        ("", "from = 2026-01-01", False),
        ("", 'upstream = "openai"', False),
    ],
)
def test_two_prices_for_one_day_of_one_pattern_are_a_mistake(first: str, second: str, overlap: bool):
    text = entry("m*", "1", first) + entry("M*", "2", second)
    if overlap:
        assert "is for the same models and some of the same days" in refused(text)
    else:
        assert len(parse(text).prices) == 2


def test_the_most_specific_price_is_asked_whatever_the_order_in_the_file():
    book = PriceBook(parse(entry("*", "1") + entry("gpt-4o-mini", "2") + entry("gpt-4o*", "3")).prices)
    found = [book.price(model, 0) for model in ("x", "gpt-4o-mini", "gpt-4o-2024")]
    assert [price.rates.input for price in found if price is not None] == [D(1), D(2), D(3)]


def test_what_has_no_price_may_be_allowed_or_have_a_ceiling():
    assert parse('[costs]\nunpriced = "allow"\n').costs == CostsConfig(Unpriced.ALLOW)
    costs = parse('[costs]\nunpriced = { input = "30", output = 180, per = "1M tokens", request = "0.1" }\n').costs
    assert costs.unpriced is Unpriced.CEILING
    assert costs.ceiling is not None
    assert (costs.ceiling.origin, costs.ceiling.rates) == (Origin.CEILING, Rates(input=D(30), output=D(180)))
    assert costs.ceiling.request == D("0.1")


def test_a_route_says_how_streams_hold_and_how_far_they_are_drained():
    def chat(more: str) -> Route:
        return parse(more).router.routes[0]

    plain = chat("")
    assert (plain.hold, plain.hold_slice_tokens, plain.drain_s, plain.drain_tokens_max) == (
        HoldKind.INCREMENTAL, 512, 60.0, 4_096,
    )  # fmt: skip
    told = chat('hold = "worst_case"\nhold_slice_tokens = 64\ndrain_s = 1.5\ndrain_tokens_max = 0\n')
    assert (told.hold, told.hold_slice_tokens, told.drain_s, told.drain_tokens_max) == (HoldKind.WORST_CASE, 64, 1.5, 0)


@pytest.mark.parametrize(
    ("upstream", "url"),
    [
        (UpstreamConfig("o", "https", "api.openai.com", 443), "https://api.openai.com"),
        (UpstreamConfig("o", "http", "127.0.0.1", 11434, "/v1"), "http://127.0.0.1:11434/v1"),
        (UpstreamConfig("o", "http", "::1", 80), "http://[::1]"),
    ],
)
def test_an_upstream_has_the_url_by_which_price_lists_know_it(upstream: UpstreamConfig, url: str):
    assert upstream.url == url


WHOLE = (
    LEAST
    + 'hold = "worst_case"\nhold_slice_tokens = 64\ndrain_s = 1\ndrain_tokens_max = 0\n'
    + entry("m", "1", 'upstream = "openai"\nfrom = 2026-01-01\nuntil = 2027-01-01\ntiers = [{ above = 5, input = 1 }]')
    + '[costs]\nunpriced = { input = 1, output = 1, per = "1 token" }\n'
    + '[[limits]]\nname = "a"\nscope = "user"\nsubject = "alice"\ndollars = 1\nwindow = "day"\nmode = "warn"\n'
    + 'zone = "UTC"\n[[rates]]\nscope = "agent"\nunits = 5\nmeter = "x"\nper = "hour"\n'
)
ODD = ["true", "0", "-1", "1.5", "nan", '""', '"x"', '"*"', '"each"', '"unlimited"', "[]", "{}", "[{}]", "1979-05-27"]
ODD += ["1979-05-27T00:00:00Z", "00:00:00", "99999999999999999999999", '"٣"', "9999-12-31", "0001-01-01"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_value_anywhere_breaks_the_reader_of_limits_and_prices(data: st.DataObject) -> None:
    text = WHOLE
    for _ in range(data.draw(st.integers(1, 3))):
        places = locate(text)
        path = data.draw(st.sampled_from([path for path in places if places.key(path) != places.value(path)]))
        span = places.value(path)
        text = text[: span.start] + data.draw(st.sampled_from(ODD)) + text[span.end :]
    try:
        parse_gateway(text, "gateway.toml", {"plans/free.toml": "monthly_price = 0\n"}, {})
    except Mistakes as mistakes:
        assert mistakes.render()
