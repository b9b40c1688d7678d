"""One call that several models or upstreams may serve: its bounds, its path, its bound of output, its lines."""

from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.holds import HeldLine, Hold, HoldState, counted, settle
from gatekeeper.rules.limits import CounterKey, CounterRow, Mode
from gatekeeper.rules.lines import Bounds, Charge, Take, dearest
from gatekeeper.rules.requests import as_model, read_ask
from gatekeeper.rules.routing import Pattern, with_name

FIGURE = st.integers(0, 10**12)
BOUNDS = st.builds(
    Bounds,
    FIGURE,
    FIGURE,
    st.builds(Take, FIGURE, FIGURE),
    st.builds(Take, FIGURE, FIGURE),
    st.builds(Charge, FIGURE, FIGURE),
    st.builds(Charge, FIGURE, FIGURE),
)
GEMINI = Pattern.parse("/v1beta/models/{model}:generateContent")
BYTE = st.binary(min_size=1).filter(lambda raw: b"/" not in raw)


@given(st.lists(BOUNDS, min_size=1, max_size=4), FIGURE)
def test_the_dearest_bears_each_of_them_and_nothing_more(found, output):
    whole = dearest(found)
    for dimension in ("units", "dollars"):
        amounts = [each.take(dimension).fixed + each.take(dimension).per_output * output for each in found]
        assert whole.take(dimension).fixed + whole.take(dimension).per_output * output >= max(amounts)
        assert whole.take(dimension).fixed == max(each.take(dimension).fixed for each in found)
        assert whole.charge(dimension).amount == max(each.charge(dimension).amount for each in found)
    assert whole.output_tokens == max(each.output_tokens for each in found)


@given(BYTE, BYTE)
def test_a_name_in_a_path_is_replaced_and_every_other_byte_stays(before, after):
    path = b"/v1beta/models/" + before + b":generateContent"
    assert with_name(GEMINI, path, "model", after.decode("latin-1")) == path.replace(before + b":g", after + b":g", 1)
    assert GEMINI.match(with_name(GEMINI, path, "model", after.decode("latin-1"))) == {"model": after.decode("latin-1")}


def test_another_model_may_know_the_bound_of_output_by_another_name():
    path, body = "/v1/chat/completions", {"model": "o3", "messages": []}
    ask = read_ask("openai", path, {}, body, 40)
    assert ask.output_path == ("max_completion_tokens",)
    other = as_model(ask, "gpt-4o", "openai", path, body)
    assert (other.model, other.output_path) == ("gpt-4o", ("max_tokens",))
    stated = read_ask("openai", path, {}, {**body, "max_completion_tokens": 9}, 40)
    assert as_model(stated, "gpt-4o", "openai", path, body).output_path == ("max_completion_tokens",)


@given(st.sampled_from(["a", "b", None]), st.integers(0, 10**9))
def test_only_the_model_that_served_is_counted_and_all_that_was_held_comes_back(served, taken):
    keys = {name: CounterKey("model", name, "units", "total", 0) for name in ("a", "b")}
    mine = CounterKey("customer", "acme", "units", "total", 0)
    lines = tuple(HeldLine(key, "limit", None, Mode.BLOCK, 5) for key in (*keys.values(), mine))
    counters = {line.key: CounterRow(7, 5) for line in lines}
    ending = settle(Hold(lines), HoldState.OPEN, {"units": taken}, None, counters, {}, 0, model=served)
    for name, key in keys.items():
        assert ending.counters[key] == CounterRow(7 + (taken if served in (name, None) else 0), 0)
    assert ending.counters[mine] == CounterRow(7 + taken, 0)
    kept = {line.key.subject for line in counted(ending.hold.lines, served)}
    assert kept == {"acme", *([served] if served else ["a", "b"])}
