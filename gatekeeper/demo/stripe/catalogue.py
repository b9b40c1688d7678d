"""Products and prices. The rule: a price's amounts never change; only what https://docs.stripe.com/api/prices/update
names can be updated, and the SDK's types refuse the rest."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gatekeeper.demo.stripe.account import Account, Stored, set_fields
from gatekeeper.demo.stripe.listing import matching, page
from gatekeeper.demo.stripe.refusing import invalid
from gatekeeper.money import plain

_PRODUCT_FIELDS = ("name", "active", "description", "unit_label", "statement_descriptor", "tax_code", "url")
LOOKUP_KEY_CHARACTERS_MAX = 200
LOOKUP_KEYS_MAX = 10


class Catalogue:
    """Products and prices of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create_product(self, params: Mapping[str, Any]) -> Stored:
        """A product; an id may be chosen. Raises Refused (400) for one that is taken."""
        if params.get("id") in self._account.shelf("product"):
            raise invalid("Product already exists.", "id", "resource_already_exists")
        made = self._account.put(
            "product",
            "prod",
            {
                "id": params.get("id"),
                **{name: params.get(name) or None for name in _PRODUCT_FIELDS},
                "active": params.get("active", True),
                "default_price": None,
                "type": "service",
                "images": [],
                "updated": self._account.now_s,
                "metadata": params.get("metadata") or {},
            },
        )
        if "default_price_data" in params:
            first = self.create_price({**params["default_price_data"], "product": made["id"]})
            made["default_price"] = first["id"]
        self._account.emit("product.created", made, None)
        return made

    def update_product(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """Change what is given. Raises Refused (404)."""
        found = self._account.get("product", identifier)
        before = set_fields(found, params, (*_PRODUCT_FIELDS, "default_price"))
        found["updated"] = self._account.now_s
        self._account.emit("product.updated", found, before)
        return found

    def list_products(self, params: Mapping[str, Any]) -> Stored:
        """Products by active, ids, url."""
        found = matching(self._account.shelf("product").values(), params, ("active", "url"))
        if "ids" in params:
            found = [row for row in found if row["id"] in params["ids"]]
        return page("/v1/products", found, params)

    def create_price(self, params: Mapping[str, Any]) -> Stored:
        """A price, licensed or metered, for each unit or in tiers. Raises Refused (400)."""
        if ("product" in params) == ("product_data" in params):
            raise invalid("You must specify either `product` or `product_data` when creating a price.", "product")
        recurring = self._recurring(params.get("recurring"))
        amounts = _amounts(params)
        if recurring is None and amounts["billing_scheme"] == "tiered":
            raise invalid("Tiered prices must be recurring.", "tiers")
        if "product" in params:
            product_id = self._account.get("product", params["product"], "product")["id"]
        else:
            product_id = self.create_product(params["product_data"])["id"]
        lookup_key = self._lookup_key(params)
        made = self._account.put(
            "price",
            "price",
            {
                "active": params.get("active", True),
                **amounts,
                "currency": params["currency"].lower(),
                "custom_unit_amount": None,
                "lookup_key": lookup_key,
                "metadata": params.get("metadata") or {},
                "nickname": params.get("nickname") or None,
                "product": product_id,
                "recurring": recurring,
                "tax_behavior": params.get("tax_behavior", "unspecified"),
                "transform_quantity": params.get("transform_quantity"),
                "type": "recurring" if recurring else "one_time",
            },
        )
        self._account.emit("price.created", made, None)
        return made

    def update_price(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """active, lookup_key, metadata, nickname, tax_behavior. Raises Refused (400, 404)."""
        found = self._account.get("price", identifier)
        lookup_key = self._lookup_key(params, identifier) if "lookup_key" in params else found["lookup_key"]
        before = set_fields(found, params, ("active", "nickname", "tax_behavior"))
        if lookup_key != found["lookup_key"]:
            before["lookup_key"] = found["lookup_key"]
            found["lookup_key"] = lookup_key
        self._account.emit("price.updated", found, before)
        return found

    def list_prices(self, params: Mapping[str, Any]) -> Stored:
        """Prices by active, currency, product, type, lookup_keys (at most 10), recurring."""
        found = list(matching(self._account.shelf("price").values(), params, ("active", "currency", "product", "type")))
        if "lookup_keys" in params:
            if len(params["lookup_keys"]) > LOOKUP_KEYS_MAX:
                raise invalid(f"You may specify up to {LOOKUP_KEYS_MAX} lookup_keys.", "lookup_keys")
            found = [row for row in found if row["lookup_key"] in params["lookup_keys"]]
        for name, wanted in params.get("recurring", {}).items():
            found = [row for row in found if row["recurring"] and row["recurring"].get(name) == wanted]
        return page("/v1/prices", found, params)

    def _recurring(self, given: Mapping[str, Any] | None) -> Stored | None:
        if given is None:
            return None
        usage_type = given.get("usage_type", "licensed")
        meter = given.get("meter")
        if usage_type == "metered":
            # https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-legacy-usage-based-billing
            if meter is None:
                raise invalid("Metered prices must be backed by a meter.", "recurring[meter]")
            if self._account.get("billing.meter", meter, "recurring[meter]")["status"] != "active":
                raise invalid("The meter of a price must be active.", "recurring[meter]")
        elif meter is not None:
            raise invalid("Only metered prices can have a meter.", "recurring[meter]")
        return {
            "interval": given["interval"],
            "interval_count": given.get("interval_count", 1),
            "meter": meter,
            "trial_period_days": given.get("trial_period_days"),
            "usage_type": usage_type,
        }

    def _lookup_key(self, params: Mapping[str, Any], own_id: str | None = None) -> str | None:
        key: str | None = params.get("lookup_key") or None
        if key is None:
            return None
        if len(key) > LOOKUP_KEY_CHARACTERS_MAX:
            raise invalid("Lookup keys may be at most 200 characters long.", "lookup_key")
        holders = [row for row in self._account.shelf("price").values() if row["lookup_key"] == key]
        for holder in holders:
            if holder["id"] == own_id:
                continue
            if not params.get("transfer_lookup_key"):
                raise invalid(
                    f"A price (`{holder['id']}`) already uses that lookup key. You can set `transfer_lookup_key` to "
                    "move it.",
                    "lookup_key",
                )
            holder["lookup_key"] = None
            self._account.emit("price.updated", holder, {"lookup_key": key})
        return key


def _amounts(params: Mapping[str, Any]) -> Stored:
    if params.get("billing_scheme", "per_unit") != "tiered":
        if "tiers" in params:
            raise invalid("`tiers` requires `billing_scheme` to be `tiered`.", "tiers")
        whole, exact = _amount(params, "unit_amount")
        if exact is None:
            raise invalid("One of `unit_amount` or `unit_amount_decimal` is required.", "unit_amount")
        return {
            "billing_scheme": "per_unit",
            "unit_amount": whole,
            "unit_amount_decimal": exact,
            "tiers": None,
            "tiers_mode": None,
        }
    if not params.get("tiers") or "tiers_mode" not in params:
        raise invalid("A tiered price needs `tiers` and `tiers_mode`.", "tiers")
    if "unit_amount" in params or "unit_amount_decimal" in params or "transform_quantity" in params:
        raise invalid("A tiered price has its amounts in `tiers`.", "unit_amount")
    return {
        "billing_scheme": "tiered",
        "unit_amount": None,
        "unit_amount_decimal": None,
        "tiers": _tiers(params["tiers"]),
        "tiers_mode": params["tiers_mode"],
    }


def _tiers(given: list[Mapping[str, Any]]) -> list[Stored]:
    bounds = [tier["up_to"] for tier in given]
    if bounds[-1] != "inf" or "inf" in bounds[:-1]:
        raise invalid("The last tier must have `up_to` of `inf`.", "tiers")
    if any(upper <= lower for lower, upper in zip([0, *bounds[:-2]], bounds[:-1], strict=True)):
        raise invalid("Tiers must be ascending.", "tiers")
    made: list[Stored] = []
    for tier in given:
        unit, unit_exact = _amount(tier, "unit_amount")
        flat, flat_exact = _amount(tier, "flat_amount")
        if unit_exact is None and flat_exact is None:
            raise invalid("Each tier needs a unit amount or a flat amount.", "tiers")
        made.append(
            {
                "up_to": None if tier["up_to"] == "inf" else tier["up_to"],
                "unit_amount": unit,
                "unit_amount_decimal": unit_exact,
                "flat_amount": flat,
                "flat_amount_decimal": flat_exact,
            }
        )
    return made


def _amount(given: Mapping[str, Any], name: str) -> tuple[int | None, str | None]:
    """Cents as an integer (None if they are not whole) and as a decimal text, as answers show them
    (https://docs.stripe.com/billing/subscriptions/decimal-amounts)."""
    if name in given and f"{name}_decimal" in given:
        raise invalid(f"Only one of `{name}` and `{name}_decimal` can be set.", name)
    exact = given.get(name, given.get(f"{name}_decimal"))
    if exact is None:
        return None, None
    exact = Decimal(exact)
    if exact < 0:
        raise invalid(f"`{name}` must not be negative.", name)
    whole = int(exact) if exact == exact.to_integral_value() else None
    return whole, plain(exact)
