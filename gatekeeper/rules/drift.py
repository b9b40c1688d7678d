"""What differs between the catalogue that is wanted and the one that an account holds, as changes in their order.

The rule: carrying out all changes leaves no difference; what was made by somebody else is never changed, only checked;
nothing that a running subscription needs is taken away (meters stay, prices and products are archived, not deleted).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gatekeeper.rules.catalogue import (
    Content,
    Endpoint,
    Meter,
    Payload,
    PlanPrices,
    Portal,
    Price,
    Product,
    Role,
    Sold,
    Wanted,
)

# https://docs.stripe.com/api/prices/object: ids as Stripe makes them. A name of another shape is a lookup key.
_PRICE_ID = re.compile(r"price_[A-Za-z0-9]{14,}")
_ALL_EVENTS = "*"


@dataclass(frozen=True, slots=True)
class HeldMeter:
    """A meter of the account."""

    id: str
    meter: Meter
    active: bool


@dataclass(frozen=True, slots=True)
class HeldProduct:
    """A product. ``plan_id`` None: it is not of ours."""

    id: str
    name: str
    active: bool
    plan_id: str | None
    default_price: str | None = None


@dataclass(frozen=True, slots=True)
class HeldPrice:
    """A price. ``plan_id`` and ``role`` stand where it is marked as ours."""

    id: str
    product_id: str
    content: Content
    active: bool
    lookup_key: str | None
    plan_id: str | None
    role: str | None
    created_s: int = 0


@dataclass(frozen=True, slots=True)
class HeldPortal:
    """A portal configuration of ours."""

    id: str
    portal: Portal
    active: bool
    is_default: bool = False
    created_s: int = 0


@dataclass(frozen=True, slots=True)
class HeldEndpoint:
    """A webhook endpoint. ``shown``: a person has seen its secret (also where a person made it)."""

    id: str
    endpoint: Endpoint
    enabled: bool
    ours: bool
    shown: bool
    created_s: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """What was found. ``prices`` are those of the products here, and those that are named by hand."""

    meters: tuple[HeldMeter, ...] = ()
    products: tuple[HeldProduct, ...] = ()
    prices: tuple[HeldPrice, ...] = ()
    portals: tuple[HeldPortal, ...] = ()
    endpoints: tuple[HeldEndpoint, ...] = ()


class Action(StrEnum):
    """What is done to an object. UPDATE sets all of it that can be set, and makes it active."""

    CREATE = "create"
    UPDATE = "update"
    ARCHIVE = "archive"
    DELETE = "delete"


class Detail(NamedTuple):
    """One field for people: what stands in the account, what will stand there."""

    name: str
    before: str | None
    after: str | None


Object = Meter | Product | Price | Portal | Endpoint


@dataclass(frozen=True, slots=True)
class Change:
    """One step. ``id`` is None where the object does not exist yet. ``instead``: of a price that is archived while it
    is its product's default, the lookup key of the one that follows it."""

    action: Action
    what: Object
    id: str | None = None
    details: tuple[Detail, ...] = ()
    why: str = ""
    instead: str | None = None

    @property
    def kind(self) -> str:
        """``meter``, ``product``, ``price``, ``portal`` or ``endpoint``."""
        return type(self.what).__name__.lower()

    @property
    def title(self) -> str:
        """Which one, for people."""
        match self.what:
            case Meter(event_name=name):
                return name
            case Price() as price:
                return price.title
            case Product(plan_id=plan_id):
                return plan_id
            case Portal():
                return "customer portal"
            case Endpoint(payload=payload, url=url):
                return f"{url} ({payload})"


