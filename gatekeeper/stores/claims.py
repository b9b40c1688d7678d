"""Who pays for a response that several calls were answered with: the part of a batch that claims it (``replays``).

The rule: look-up and claim are one statement, in the transaction of the settle, with its rows in one order. A row that
two processes make at once is waited for: whoever commits first pays.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from gatekeeper.meters.reading import Mark
from gatekeeper.ports import Settlement, UsageRecord
from gatekeeper.rules import replays
from gatekeeper.rules.limits import UNITS
from gatekeeper.stores.database import AskMany, Row, Steps

# Customer, upstream, response id.
Response: TypeAlias = tuple[str, str, str]


class Claims:
    """Of one batch."""

    def __init__(self) -> None:
        self._payers: dict[Response, str] = {}
        # By call: the responses of those that ``make`` was asked for.
        self._responses: dict[str, Response] = {}

    def make(self, settlements: Iterable[Settlement]) -> Steps[None]:
        """Find who pays for each response of these calls, none of which is on record: the one that came first, here or
        in another batch."""
        claims: dict[Response, Row] = {}
        asked: set[Response] = set()
        for settlement in settlements:
            response = response_of(settlement)
            if response is None:
                continue
            record = settlement.record
            self._responses[record.call_id] = response
            if replays.pays(record.outcome, record.source):
                claims.setdefault(response, (*response, record.call_id, record.started_ms))
            else:
                asked.add(response)
        found: list[Row] = []
        if claims:
            found += yield AskMany("claim_response", [claims[response] for response in sorted(claims)])
        if left := sorted(asked - claims.keys()):
            found += yield AskMany("response_payers", left)
        self._payers = {(row[0], row[1], row[2]): row[3] for row in found}

    def payer(self, settlement: Settlement) -> str | None:
        """The other call that pays for this one's response; None: it pays itself."""
        call_id = settlement.record.call_id
        response = self._responses.get(call_id)
        payer = None if response is None else self._payers.get(response)
        return None if payer == call_id else payer

    def give_up(self, settlement: Settlement) -> Response | None:
        """What the call had claimed and, as it cannot be settled, does not pay for: whoever fetches that pays."""
        call_id = settlement.record.call_id
        response = self._responses.get(call_id)
        if response is None or self._payers.get(response) != call_id:
            return None
        del self._payers[response]
        return response


def response_of(settlement: Settlement) -> Response | None:
    """The response that a call is to be charged for, where only one call is."""
    record = settlement.record
    response_id = record.response_id
    if response_id is None or not settlement.once_per_response:
        return None
    if record.units_micro <= 0 and not replays.charges(taken_by(settlement)):
        return None
    return None if replays.unique_part(response_id) is None else (record.customer_id, record.upstream, response_id)


def taken_by(settlement: Settlement) -> dict[str, int]:
    """What a call took. The record's units are the truth for the dimension of units: counters are sums of records by
    construction."""
    return {**settlement.actual, UNITS: settlement.record.units_micro}


def replayed(record: UsageRecord, payer: str) -> UsageRecord:
    """The record of a call whose response another call pays for."""
    return replace(
        record,
        units_micro=0,
        cost_nano=0,
        source=Mark.NONE,
        note=replays.noted(record.note),
        meters=dict.fromkeys(record.meters, "0"),
        evidence={replays.PAID_BY: payer},
    )
