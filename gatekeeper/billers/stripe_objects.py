"""What Stripe's catalogue looks like in our words, and back. Dicts in, values out: ``to_dict`` of the SDK's objects.

The rule: what is not understood of a price is noted as odd, so that it is never taken for one of ours.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gatekeeper.money import plain
from gatekeeper.rules.catalogue import Content, Endpoint, Meter, Payload, Portal, Price, Tier
from gatekeeper.rules.drift import HeldEndpoint, HeldMeter, HeldPortal, HeldPrice, HeldProduct

Raw = dict[str, Any]
# What we write on our objects.
PLAN = "gatekeeper_plan"
ROLE = "gatekeeper_price"
PART = "gatekeeper"
PORTAL = "portal"
WEBHOOKS = "webhooks"
SECRET = "gatekeeper_secret"
SHOWN = "shown"


def held_meter(raw: Raw) -> HeldMeter:
    """A billing meter."""
    mapping = raw.get("customer_mapping") or {}
    by = mapping.get("event_payload_key", "") if mapping.get("type") == "by_id" else f"type {mapping.get('type')}"
    meter = Meter(
        event_name=raw["event_name"],
        display_name=raw["display_name"],
        aggregation=raw["default_aggregation"]["formula"],
        customer_key=by,
        value_key=(raw.get("value_settings") or {}).get("event_payload_key", ""),
    )
    return HeldMeter(raw["id"], meter, raw["status"] == "active")


def held_product(raw: Raw) -> HeldProduct:
    """A product."""
    plan_id = (raw.get("metadata") or {}).get(PLAN)
    return HeldProduct(raw["id"], raw["name"], bool(raw["active"]), plan_id, _id(raw.get("default_price")))


def held_price(raw: Raw, event_names: Mapping[str, str]) -> HeldPrice:
    """A price with its tiers. ``event_names`` of meters by their ids."""
    marks = raw.get("metadata") or {}
    return HeldPrice(
        id=raw["id"],
        product_id=_id(raw["product"]) or "",
        content=_content(raw, event_names),
        active=bool(raw["active"]),
        lookup_key=raw.get("lookup_key"),
        plan_id=marks.get(PLAN),
        role=marks.get(ROLE),
        created_s=raw["created"],
    )


def _content(raw: Raw, event_names: Mapping[str, str]) -> Content:
    recurring = raw.get("recurring") or {}
    odd = [] if recurring else ["not recurring"]
    if raw.get("transform_quantity"):
        odd.append("with a divided quantity")
    metered = recurring.get("usage_type") == "metered"
    tiers: tuple[Tier, ...] = ()
    cents: Decimal | None = None
    if raw["billing_scheme"] == "tiered":
        if raw["tiers_mode"] != "graduated":
            odd.append(f"{raw['tiers_mode']} tiers")
        found: list[Raw] = raw.get("tiers") or []
        if any(Decimal(str(tier.get("flat_amount_decimal") or 0)) for tier in found):
            odd.append("with flat amounts")
        tiers = tuple(Tier(tier["up_to"], _cents(tier)) for tier in found)
    else:
        cents = _cents(raw)
    if metered and not tiers and cents is not None:
        tiers, cents = (Tier(None, cents),), None
    if tiers and not metered:
        odd.append("tiers of a quantity")
    meter_id = recurring.get("meter") or ""
    return Content(
        cents=cents,
        tiers=tiers,
        meter=event_names.get(meter_id, meter_id) if metered else None,
        currency=raw["currency"],
        every=f"{recurring.get('interval_count', 1)} {recurring.get('interval', 'time')}",
        odd=", ".join(odd),
    )


def _cents(raw: Raw) -> Decimal:
    exact = raw.get("unit_amount_decimal")
    return Decimal(str(exact if exact is not None else raw.get("unit_amount") or 0))


def held_portal(raw: Raw) -> HeldPortal:
    """A portal configuration."""
    features = raw["features"]

    def on(name: str) -> bool:
        return bool((features.get(name) or {}).get("enabled"))

    updates = ",".join(sorted((features.get("customer_update") or {}).get("allowed_updates") or ()))
    cancel = (features.get("subscription_cancel") or {}).get("mode") or "at_period_end"
    found = (
        ("customer_update", updates if on("customer_update") else "off"),
        ("invoice_history", "on" if on("invoice_history") else "off"),
        ("payment_method_update", "on" if on("payment_method_update") else "off"),
        ("subscription_cancel", cancel if on("subscription_cancel") else "off"),
        ("subscription_update", "on" if on("subscription_update") else "off"),
    )
    portal = Portal(raw.get("default_return_url"), found)
    return HeldPortal(raw["id"], portal, bool(raw["active"]), bool(raw["is_default"]), raw["created"])


def held_endpoint(raw: Raw) -> HeldEndpoint:
    """A webhook endpoint of v1."""
    return _endpoint(raw, Payload.SNAPSHOT, raw["url"])


def held_destination(raw: Raw) -> HeldEndpoint | None:
    """An event destination of v2; None where it is no web hook with thin events."""
    if raw["type"] != "webhook_endpoint" or raw["event_payload"] != "thin":
        return None
    return _endpoint(raw, Payload.THIN, (raw.get("webhook_endpoint") or {}).get("url") or "")


def _endpoint(raw: Raw, payload: Payload, url: str) -> HeldEndpoint:
    marks = raw.get("metadata") or {}
    ours = marks.get(PART) == WEBHOOKS
    created = raw["created"]
    return HeldEndpoint(
        id=raw["id"],
        endpoint=Endpoint(payload, url, frozenset(raw["enabled_events"])),
        enabled=raw["status"] == "enabled",
        ours=ours,
        shown=not ours or marks.get(SECRET) == SHOWN,
        # v2 writes times as text; of two, which is the older one is all that is asked.
        created_s=created if isinstance(created, int) else 0,
    )


def price_params(price: Price, meter_id: str | None) -> Raw:
    """The parameters that make a price. Decimals as plain text: the SDK would write a small one as 1E-7."""
    content = price.content
    assert content is not None, price
    recurring: Raw = {"interval": "month", "usage_type": price.role.value}
    params: Raw = {
        "product": price.product_id,
        "currency": content.currency,
        "recurring": recurring,
        "lookup_key": price.lookup_key,
        # Whatever has the key now is another price.
        "transfer_lookup_key": True,
        "nickname": price.title,
        "metadata": {PLAN: price.plan_id, ROLE: price.role.value},
    }
    if content.cents is not None:
        return params | {"unit_amount_decimal": plain(content.cents)}
    recurring["meter"] = meter_id
    tiers = [
        {"up_to": "inf" if tier.up_to is None else tier.up_to, "unit_amount_decimal": plain(tier.cents)}
        for tier in content.tiers
    ]
    return params | {"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": tiers}


def portal_params(portal: Portal) -> Raw:
    """The parameters of a portal configuration."""
    features: Raw = {}
    how = dict(portal.features)
    for name, far in how.items():
        features[name] = {"enabled": far != "off"}
    if how["customer_update"] != "off":
        features["customer_update"]["allowed_updates"] = how["customer_update"].split(",")
    if how["subscription_cancel"] != "off":
        features["subscription_cancel"]["mode"] = how["subscription_cancel"]
    return {"features": features, "default_return_url": portal.return_url or "", "metadata": {PART: PORTAL}}


def _id(value: object) -> str | None:
    """The id of what may be there as an id or as the whole object."""
    return value["id"] if isinstance(value, dict) else value if isinstance(value, str) else None