@dataclass(frozen=True, slots=True)
class Difference:
    """``changes`` bring the account to what is wanted. ``problems`` are what no change can settle; with one of them
    nothing is changed."""

    changes: tuple[Change, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether the account is as it should be."""
        return not self.changes and not self.problems


def differ(wanted: Wanted, account: Account) -> Difference:
    """All that differs."""
    problems, notes = list(wanted.problems), list(wanted.notes)
    managed = tuple(price for price in wanted.prices if _is_ours(price, account, problems))
    changes = (
        *_meters(wanted.meter, account, problems),
        *_products(wanted, managed, account),
        *_prices(managed, account),
        *_gone(wanted, managed, account),
        *_portals(wanted.portal, account),
        *_endpoints(wanted.endpoints, account, notes),
    )
    return Difference(changes, tuple(problems), tuple(notes))


def sold(wanted: Wanted, account: Account) -> Sold:
    """The ids as they stand now."""
    prices: dict[str, PlanPrices] = {}
    plan_of = {held.id: held.plan_id for held in account.prices if held.plan_id is not None}
    for price in wanted.prices:
        held = _by_hand(price, account) or _chosen(price, account)
        if held is None or not held.active:
            continue
        prices[price.plan_id] = prices.get(price.plan_id, PlanPrices())._replace(**{price.role.value: held.id})
        plan_of[held.id] = price.plan_id
    portal = min((held for held in account.portals if held.active), key=_age, default=None)
    return Sold(prices, plan_of, None if portal is None else portal.id)


def _is_ours(price: Price, account: Account, problems: list[str]) -> bool:
    """Whether we make and change this price; checks it where somebody else does."""
    if price.named is None:
        return True
    held = _by_hand(price, account)
    if held is None and (_PRICE_ID.fullmatch(price.named) or price.content is None):
        problems.append(
            f"plan {price.plan_id!r} names the {price.role} price {price.named!r}, and the account has none of that id "
            "or lookup key; take the line away and one is made"
        )
        return False
    if held is None:
        return True
    where = f"plan {price.plan_id!r}: the {price.role} price {price.named!r} ({held.id}) was made by hand and"
    mark = _mark(held)
    if mark is not None and mark != (price.plan_id, price.role.value):
        problems.append(f"{where} is marked as the {mark[1]} price of plan {mark[0]!r}")
    if not held.active:
        problems.append(f"{where} is archived")
    if price.content is not None and held.content != price.content:
        problems.append(f"{where} is {held.content.text}; the plan says {price.content.text}")
    if price.content is None and held.content.meter is None:
        problems.append(f"{where} is not metered")
    return False


def _by_hand(price: Price, account: Account) -> HeldPrice | None:
    """The price of that id, or of that lookup key where it is not marked as ours."""
    if price.named is None:
        return None
    for held in account.prices:
        if held.id == price.named:
            return held
        if held.lookup_key == price.named and (held.plan_id, held.role) != (price.plan_id, price.role.value):
            return held
    return None


def _candidates(price: Price, account: Account) -> list[HeldPrice]:
    """Every price of ours for this plan and role, the one to keep first."""
    # By one mark, or what is kept for one role would be archived for the other.
    found = [held for held in account.prices if _mark(held) == (price.plan_id, price.role.value)]
    return sorted(found, key=lambda held: (held.lookup_key != price.lookup_key, not held.active, _age(held)))


def _chosen(price: Price, account: Account) -> HeldPrice | None:
    found = _candidates(price, account)
    return next((one for one in found if one.content == price.content and one.product_id == price.product_id), None)


def _meters(meter: Meter | None, account: Account, problems: list[str]) -> Iterator[Change]:
    if meter is None:
        return
    found = [held for held in account.meters if held.meter.event_name == meter.event_name]
    found.sort(key=lambda held: not held.active)
    if not found:
        yield Change(Action.CREATE, meter, details=_made(("display name", meter.display_name)))
        return
    held = found[0]
    if held.meter.fixed != meter.fixed:
        problems.append(
            f"the meter {meter.event_name!r} ({held.id}) has {' / '.join(held.meter.fixed)} where "
            f"{' / '.join(meter.fixed)} is needed, and that can never change: give [stripe] meter another name"
        )
        return
    details = _changed(
        ("active", _yes(held.active), "yes"),
        ("display name", held.meter.display_name, meter.display_name),
    )
    if details:
        yield Change(Action.UPDATE, meter, held.id, details)


def _products(wanted: Wanted, managed: Sequence[Price], account: Account) -> Iterator[Change]:
    needed = {price.product_id for price in managed}
    held = {product.id: product for product in account.products}
    for product in wanted.products:
        if product.id not in needed:
            continue
        found = held.get(product.id)
        if found is None:
            yield Change(Action.CREATE, product, details=_made(("name", product.name)))
            continue
        details = _changed(
            ("name", found.name, product.name),
            ("active", _yes(found.active), "yes"),
            ("plan", found.plan_id, product.plan_id),
        )
        if details:
            yield Change(Action.UPDATE, product, found.id, details)


def _prices(managed: Sequence[Price], account: Account) -> Iterator[Change]:
    defaults = {product.default_price for product in account.products}
    for price in managed:
        content = price.content
        assert content is not None, price
        chosen = _chosen(price, account)
        if chosen is None:
            yield Change(Action.CREATE, price, details=_made(("price", content.text), ("lookup key", price.lookup_key)))
        else:
            details = _changed(
                ("active", _yes(chosen.active), "yes"),
                ("lookup key", chosen.lookup_key, price.lookup_key),
                ("plan", chosen.plan_id, price.plan_id),
                ("role", chosen.role, price.role.value),
            )
            if details:
                yield Change(Action.UPDATE, price, chosen.id, details)
        for held in _candidates(price, account):
            if held.active and (chosen is None or held.id != chosen.id):
                instead = price.lookup_key if held.id in defaults else None
                yield _archived(held, price, f"a price never changes; it follows: {content.text}", instead)


def _gone(wanted: Wanted, managed: Sequence[Price], account: Account) -> Iterator[Change]:
    """What is marked as ours, and no plan asks for any more."""
    asked = {(price.plan_id, price.role.value) for price in managed}
    named = {held.id for price in wanted.prices if (held := _by_hand(price, account)) is not None}
    defaults = {product.default_price for product in account.products}
    for held in account.prices:
        mark = _mark(held)
        if mark is None or not held.active or mark in asked or held.id in named | defaults:
            continue
        price = Price(mark[0], Role(mark[1]), held.product_id, held.content, held.lookup_key or "")
        yield _archived(held, price, "no plan asks for it any more", None)
    needed = {price.product_id for price in managed}
    for product in account.products:
        if product.plan_id is not None and product.active and product.id not in needed:
            what = Product(product.id, product.plan_id, product.name)
            why = "no plan asks for it any more"
            yield Change(Action.ARCHIVE, what, product.id, _changed(("active", "yes", "no")), why)


def _mark(held: HeldPrice) -> tuple[str, str] | None:
    """(plan, role) of a price of ours; None where it is somebody else's."""
    if held.plan_id is not None and held.role in tuple(Role):
        return held.plan_id, held.role
    parts = (held.lookup_key or "").split(":")
    if len(parts) == 4 and parts[0] == "gatekeeper" and parts[2] in tuple(Role):
        return parts[1], parts[2]
    return None


def _archived(held: HeldPrice, price: Price, why: str, instead: str | None) -> Change:
    details = (Detail("price", held.content.text, None), Detail("active", "yes", "no"))
    return Change(Action.ARCHIVE, price, held.id, details, why, instead)


def _portals(portal: Portal | None, account: Account) -> Iterator[Change]:
    if portal is None:
        return
    # A default configuration cannot be archived, so it is the one to keep.
    held = sorted(account.portals, key=lambda one: (not one.is_default, not one.active, _age(one)))
    if not held:
        yield Change(Action.CREATE, portal, details=_made(("return to", portal.return_url), *portal.features))
        return
    before = dict(held[0].portal.features)
    details = _changed(
        ("active", _yes(held[0].active), "yes"),
        ("return to", held[0].portal.return_url, portal.return_url),
        *((name, before.get(name), value) for name, value in portal.features),
    )
    if details:
        yield Change(Action.UPDATE, portal, held[0].id, details)
    for extra in held[1:]:
        if extra.active and not extra.is_default:
            yield Change(Action.ARCHIVE, extra.portal, extra.id, _changed(("active", "yes", "no")), "there are two")


def _endpoints(endpoints: Sequence[Endpoint], account: Account, notes: list[str]) -> Iterator[Change]:
    for endpoint in endpoints:
        there = [
            held
            for held in account.endpoints
            if (held.endpoint.payload, held.endpoint.url) == (endpoint.payload, endpoint.url)
        ]
        # Of several, the one whose secret is in use somewhere.
        there.sort(key=lambda held: (not held.shown, not held.enabled, held.ours, _age(held)))
        unseen = [held for held in there if held.ours and not held.shown]
        for held in unseen:
            why = "its secret was never shown, because the run that made it broke off"
            yield Change(Action.DELETE, held.endpoint, held.id, why=why)
        if len(unseen) == len(there):
            yield Change(Action.CREATE, endpoint, details=_made(("events", _listed(endpoint.events))))
            continue
        yield from _kept(there[0], endpoint)
        for extra in there[1:]:
            if extra.ours and extra.shown:
                yield Change(Action.DELETE, extra.endpoint, extra.id, why="every event would come twice")
    urls = {endpoint.url for endpoint in endpoints}
    notes += [
        f"the webhook endpoint {held.id} of ours calls another address and is left alone: {held.endpoint.url}"
        for held in account.endpoints
        if held.ours and urls and held.endpoint.url not in urls
    ]


def _kept(held: HeldEndpoint, endpoint: Endpoint) -> Iterator[Change]:
    events = endpoint.events
    if not held.ours:
        # Whoever made it may want more of it than we do.
        events |= held.endpoint.events
        if _ALL_EVENTS in events and endpoint.payload is Payload.SNAPSHOT:
            events = held.endpoint.events
    details = _changed(
        ("events", _listed(held.endpoint.events), _listed(events)), ("enabled", _yes(held.enabled), "yes")
    )
    if details:
        yield Change(Action.UPDATE, Endpoint(endpoint.payload, endpoint.url, events), held.id, details)


def _age(held: HeldPrice | HeldPortal | HeldEndpoint) -> tuple[int, str]:
    return held.created_s, held.id


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _listed(events: Iterable[str]) -> str:
    return ", ".join(sorted(events))


def _made(*fields: tuple[str, str | None]) -> tuple[Detail, ...]:
    return tuple(Detail(name, None, value) for name, value in fields if value is not None)


def _changed(*fields: tuple[str, str | None, str | None]) -> tuple[Detail, ...]:
    return tuple(Detail(*one) for one in fields if one[1] != one[2])
