"""What a subscription at Stripe means for a customer: plan, billing period, grace, block, end. Pure figures.

The rule: only what Stripe says now counts, never what an event said. What was decided before is in ``Standing``, so
that deciding again with the same answer changes nothing, and a plan that was set by hand stays until Stripe's own
changes. Statuses: https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gatekeeper.errors import GatekeeperError
from gatekeeper.rules.limits import Window
from gatekeeper.rules.notices import Kind
from gatekeeper.rules.plans import DISABLE, Plan
from gatekeeper.rules.windows import window_bounds

GRANTING = frozenset({"active", "trialing"})
PAST_DUE = "past_due"
# Nothing is collected any more, or a trial ended without a card.
BLOCKING = frozenset({"unpaid", "paused"})
ENDED = frozenset({"canceled", "incomplete_expired"})
CANCELED = "canceled"
# Before the first payment nothing is granted; neither for a status that is not known here.
_STANDING = GRANTING | BLOCKING | {PAST_DUE}


class UnknownPrice(GatekeeperError):
    """A subscription to prices that belong to no plan. ``public`` names them, for operators."""

    def __init__(self, subscription_id: str, prices: Sequence[str]) -> None:
        self.public = f"no plan has a price of subscription {subscription_id}: {', '.join(prices)}"
        super().__init__(self.public)


class Item(NamedTuple):
    """One line of a subscription."""

    id: str
    price_id: str
    metered: bool


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription as Stripe says it now. ``anchor_ms`` is what its periods are counted from; ``cancel_ms`` when it
    is going to end."""

    id: str
    account: str
    status: str
    created_ms: int
    items: tuple[Item, ...]
    period_start_ms: int
    period_end_ms: int
    anchor_ms: int
    trial_end_ms: int | None = None
    cancel_ms: int | None = None
    schedule_id: str | None = None
    # In classic mode the usage of a metered price that goes is never invoiced.
    flexible: bool = True

    @property
    def licensed(self) -> Item | None:
        """The monthly fee."""
        return next((item for item in self.items if not item.metered), None)

    @property
    def metered(self) -> Item | None:
        """The units."""
        return next((item for item in self.items if item.metered), None)


@dataclass(frozen=True, slots=True)
class Standing:
    """What was decided of a customer's subscription the last time. ``anchor_ms`` is what his billing periods are
    counted from; ``grace_ms`` until when he is served although a payment failed; ``blocked_ms`` is when he was disabled
    for it, and the proof that nobody else did. ``items_ms``: since when it is sold by these prices. ``version``
    counts changes."""

    customer_id: str
    subscription_id: str
    status: str
    plan_id: str
    prices: str
    period_start_ms: int
    period_end_ms: int
    anchor_ms: int
    items_ms: int
    trial_end_ms: int | None = None
    cancel_ms: int | None = None
    grace_ms: int | None = None
    blocked_ms: int | None = None
    version: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left of it."""
        return self.status in ENDED


class News(NamedTuple):
    """Something to tell. ``personal``: the customer is told too."""

    kind: Kind
    id: str
    content: Mapping[str, Any]
    personal: bool = True


@dataclass(frozen=True, slots=True)
class Terms:
    """What is configured: how long a failed payment is borne with, the plans, and the plan of whoever has none."""

    grace_ms: int
    plans: Mapping[str, Plan]
    default_plan: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What changes. ``plan_id`` None leaves the plan; ``from_plan_id``: only whoever is on that one is moved.
    ``unblock_ms``: enable again whoever was disabled at that instant."""

    standing: Standing
    plan_id: str | None = None
    from_plan_id: str | None = None
    anchor_ms: int | None = None
    block: bool = False
    unblock_ms: int | None = None
    ends: bool = False
    news: tuple[News, ...] = ()


def governing(found: Sequence[Subscribed], before: Standing | None) -> Subscribed | None:
    """The one that counts: what grants before what is overdue before what blocks, then the newest. One that has ended
    only counts where it was the one before."""
    order = (GRANTING, frozenset({PAST_DUE}), BLOCKING)
    for statuses in order:
        standing = [one for one in found if one.status in statuses]
        if standing:
            return max(standing, key=lambda one: (one.created_ms, one.id))
    if before is None:
        return None
    return next((one for one in found if one.id == before.subscription_id and one.status in ENDED), None)


def live(found: Sequence[Subscribed], before: Standing | None = None) -> Subscribed | None:
    """The one that can be changed; None where there is none."""
    one = governing(found, before)
    return one if one is not None and one.status in _STANDING else None


def decide(
    before: Standing | None,
    customer_id: str,
    found: Sequence[Subscribed],
    plan_of: Mapping[str, str],
    terms: Terms,
    now_ms: int,
) -> Decision | None:
    """What follows from all subscriptions of a customer; None: nothing. Raises UnknownPrice."""
    one = governing(found, before)
    if one is None and before is not None and not before.has_ended and not found:
        # The customer was deleted at Stripe, and his subscription with him.
        return _ended(before, CANCELED, terms, now_ms)
    if one is None or (one.status in ENDED and (before is None or before.has_ended)):
        return None
    if one.status in ENDED:
        assert before is not None
        return _ended(before, one.status, terms, now_ms)
    decision = _standing(before, customer_id, one, _plan_id(one, plan_of), terms, now_ms)
    double = _double(customer_id, found)
    if before is not None and decision.standing == before and not double:
        return None
    return replace(decision, news=(*decision.news, *double))


