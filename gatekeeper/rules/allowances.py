"""What counts against the units that a subscription's metered price includes, in one period. Pure figures.

The rule: a biller gives what a price includes anew to each item of a subscription in each period, and counts what it
was told of, by instant. So the allowance is keyed by (item, period) and is a sum over what was told and is on its way,
which cannot drift; the quota is a counter by customer and window, and says who may go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.rules.billing import Owing, meters_of, target, whole
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.subscriptions import Standing


class Counted(NamedTuple):
    """What the ledger says of a customer: whole units ``told`` and ``waiting`` in batches of one item in one period,
    millionths that no batch has (alike in plan and period), and what the last batches left, by meter."""

    told: int
    waiting: int
    owed: Sequence[tuple[Owing, int]]
    left_micro: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Allowance:
    """Of one subscription item in one period. ``since_ms``: since when units count on it. ``included`` None: nothing is
    priced by units. ``coming`` units are in no batch yet. ``overage_nano`` is the graduated price of all of them, in
    one rounding."""

    since_ms: int
    included: int | None
    told: int
    waiting: int
    coming: int
    overage_nano: int

    @property
    def used(self) -> int:
        """Whole units, as the biller will have them."""
        return self.told + self.waiting + self.coming


def item_since(standing: Standing, start_ms: int) -> int:
    """Since when units of the period that began at ``start_ms`` count on the present item: its prices came later where
    the plan was changed in the middle, and what is used on trial is on no invoice."""
    return max(start_ms, standing.items_ms, standing.trial_end_ms or 0)


def allowance(
    counted: Counted, plans: Mapping[str, Plan], meter: str, plan: Plan | None, since_ms: int, start_ms: int,
    now_ms: int, anchor_ms: int,
) -> Allowance:  # fmt: skip
    """What the item has by ``now_ms``, with what would be frozen into it now (also what was settled too late for the
    period before)."""
    meters, owed = meters_of(plans, meter), dict.fromkeys([meter], 0)
    if since_ms <= now_ms:
        for owing, units_micro in counted.owed:
            on = meters.get(owing.plan_id, meter)
            place = None if on is None or owing.too_old else target(owing, on, now_ms, anchor_ms)
            if place is not None and place.start_ms == start_ms:
                owed[place.meter] = owed.get(place.meter, 0) + units_micro
    coming = sum(whole(counted.left_micro.get(on, 0), 0, micro)[0] for on, micro in owed.items())
    included = None if plan is None or plan.quota is None or plan.overage is None else plan.quota.cap
    used = counted.told + counted.waiting + coming
    overage_nano = 0 if plan is None else plan.overage_nano(0, used * MICRO_PER_UNIT)
    return Allowance(
        since_ms,
        None if included is None else included // MICRO_PER_UNIT,
        counted.told,
        counted.waiting,
        coming,
        overage_nano,
    )
