"""An account in memory that does what changes say, told by another person than the one who works changes out: it knows
what Stripe refuses, and nothing of what is wanted."""

import itertools
from dataclasses import replace

from gatekeeper.rules.catalogue import Endpoint, Meter, Portal, Price, Product
from gatekeeper.rules.drift import (
    Account,
    Action,
    Change,
    HeldEndpoint,
    HeldMeter,
    HeldPortal,
    HeldPrice,
    HeldProduct,
)

_NUMBERS = itertools.count(1_000)


def carried_out(account: Account, changes: tuple[Change, ...]) -> Account:
    """The account after all of them; a secret is seen at once."""
    for change in changes:
        account = _one(account, change)
    return account


def _one(account: Account, change: Change) -> Account:
    number = next(_NUMBERS)
    match change.what:
        case Meter() as meter:
            others = tuple(held for held in account.meters if held.id != change.id)
            assert all(held.meter.event_name != meter.event_name or not held.active for held in others)
            return replace(account, meters=(*others, HeldMeter(change.id or f"mtr_{number}", meter, True)))
        case Product() as product:
            others = tuple(held for held in account.products if held.id != product.id)
            before = next((held for held in account.products if held.id == product.id), None)
            assert (before is None) == (change.action is Action.CREATE)
            active = change.action is not Action.ARCHIVE
            held = HeldProduct(product.id, product.name, active, product.plan_id, before and before.default_price)
            return replace(account, products=(*others, held))
        case Price() as price:
            return _price(account, change, price, number)
        case Portal() as portal:
            return _portal(account, change, portal, number)
        case Endpoint() as endpoint:
            others_ = tuple(held for held in account.endpoints if held.id != change.id)
            if change.action is Action.DELETE:
                return replace(account, endpoints=others_)
            before_ = next((held for held in account.endpoints if held.id == change.id), None)
            ours = before_ is None or before_.ours
            at = number if before_ is None else before_.created_s
            made = HeldEndpoint(change.id or f"we_{number}", endpoint, True, ours, True, at)
            return replace(account, endpoints=(*others_, made))


def _price(account: Account, change: Change, price: Price, number: int) -> Account:
    assert any(held.id == price.product_id for held in account.products), "a price needs its product"
    if change.action is Action.ARCHIVE:
        held = next(held for held in account.prices if held.id == change.id)
        products = account.products
        defaults = {product.default_price for product in products}
        if held.id in defaults:
            # "This price cannot be archived because it is the default price of its product."
            follower = next(one for one in account.prices if one.lookup_key == change.instead and one.active)
            products = tuple(
                replace(product, default_price=follower.id) if product.default_price == held.id else product
                for product in products
            )
        prices = tuple(replace(one, active=False) if one.id == held.id else one for one in account.prices)
        return replace(account, prices=prices, products=products)
    assert price.content is not None
    # transfer_lookup_key
    freed = tuple(
        replace(one, lookup_key=None) if one.lookup_key == price.lookup_key and one.id != change.id else one
        for one in account.prices
    )
    if change.action is Action.CREATE:
        meters = {held.meter.event_name for held in account.meters if held.active}
        assert price.content.meter is None or price.content.meter in meters, "the meter of a price must be active"
        made = HeldPrice(
            f"price_{number}",
            price.product_id,
            price.content,
            True,
            price.lookup_key,
            price.plan_id,
            price.role.value,
            number,
        )
        return replace(account, prices=(*freed, made))
    return replace(
        account,
        prices=tuple(
            replace(one, active=True, lookup_key=price.lookup_key, plan_id=price.plan_id, role=price.role.value)
            if one.id == change.id
            else one
            for one in freed
        ),
    )


def _portal(account: Account, change: Change, portal: Portal, number: int) -> Account:
    others = tuple(held for held in account.portals if held.id != change.id)
    before = next((held for held in account.portals if held.id == change.id), None)
    if change.action is Action.ARCHIVE:
        assert before is not None and not before.is_default, "a default configuration cannot be archived"
        return replace(account, portals=(*others, replace(before, active=False)))
    held = before or HeldPortal(f"bpc_{number}", portal, True, not account.portals, number)
    return replace(account, portals=(*others, replace(held, portal=portal, active=True)))