def anchor_of(one: Subscribed) -> int:
    """From where the customer's billing periods are counted, so that the present one is Stripe's: an anchor on the 31st
    stays one through February. What no month explains (a year, a week) counts from the period's own start."""
    period = (one.period_start_ms, one.period_end_ms)
    last_ms = one.period_end_ms - 1
    for anchor_ms in (one.anchor_ms, one.period_start_ms):
        if window_bounds(Window.BILLING_PERIOD, last_ms, anchor_ms=anchor_ms) == period:
            return anchor_ms
    # A trial: its end begins the first month.
    return one.anchor_ms if one.anchor_ms == one.period_end_ms else one.period_start_ms


def _standing(
    before: Standing | None, customer_id: str, one: Subscribed, plan_id: str, terms: Terms, now_ms: int
) -> Decision:
    known = before if before is not None and before.subscription_id == one.id and not before.has_ended else None
    prices = " ".join(sorted(item.price_id for item in one.items))
    blocked_ms = None if before is None else before.blocked_ms
    grace_ms, block, unblock_ms = None, False, None
    if one.status in GRANTING:
        unblock_ms, blocked_ms = blocked_ms, None
    elif one.status == PAST_DUE:
        grace_ms = now_ms + terms.grace_ms
        if known is not None and known.status == PAST_DUE and known.grace_ms is not None:
            grace_ms = known.grace_ms
        block = now_ms >= grace_ms and blocked_ms is None
    else:
        block = blocked_ms is None
    after = Standing(
        customer_id=customer_id,
        subscription_id=one.id,
        status=one.status,
        plan_id=plan_id,
        prices=prices,
        period_start_ms=one.period_start_ms,
        period_end_ms=one.period_end_ms,
        anchor_ms=anchor_of(one),
        items_ms=known.items_ms if known is not None and known.prices == prices else now_ms,
        trial_end_ms=one.trial_end_ms,
        cancel_ms=one.cancel_ms,
        grace_ms=grace_ms,
        blocked_ms=now_ms if block else blocked_ms,
        version=0 if before is None else before.version,
    )
    moves = known is None or known.plan_id != plan_id
    turns = known is None or known.anchor_ms != after.anchor_ms
    return Decision(
        after,
        plan_id=plan_id if moves else None,
        anchor_ms=after.anchor_ms if turns else None,
        block=block,
        unblock_ms=unblock_ms,
        news=_news(known, after, block=block),
    )


def _ended(before: Standing, status: str, terms: Terms, now_ms: int) -> Decision:
    plan = terms.plans.get(before.plan_id)
    then = (None if plan is None else plan.on_cancel) or terms.default_plan
    disables = then == DISABLE
    block = disables and before.blocked_ms is None
    # Whoever goes to a plan that is free is not kept out by the bill of the one before.
    unblock_ms = None if disables else before.blocked_ms
    after = replace(
        before,
        status=status,
        cancel_ms=None,
        grace_ms=None,
        blocked_ms=(before.blocked_ms or now_ms) if disables else None,
    )
    news = News(Kind.SUBSCRIPTION_ENDED, _name("ended", after), {**content(after), "then": then})
    return Decision(
        after,
        plan_id=None if disables else then,
        from_plan_id=before.plan_id,
        block=block,
        unblock_ms=unblock_ms,
        ends=True,
        news=(news,),
    )


def _plan_id(one: Subscribed, plan_of: Mapping[str, str]) -> str:
    # The fee says which plan it is; of a plan without a fee the units do.
    for item in sorted(one.items, key=lambda item: item.metered):
        if item.price_id in plan_of:
            return plan_of[item.price_id]
    raise UnknownPrice(one.id, [item.price_id for item in one.items])


def _news(known: Standing | None, after: Standing, *, block: bool) -> tuple[News, ...]:
    if block:
        return (News(Kind.SUBSCRIPTION_BLOCKED, _name("blocked", after), content(after)),)
    if known is None or (known.plan_id, known.status, known.cancel_ms) != (
        after.plan_id,
        after.status,
        after.cancel_ms,
    ):
        return (News(Kind.SUBSCRIPTION_CHANGED, _name("changed", after), content(after)),)
    return ()


def _double(customer_id: str, found: Sequence[Subscribed]) -> tuple[News, ...]:
    paid = sorted(one.id for one in found if one.status in GRANTING or one.status == PAST_DUE)
    if len(paid) < 2:
        return ()
    digest = hashlib.sha256(" ".join(paid).encode()).hexdigest()[:32]
    told = {"customer_id": customer_id, "subscriptions": paid}
    return (News(Kind.SUBSCRIPTION_DOUBLE, f"subscription_double_{digest}", told, personal=False),)


def _name(what: str, after: Standing) -> str:
    return f"subscription_{what}_{after.subscription_id}_{after.version + 1}"


def content(standing: Standing) -> dict[str, Any]:
    """A standing as plain JSON."""
    return {
        "customer_id": standing.customer_id,
        "subscription": standing.subscription_id,
        "status": standing.status,
        "plan": standing.plan_id,
        "period_start_ms": standing.period_start_ms,
        "period_end_ms": standing.period_end_ms,
        "trial_end_ms": standing.trial_end_ms,
        "cancel_ms": standing.cancel_ms,
        "grace_ms": standing.grace_ms,
        "blocked_ms": standing.blocked_ms,
    }
