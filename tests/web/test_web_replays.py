"""One response is billed once: whoever fetches or replays it, end to end."""

import json

import pytest
from fakes.origin import Asked, Line
from fakes.raw import ask, request
from fakes.stand import running

from gatekeeper.accounts import KeyWish
from gatekeeper.meters import Mark

RESPONSE = "resp_68a1b2c3d4e5f60718293a4b5c6d7e8f"
ROUTES = """
[[routes]]
name = "responses"
path = "/v1/responses/*"
upstream = "origin"
meter_methods = ["GET", "POST"]
[[routes]]
name = "every-time"
path = "/every-time"
upstream = "origin"
once_per_response = false
"""
BODY = json.dumps({"model": "m", "input": "hello", "max_output_tokens": 9}).encode()


async def answers(asked: Asked, line: Line) -> None:
    """As a server that names its answers after a header, where one is sent."""
    named = asked.header("x-request-id") or asked.header("x-answer") or RESPONSE
    body = json.dumps(
        {"id": named, "object": "response", "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}
    ).encode()
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    with running(tmp_path_factory.mktemp("replays"), answers, routes=ROUTES) as found:
        yield found


def customer(stand, name):
    """A key of a customer of its own."""

    async def made():
        await stand.house.accounts.create_customer(name, customer_id=name, plan_id="pro")
        return (await stand.house.accounts.create_key(name, KeyWish())).secret

    return stand.run(made())


def post(stand, key, path="/v1/responses/", **headers):
    asked = request(key, BODY, path=path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = ask(stand.url, asked)
    assert answer.status == 200
    return answer.header("x-gatekeeper-call-id")


def units(stand, name, count):
    return [record.units_micro // 1_000_000 for record in stand.records(count, name)]


def test_the_same_answer_again_costs_nothing_and_names_the_call_that_paid(stand):
    key = customer(stand, "ada")
    first = post(stand, key)
    post(stand, key)
    paid, again = stand.records(2, "ada")
    assert (paid.call_id, paid.units_micro, paid.note) == (first, 7_000_000, None)
    assert (again.units_micro, again.cost_nano, again.source, again.note) == (0, 0, Mark.NONE, "replayed")
    assert again.evidence == {"replays": first}
    assert stand.run(stand.house.store.unbalanced()) == ([], [])


def test_another_customer_pays_for_the_same_response(stand):
    post(stand, customer(stand, "bob"))
    post(stand, customer(stand, "eve"))
    assert units(stand, "bob", 1) == units(stand, "eve", 1) == [7]


def test_fetching_a_response_by_its_id_is_free_once_it_is_paid(stand):
    key = customer(stand, "carl")
    fetch = request(key, b"", method="GET", path=f"/v1/responses/{RESPONSE}")
    post(stand, key)
    assert ask(stand.url, fetch, "GET").status == 200
    assert units(stand, "carl", 2) == [7, 0]
    # Without the call that made it (somebody else's, before), the first who fetches it pays.
    other = customer(stand, "dora")
    for _ in range(2):
        assert ask(stand.url, request(other, b"", method="GET", path=f"/v1/responses/{RESPONSE}"), "GET").status == 200
    assert units(stand, "dora", 2) == [7, 0]


def test_an_id_that_the_upstream_repeats_makes_nothing_free(stand):
    key = customer(stand, "fred")
    for _ in range(2):
        post(stand, key, X_Answer="chatcmpl-123")
    assert units(stand, "fred", 2) == [7, 7]


def test_an_id_that_the_caller_chose_makes_nothing_free(stand):
    key = customer(stand, "mallory")
    for _ in range(2):
        post(stand, key, X_Request_Id="68a1b2c3d4e5f60718293a4b5c6d7e8f")
    assert units(stand, "mallory", 2) == [7, 7]


def test_a_route_may_charge_every_time(stand):
    key = customer(stand, "gina")
    for _ in range(2):
        post(stand, key, path="/every-time")
    assert units(stand, "gina", 2) == [7, 7]
