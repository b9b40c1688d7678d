"""What a biller's account must hold so that the plans can be sold: meter, products, prices, portal, webhook endpoints.

The rule: a price is its content. It never changes: another content is another price, found again by a lookup key that
is made of it. Amounts are Decimal cents for each unit, as Stripe counts; Stripe owns the boundary of what is included
(a graduated price over the full usage).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from gatekeeper.errors import GatekeeperError
from gatekeeper.money import EXACT, MICRO_PER_UNIT, plain, units_text
from gatekeeper.rules.limits import Mode, Window
from gatekeeper.rules.plans import Plan

CURRENCY = "usd"
# Under these names the meter looks for the customer and for the number in an event.
CUSTOMER_KEY = "stripe_customer_id"
VALUE_KEY = "value"
# https://docs.stripe.com/billing/subscriptions/decimal-amounts: decimals of a cent.
CENT_DECIMALS_MAX = 12
# https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts: eight digits of cents.
CENTS_MAX = 99_999_999
WEBHOOK_PATH = "/webhooks/stripe"
# What billing acts on. Checkout that is paid later ends in the subscription's own events.
SNAPSHOT_EVENTS = frozenset(
    {
        "checkout.session.completed",
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "invoice.paid",
        "invoice.payment_succeeded",
        "invoice.payment_failed",
    }
)
# These exist as thin events only, so they need an endpoint of their own.
THIN_EVENTS = frozenset({"v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"})


class CannotSell(GatekeeperError):
    """The plans cannot be brought into the account as they are. ``problems`` are sentences for people, no secrets."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class Role(StrEnum):
    """What a price of a plan is for: the monthly fee, or the units above what it includes."""

    LICENSED = "licensed"
    METERED = "metered"


class Tier(NamedTuple):
    """Units up to and including ``up_to`` (None: all further ones) cost ``cents`` each."""

    up_to: int | None
    cents: Decimal


@dataclass(frozen=True, slots=True)
class Content:
    """All of a price that can never change. ``cents`` a month, or graduated ``tiers`` of a meter's units. ``odd`` says
    what else is found at it that none of ours has, so that it equals none."""

    cents: Decimal | None
    tiers: tuple[Tier, ...] = ()
    meter: str | None = None
    currency: str = CURRENCY
    every: str = "1 month"
    odd: str = ""

    @property
    def text(self) -> str:
        """For people, and the same text for the same content: equal amounts have equal digits."""
        odd = f" ({self.odd})" if self.odd else ""
        if self.meter is None and self.cents is not None:
            return f"{money_text(self.cents, self.currency)} per {self.every.removeprefix('1 ')}{odd}"
        tiers = ", ".join(
            f"{'then' if tier.up_to is None else f'up to {tier.up_to}'} {money_text(tier.cents, self.currency)}"
            for tier in self.tiers or (Tier(None, self.cents or Decimal(0)),)
        )
        return f"{tiers} each, of meter {self.meter}, per {self.every.removeprefix('1 ')}{odd}"

    @property
    def digest(self) -> str:
        """Twelve letters that stand for this content."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Meter:
    """Sums the events of one name for each customer."""

    event_name: str
    display_name: str
    aggregation: str = "sum"
    customer_key: str = CUSTOMER_KEY
    value_key: str = VALUE_KEY

    @property
    def fixed(self) -> tuple[str, str, str]:
        """What can never change."""
        return self.aggregation, self.customer_key, self.value_key


@dataclass(frozen=True, slots=True)
class Product:
    """What customers read on an invoice. The id is ours, so that it cannot be made twice."""

    id: str
    plan_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Price:
    """A price of a plan. ``named``: what its author wrote, an id or a lookup key. ``content`` None: it is only looked
    up, because the plan does not say what it costs."""

    plan_id: str
    role: Role
    product_id: str
    content: Content | None
    lookup_key: str
    named: str | None = None

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.plan_id} {self.role}"


@dataclass(frozen=True, slots=True)
class Portal:
    """What customers may do by themselves on Stripe's pages: feature -> how far."""

    return_url: str | None
    features: tuple[tuple[str, str], ...]


