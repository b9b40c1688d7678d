"""What is evaluated before the call: estimates, conditions, values; and prices and tokenizers from outside."""

from decimal import Decimal

from meters_reading import read, sse

from gatekeeper.meters import Context, Mark, RequestView, compile_meter

VIEW = RequestView(
    path="/v1/chat/completions", query="a=1", headers={"X-Team": "red"}, model="gpt-4o", customer_id="c1", user_id="u1",
    agent_id="a1", plan_id="free", key_id="k1", started_at_ms=1_700_000_000_000,
    body=b'{"model":"gpt-4o","max_tokens":100,"n":2,"messages":[{"content":"hello"}]}',
)  # fmt: skip


class Cents:
    """A price list: one cent for a token of gpt-4o."""

    def cost(self, model, usage, at_ms):
        return Decimal(usage["total"]) / 100 if model == "gpt-4o" else None


class Letters:
    """A tokenizer: one token for a letter."""

    def count(self, text, model):
        return len(text)


def value(text, view=VIEW):
    """The value of an expression in the context of values."""
    return compile_meter(text, context=Context.VALUE).evaluate_value(view)


def test_every_name_of_the_request_can_be_read():
    assert value("[method, path, query, model, customerID, userID, agentID, planID, keyID]") == [
        "POST", "/v1/chat/completions", "a=1", "gpt-4o", "c1", "u1", "a1", "free", "k1",
    ]  # fmt: skip
    assert value("startedAt") == 1_700_000_000_000
    assert value("requestBytes") == len(VIEW.body)
    assert value("headers") == {"x-team": "red"}
    assert value("requestBody startsWith '{'") is True


def test_an_estimate_is_marked_as_one():
    meter = compile_meter("request.max_tokens * request.n + requestBytes", context=Context.ESTIMATE)
    reading = meter.evaluate_request(VIEW)
    assert (reading.units, reading.source) == (Decimal(200 + len(VIEW.body)), Mark.ESTIMATED)
    assert reading.evidence == {"request.max_tokens": 100, "request.n": 2, "requestBytes": len(VIEW.body)}


def test_a_condition_is_one_or_nothing():
    meter = compile_meter("request.stream && model startsWith 'gpt'", context=Context.WHEN)
    assert meter.evaluate_request(VIEW).units == 0
    assert meter.evaluate_request(RequestView(body=b'{"stream":true}', model="gpt-4o")).units == 1
    assert meter.evaluate_request(RequestView()).units == 0
    odd = meter.evaluate_request(RequestView(body=b'{"stream":1}', model="x"))
    assert odd.source is Mark.ERROR


def test_a_body_that_is_no_json_is_null():
    for body in (None, b"", b"{", b"\xff\xfe", b"[" * 100_000):
        assert value("request", RequestView(body=body)) is None


def test_a_value_that_cannot_be_had_is_null():
    assert value("1 / (requestBytes - requestBytes)") is None


def test_numbers_of_a_request_are_exact():
    assert value("request.a", RequestView(body=b'{"a":0.1}')) == Decimal("0.1")
    assert value("request.a - 1", RequestView(body=b'{"a":9007199254740993}')) == 9007199254740992


def test_costs_come_from_the_price_list_and_go_on_record():
    body = sse('{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}')
    text = "cost(model, usage())"
    reading = read(text, body, request=VIEW, context=Context.COST, prices=Cents())
    assert (reading.units, reading.source) == (Decimal("0.07"), Mark.MEASURED)
    assert compile_meter(text, context=Context.COST).replay(reading.evidence).units == Decimal("0.07")
    unpriced = read(text, body, request=RequestView(model="x"), context=Context.COST, prices=Cents())
    assert unpriced.source is Mark.NONE
    assert read(text, body, request=VIEW, context=Context.COST).note == "there is no price list here"


def test_tokens_come_from_the_tokenizer_and_are_estimates():
    reading = read("tokens(request.messages[0].content)", request=VIEW, tokenizer=Letters())
    assert (reading.units, reading.source) == (Decimal(5), Mark.ESTIMATED)
    assert "hello" not in str(reading.evidence)
    again = compile_meter("tokens(request.messages[0].content)", context=Context.TRIAL).replay(reading.evidence)
    assert (again.units, again.source) == (Decimal(5), Mark.ESTIMATED)


def test_an_estimate_of_the_prompt_does_not_put_the_prompt_on_record():
    reading = read("max(tokens(requestBody), 1) + len(request.messages)", request=VIEW)
    assert "hello" not in str(reading.evidence)
