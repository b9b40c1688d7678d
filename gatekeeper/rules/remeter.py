"""A recorded call read again from its evidence, with the meter it had or with another one.

The rule: the same evidence gives the same digits, and where the evidence does not suffice that is said, never guessed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from gatekeeper.meters import Mark, Meter, Outcome, Reading
from gatekeeper.money import units_to_micro
from gatekeeper.rules.replays import is_replayed

RECOVERED = "recovered"
FREE_ROUTE = "free route"
# How the language begins the note of a value that is not among the evidence.
_MISSING = "the evidence does not hold"
_ESTIMATE = re.compile(r"unmeasured: input (?:measured|estimated) ([0-9.]+), output ([0-9.]+)(?:, live ([0-9.]+))?")
_FRACTION = re.compile(r"[0-9]+[.][0-9]+")
_FAILED = frozenset({Outcome.UPSTREAM_FAILED, Outcome.UPSTREAM_ERROR, Outcome.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Seen:
    """What a record kept of one call. ``names`` are values by their names in the language, which count as evidence
    where the meter of then did not read them."""

    evidence: Mapping[str, Any]
    usage: Mapping[str, Any] | None
    outcome: Outcome
    source: Mark
    note: str | None
    units_micro: int
    names: Mapping[str, Any]


class Again(NamedTuple):
    """``units_micro`` is what is charged against quota, None where it cannot be known again; ``why`` says which rule
    applied, in words. ``reading`` is None for a call that was never read."""

    reading: Reading | None
    units_micro: int | None
    source: Mark | None
    why: str


def read_again(meter: Meter, seen: Seen, *, free: bool, default_micro: int | None, estimates: bool) -> Again:
    """What a route with this meter makes of a call. ``default_micro`` is charged where nothing is read; with
    ``estimates`` what was delivered is; with neither, nothing."""
    if seen.note == RECOVERED:
        return Again(None, None, None, "its process died; it is charged the last progress that was kept")
    if is_replayed(seen.note):
        return Again(None, 0, Mark.NONE, "another call paid for the same response")
    if free:
        return Again(None, 0, Mark.NONE, "the route is free")
    reading = meter.replay(evidence_of(seen))
    if reading.note is not None and reading.note.startswith(_MISSING):
        return Again(reading, None, None, reading.note)
    if reading.units is not None:
        return Again(reading, units_to_micro(reading.units), reading.source, _why(reading))
    if seen.outcome in _FAILED:
        why = "the upstream failed and nothing was measured: it is not sold on a guess"
        return Again(reading, 0, reading.source, why)
    if default_micro is not None:
        return Again(reading, default_micro, Mark.DEFAULT, "nothing was read: unmeasured = 'default'")
    if not estimates:
        return Again(reading, 0, reading.source, "nothing was read: unmeasured = 'free'")
    why = "nothing was read: unmeasured = 'estimate'"
    units = estimated_units(seen.note)
    if units is None:
        return Again(reading, None, None, why + ", and no estimate was kept")
    return Again(reading, units_to_micro(units), Mark.ESTIMATED, why)


def estimated_units(note: str | None) -> Decimal | None:
    """The estimate that a record's note tells of: what the route's ``live`` said last, else the tokens."""
    found = _ESTIMATE.search(note or "")
    if found is None:
        return None
    return Decimal(found[1]) + Decimal(found[2]) if found[3] is None else Decimal(found[3])


def estimated_tokens(note: str | None) -> tuple[Decimal, Decimal] | None:
    """(input, output) of the estimate that a record's note tells of."""
    found = _ESTIMATE.search(note or "")
    return None if found is None else (Decimal(found[1]), Decimal(found[2]))


def evidence_of(seen: Seen) -> Mapping[str, Any]:
    """All that a meter may be asked of a recorded call: what was read then comes first, beside it what the record knows
    of every call."""
    known = {**seen.names, **seen.evidence}
    if seen.usage is not None:
        known.setdefault("usage()", _packed(seen.usage))
    return known


def _packed(value: Any) -> Any:
    """A usage record as evidence: what was shown to people has its fractions as texts."""
    if isinstance(value, Mapping):
        return {name: _packed(part) for name, part in value.items()}
    return {"$decimal": value} if isinstance(value, str) and _FRACTION.fullmatch(value) else value


def _why(reading: Reading) -> str:
    if reading.source is Mark.NONE:
        return f"not metered: {reading.note}"
    if reading.source is Mark.DEFAULT:
        return "a fallback in the expression stands in for what the answer did not say"
    if reading.source is Mark.ESTIMATED:
        return "the expression itself estimates"
    return "the reading counts as it is"