class Payload(StrEnum):
    """What an endpoint is sent: the whole object, or only that there is something to fetch."""

    SNAPSHOT = "snapshot"
    THIN = "thin"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events are sent to."""

    payload: Payload
    url: str
    events: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the files ask for. ``problems``: what no account can hold. ``notes``: what a person should know."""

    meter: Meter | None
    products: tuple[Product, ...]
    prices: tuple[Price, ...]
    portal: Portal | None
    endpoints: tuple[Endpoint, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Prices that were written by hand."""
        return tuple(price.named for price in self.prices if price.named is not None)


class PlanPrices(NamedTuple):
    """The ids of a plan's prices; None where it has none of that role."""

    licensed: str | None = None
    metered: str | None = None


@dataclass(frozen=True, slots=True)
class Sold:
    """What subscriptions are made of. ``plan_of`` also knows the archived prices that customers still pay."""

    prices: Mapping[str, PlanPrices] = field(default_factory=dict)
    plan_of: Mapping[str, str] = field(default_factory=dict)
    portal_id: str | None = None


# Plans are changed by the gateway, because both items of a subscription must change together.
PORTAL_FEATURES = (
    ("customer_update", "address,email,name,tax_id"),
    ("invoice_history", "on"),
    ("payment_method_update", "on"),
    ("subscription_cancel", "at_period_end"),
    ("subscription_update", "off"),
)


def wanted(plans: Mapping[str, Plan], event_name: str, public_url: str | None, *, live: bool) -> Wanted:
    """What these plans need. ``event_name`` is of the meter, ``public_url`` where the gateway is reached from outside,
    ``live`` whether real money moves."""
    problems: list[str] = []
    notes: list[str] = []
    prices = [
        price
        for plan in sorted(plans.values(), key=lambda plan: plan.id)
        for price in (_licensed(plan, problems), _metered(plan, event_name, problems))
        if price is not None
    ]
    sold = {price.plan_id for price in prices}
    notes += [
        f"plan {plan_id!r} is free: nothing of it is in Stripe" for plan_id in sorted(plans) if plan_id not in sold
    ]
    metered = any(price.role is Role.METERED for price in prices)
    return Wanted(
        meter=Meter(event_name, "Gatekeeper units") if metered else None,
        products=tuple(Product(product_id(each), each, plans[each].name) for each in sorted(sold)),
        prices=tuple(prices),
        portal=Portal(public_url, PORTAL_FEATURES) if prices else None,
        endpoints=_endpoints(public_url, problems, notes, live=live) if prices else (),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def product_id(plan_id: str) -> str:
    """The id of a plan's product."""
    return f"gatekeeper_{plan_id}"


def key_prefix(plan_id: str, role: Role) -> str:
    """How all lookup keys begin that are made for a plan's price."""
    return f"gatekeeper:{plan_id}:{role}:"


def cents_of(dollars: Decimal, per: int = 1) -> Decimal | None:
    """Cents for each unit; None where Stripe's 12 decimals do not hold it."""
    scaled = EXACT.multiply(dollars, Decimal(100))
    cents = EXACT.divide(scaled, Decimal(per))
    step = Decimal(1).scaleb(-CENT_DECIMALS_MAX)
    exact = EXACT.multiply(cents, Decimal(per)) == scaled and EXACT.remainder(cents, step) == 0
    return cents if exact else None


def money_text(cents: Decimal, currency: str = CURRENCY) -> str:
    """Cents as people write money: ``$29``, ``$0.002``."""
    amount = plain(EXACT.divide(cents, Decimal(100)))
    return f"${amount}" if currency == CURRENCY else f"{amount} {currency.upper()}"


def _licensed(plan: Plan, problems: list[str]) -> Price | None:
    if plan.monthly_price == 0 and plan.stripe_price is None:
        return None
    cents = cents_of(plan.monthly_price)
    if cents is None or cents != cents.to_integral_value() or cents > CENTS_MAX:
        problems.append(
            f"plan {plan.id!r}: a monthly price of ${plain(plan.monthly_price)} is no whole number of cents up to "
            f"{money_text(Decimal(CENTS_MAX))}"
        )
        return None
    return _price(plan, Role.LICENSED, Content(cents), plan.stripe_price)


def _metered(plan: Plan, event_name: str, problems: list[str]) -> Price | None:
    if plan.overage is None:
        return None if plan.metered_price is None else _price(plan, Role.METERED, None, plan.metered_price)
    quota = plan.quota
    assert quota is not None and quota.cap is not None, plan.id
    cents = cents_of(plan.overage.dollars, plan.overage.per)
    wrong = []
    if cents is None or cents > CENTS_MAX:
        wrong.append(
            f"${plain(plan.overage.dollars)} per {plan.overage.per} units cannot be written in {CENT_DECIMALS_MAX} "
            "decimals of a cent for each unit"
        )
    if quota.cap % MICRO_PER_UNIT:
        wrong.append(f"{units_text(quota.cap)} included units are no whole number")
    if quota.mode is Mode.OVERAGE and quota.window is not Window.BILLING_PERIOD:
        wrong.append(
            f"its quota turns each {quota.window}, and an invoice counts by billing period: write "
            f'window = "{Window.BILLING_PERIOD}"'
        )
    problems += [f"plan {plan.id!r}: {each}" for each in wrong]
    if wrong or cents is None:
        return None
    included = quota.cap // MICRO_PER_UNIT
    first = (Tier(included, Decimal(0)),) if included else ()
    return _price(plan, Role.METERED, Content(None, (*first, Tier(None, cents)), event_name), plan.metered_price)


def _price(plan: Plan, role: Role, content: Content | None, named: str | None) -> Price:
    key = named or f"{key_prefix(plan.id, role)}{'' if content is None else content.digest}"
    return Price(plan.id, role, product_id(plan.id), content, key, named)


def _endpoints(public_url: str | None, problems: list[str], notes: list[str], *, live: bool) -> tuple[Endpoint, ...]:
    if public_url is None:
        notes.append("[server] public_url is not set, so no webhook endpoint is looked after")
        return ()
    if live and not public_url.startswith("https://"):
        problems.append(f"[server] public_url is {public_url}, and Stripe only calls https:// in live mode")
        return ()
    url = f"{public_url}{WEBHOOK_PATH}"
    return (Endpoint(Payload.SNAPSHOT, url, SNAPSHOT_EVENTS), Endpoint(Payload.THIN, url, THIN_EVENTS))
