"""What a call holds on limits of named meters: its bound, where the meter plainly counts its tokens."""

import asyncio
import json

import pytest
from fakes.proxies import Bench

MICRO = 1_000_000
METERS = """
meters = { "in" = "usage().input", out = "usage( ).output", both = "usage().total", images = "len(response.data)" }
"""
LIMITS = "".join(
    f'[[limits]]\nscope = "customer"\nunits = 100_000\nmeter = "{name}"\nwindow = "day"\n'
    for name in ("in", "out", "both", "images")
)
ANSWER = b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'


def held(more: dict[str, object], route: str = "") -> dict[str, tuple[int, int, int]]:
    """By dimension: what is held in all, fixed, and for each token of output."""
    body = json.dumps({"messages": [], **more}).encode()

    async def ask() -> dict[str, tuple[int, int, int]]:
        bench = Bench(route=f"{route}{METERS}{LIMITS}")
        orders = []
        bench.ledger.at_hold = lambda: orders.extend(bench.ledger.open.values())
        bench.answers(200, ANSWER, b"", content_type="application/json")
        await bench.serve(body)
        (order,) = orders
        return {
            line.key.dimension: (
                line.amount(order.output_tokens) // MICRO,
                line.fixed // MICRO,
                line.per_output // MICRO,
            )
            for line in order.stock
        }

    return asyncio.run(ask())


def test_a_meter_of_tokens_holds_the_tokens_that_it_may_count():
    found = held({"max_tokens": 30})
    units = found["units"]
    assert units == (units[1] + 30, units[1], 1)
    assert found["units:both"] == units
    assert found["units:in"] == (units[1], units[1], 0)
    assert found["units:out"] == (30, 0, 1)
    # Of what nothing is known one is held.
    assert found["units:images"] == (1, 1, 0)


def test_a_stream_holds_a_slice_of_it_and_more_as_it_runs():
    found = held({"max_tokens": 3_000, "stream": True}, "hold_slice_tokens = 64\n")
    assert found["units:out"] == (64, 0, 1)


@pytest.mark.parametrize(("tokens", "all_of_it"), [({"max_tokens": 30}, 30), ({}, 4_096)])
def test_where_an_estimate_holds_the_units_all_of_the_output_is_held_at_once(tokens, all_of_it):
    found = held(tokens, 'estimate = "5"\n')
    assert found["units"] == (5, 5, 0)
    assert found["units:out"] == (all_of_it, all_of_it, 0)
