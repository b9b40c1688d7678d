"""A recorded call is read again from its evidence, or it is said why it cannot be."""

from decimal import Decimal

import pytest

from gatekeeper.meters import Mark, Metering, Outcome, RequestView, compile_meter
from gatekeeper.rules.remeter import Seen, estimated_tokens, read_again

ANSWER = b'data: {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}}\n\n'


def seen(expression, body=ANSWER, **changes):
    """What a record keeps of an answer that this expression has read."""
    metering = Metering({"m": compile_meter(expression)}, RequestView(model="m1"))
    metering.begin(200, "text/event-stream", "", {})
    metering.feed(body)
    reading = metering.finish(Outcome.COMPLETE)["m"]
    kept = {"usage": None, "outcome": Outcome.COMPLETE, "source": reading.source, "note": None, "units_micro": 0}
    return Seen(evidence=reading.evidence, **{**kept, "names": {}, **changes})


def again(expression, kept, *, free=False, default_micro=None, estimates=False):
    return read_again(compile_meter(expression), kept, free=free, default_micro=default_micro, estimates=estimates)


@pytest.mark.parametrize(
    ("expression", "units_micro"),
    [
        ("usage().total", 15_000_000),
        ("usage().input + 4 * usage().output", 24_000_000),
        ("usage().output / 7", 428_571),
        ("(usage().reasoning ?? 2) + usage().output", 5_000_000),
    ],
)
def test_evidence_suffices_for_every_expression_over_it(expression, units_micro):
    found = again(expression, seen("usage().total"))
    assert found.units_micro == units_micro


def test_the_record_itself_is_evidence_too():
    kept = seen("last(events, .json.usage.total_tokens)", usage={"output": 3, "seconds": "1.5"}, names={"model": "m1"})
    assert again("model == 'm1' ? usage().output : 0", kept).units_micro == 3_000_000
    assert again("usage().seconds * 2", kept).units_micro == 3_000_000


def test_what_the_evidence_does_not_hold_is_not_guessed():
    found = again("usage().total", seen("last(events, .json.usage.total_tokens)"), default_micro=1, estimates=True)
    assert found.units_micro is None
    assert found.why.startswith("the evidence does not hold usage()")


def test_what_was_not_read_goes_to_the_policy():
    silent = seen("usage().total", b"data: [DONE]\n\n", source=Mark.NONE)
    assert again("usage().total", silent, default_micro=7)[1:3] == (7, Mark.DEFAULT)
    assert again("usage().total", silent)[1:3] == (0, Mark.NONE)
    assert again("usage().total", silent, estimates=True).units_micro is None
    noted = seen("usage().total", b"data: [DONE]\n\n", note="unmeasured: input measured 12, output 2.5")
    assert again("usage().total", noted, estimates=True)[1:3] == (14_500_000, Mark.ESTIMATED)
    failed = seen("usage().total", b"data: [DONE]\n\n", outcome=Outcome.UPSTREAM_FAILED)
    assert again("usage().total", failed, default_micro=7).units_micro == 0


def test_free_routes_and_recovered_calls_are_no_question_of_the_meter():
    kept = seen("usage().total")
    assert again("usage().total", kept, free=True).units_micro == 0
    assert again("1", seen("usage().total", note="recovered")).units_micro is None


@pytest.mark.parametrize(
    ("note", "expected"), [(None, None), ("status", None), ("x; unmeasured: input estimated 1, output 2", (1, 2))]
)
def test_an_estimate_is_read_from_its_note(note, expected):
    assert estimated_tokens(note) == (None if expected is None else tuple(map(Decimal, expected)))
