"""Products, prices, meters, portal and webhook endpoints of a Stripe account. See ``ports.Catalogue``.

The rule: everything ours is marked, everything listed is read to its end, and nothing of the other mode is touched.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import Any

import stripe

from gatekeeper.billers.stripe_client import STRIPE_VERSION, Wire, asked, connect, is_live
from gatekeeper.billers.stripe_objects import (
    PART,
    PLAN,
    PORTAL,
    ROLE,
    SECRET,
    SHOWN,
    WEBHOOKS,
    Raw,
    held_destination,
    held_endpoint,
    held_meter,
    held_portal,
    held_price,
    held_product,
    portal_params,
    price_params,
)
from gatekeeper.config.gateway import StripeConfig
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import Made
from gatekeeper.rules.billing import NotTaken
from gatekeeper.rules.catalogue import Endpoint, Meter, Payload, Portal, Price, Product, product_id
from gatekeeper.rules.drift import Account, Action, Change

# Of one kind. A larger account is not one that plans are sold from, and would take minutes to read.
OBJECTS_MAX = 10_000
_PAGE = 100
# https://docs.stripe.com/api/prices/list: keys in one call.
_LOOKUP_KEYS_MAX = 10


class StripeCatalogue:
    """``wire`` is what requests go through; closed with the catalogue. Raises NotTaken for a key of no known kind."""

    def __init__(self, config: StripeConfig, wire: Wire | None = None) -> None:
        self._live = is_live(config)
        self._wire = Wire() if wire is None else wire
        self._client = connect(config, self._wire)

    @property
    def live(self) -> bool:
        """By its key."""
        return self._live

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.aclose()

    async def read(self, names: Collection[str]) -> Account:
        """Some ten requests, and one for each plan."""
        v1 = self._client.v1
        meters = await self._all(lambda: v1.billing.meters.list_async({"limit": _PAGE}))
        event_names = {raw["id"]: raw["event_name"] for raw in meters}
        products = [
            held
            for held in map(held_product, await self._all(lambda: v1.products.list_async({"limit": _PAGE})))
            if held.plan_id is not None or held.id.startswith(product_id(""))
        ]
        prices: dict[str, Raw] = {}
        for product in products:
            prices |= await self._prices({"product": product.id})
        prices |= await self._named([name for name in sorted(set(names)) if name not in prices])
        portals = await self._all(lambda: v1.billing_portal.configurations.list_async({"limit": _PAGE}))
        return Account(
            meters=tuple(map(held_meter, meters)),
            products=tuple(products),
            prices=tuple(held_price(raw, event_names) for raw in prices.values()),
            portals=tuple(held_portal(raw) for raw in portals if _marked(raw, PORTAL)),
            endpoints=tuple(await self._endpoints()),
        )

    async def perform(self, change: Change, idempotency_key: str) -> Made:
        """One change, with as many calls as it takes; each of them can be made again."""
        match change.what:
            case Meter() as meter:
                return await self._meter(change, meter, idempotency_key)
            case Product() as product:
                return await self._product(change, product, idempotency_key)
            case Price() as price:
                return await self._price(change, price, idempotency_key)
            case Portal() as portal:
                return await self._portal(change, portal, idempotency_key)
            case Endpoint() as endpoint:
                return await self._endpoint(change, endpoint, idempotency_key)

    async def shown(self, endpoint: Change, endpoint_id: str) -> None:
        """Mark it."""
        marked: Any = {"metadata": {PART: WEBHOOKS, SECRET: SHOWN}}
        assert isinstance(endpoint.what, Endpoint), endpoint
        if endpoint.what.payload is Payload.SNAPSHOT:
            await asked(lambda: self._client.v1.webhook_endpoints.update_async(endpoint_id, marked))
        else:
            await asked(lambda: self._client.v2.core.event_destinations.update_async(endpoint_id, marked))

    async def _meter(self, change: Change, meter: Meter, key: str) -> Made:
        meters = self._client.v1.billing.meters
        if change.id is None:
            params: Any = {
                "event_name": meter.event_name,
                "display_name": meter.display_name,
                "default_aggregation": {"formula": meter.aggregation},
                "customer_mapping": {"type": "by_id", "event_payload_key": meter.customer_key},
                "value_settings": {"event_payload_key": meter.value_key},
            }
            return await self._made(lambda: meters.create_async(params, {"idempotency_key": key}))
        meter_id = change.id
        if any(detail.name == "active" for detail in change.details):
            await asked(lambda: meters.reactivate_async(meter_id))
        return await self._made(lambda: meters.update_async(meter_id, {"display_name": meter.display_name}))

    async def _product(self, change: Change, product: Product, key: str) -> Made:
        products = self._client.v1.products
        wanted: Any = {"name": product.name, "metadata": {PLAN: product.plan_id}}
        if change.id is None:
            params: Any = {"id": product.id, **wanted}
            return await self._made(lambda: products.create_async(params, {"idempotency_key": key}))
        held_id = change.id
        update: Any = {"active": False} if change.action is Action.ARCHIVE else {"active": True, **wanted}
        return await self._made(lambda: products.update_async(held_id, update))

    async def _price(self, change: Change, price: Price, key: str) -> Made:
        prices = self._client.v1.prices
        if change.id is None:
            meter_id = None
            if price.content is not None and price.content.meter is not None:
                meter_id = await self._meter_id(price.content.meter)
            params: Any = price_params(price, meter_id)
            return await self._made(lambda: prices.create_async(params, {"idempotency_key": key}))
        held_id = change.id
        update: Any = {
            "active": True,
            "lookup_key": price.lookup_key,
            "transfer_lookup_key": True,
            "metadata": {PLAN: price.plan_id, ROLE: price.role.value},
        }
        if change.action is Action.ARCHIVE:
            update = {"active": False}
            if change.instead is not None:
                await self._replace_default(price.product_id, change.instead)
        return await self._made(lambda: prices.update_async(held_id, update))

    async def _replace_default(self, product: str, lookup_key: str) -> None:
        """The default price of a product cannot be archived."""
        for price_id, raw in (await self._prices({"lookup_keys": [lookup_key], "active": True})).items():
            if raw["product"] == product:
                update: Any = {"default_price": price_id}
                await self._made(partial(self._client.v1.products.update_async, product, update))

    async def _portal(self, change: Change, portal: Portal, key: str) -> Made:
        configurations = self._client.v1.billing_portal.configurations
        params: Any = portal_params(portal)
        if change.id is None:
            return await self._made(lambda: configurations.create_async(params, {"idempotency_key": key}))
        held_id = change.id
        update: Any = {"active": False} if change.action is Action.ARCHIVE else {"active": True, **params}
        return await self._made(lambda: configurations.update_async(held_id, update))

    async def _endpoint(self, change: Change, endpoint: Endpoint, key: str) -> Made:
        if endpoint.payload is Payload.THIN:
            return await self._destination(change, endpoint, key)
        endpoints = self._client.v1.webhook_endpoints
        events = sorted(endpoint.events)
        if change.id is None:
            params: Any = {
                "url": endpoint.url,
                "enabled_events": events,
                "api_version": STRIPE_VERSION,
                "metadata": {PART: WEBHOOKS},
            }
            return await self._made(lambda: endpoints.create_async(params, {"idempotency_key": key}))
        held_id = change.id
        if change.action is Action.DELETE:
            return await self._made(lambda: endpoints.delete_async(held_id))
        update: Any = {"enabled_events": events, "disabled": False}
        return await self._made(lambda: endpoints.update_async(held_id, update))

    async def _destination(self, change: Change, endpoint: Endpoint, key: str) -> Made:
        destinations = self._client.v2.core.event_destinations
        events = sorted(endpoint.events)
        if change.id is None:
            params: Any = {
                "name": "gatekeeper",
                "type": "webhook_endpoint",
                "event_payload": "thin",
                "enabled_events": events,
                "webhook_endpoint": {"url": endpoint.url},
                "include": ["webhook_endpoint.signing_secret"],
                "metadata": {PART: WEBHOOKS},
            }
            return await self._made(lambda: destinations.create_async(params, {"idempotency_key": key}))
        held_id = change.id
        if change.action is Action.DELETE:
            return await self._made(lambda: destinations.delete_async(held_id))
        if any(detail.name == "enabled" for detail in change.details):
            await asked(lambda: destinations.enable_async(held_id))
        return await self._made(lambda: destinations.update_async(held_id, {"enabled_events": events}))

    async def _made(self, call: Callable[[], Awaitable[Any]]) -> Made:
        raw: Raw = (await asked(call)).to_dict()
        self._check_mode([raw])
        secret = raw.get("secret") or (raw.get("webhook_endpoint") or {}).get("signing_secret")
        return Made(raw["id"], secret)

    async def _meter_id(self, event_name: str) -> str:
        for raw in await self._all(
            lambda: self._client.v1.billing.meters.list_async({"status": "active", "limit": _PAGE})
        ):
            if raw["event_name"] == event_name:
                return str(raw["id"])
        raise NotTaken(f"there is no active meter {event_name!r} in the account")

    async def _prices(self, by: dict[str, Any]) -> dict[str, Raw]:
        params: Any = {**by, "limit": _PAGE, "expand": ["data.tiers"]}
        return {raw["id"]: raw for raw in await self._all(lambda: self._client.v1.prices.list_async(params))}

    async def _named(self, names: list[str]) -> dict[str, Raw]:
        """Prices by their lookup keys or ids."""
        found: dict[str, Raw] = {}
        for at in range(0, len(names), _LOOKUP_KEYS_MAX):
            found |= await self._prices({"lookup_keys": names[at : at + _LOOKUP_KEYS_MAX]})
        keys = {raw["lookup_key"] for raw in found.values()}
        for name in names:
            if name not in keys and name not in found:
                raw = await self._by_id(name)
                found |= {} if raw is None else {name: raw}
        return found

    async def _by_id(self, price_id: str) -> Raw | None:
        async def retrieve() -> Raw | None:
            try:
                found = await self._client.v1.prices.retrieve_async(price_id, {"expand": ["tiers"]})
            except stripe.InvalidRequestError as error:
                if error.http_status == 404:
                    return None
                raise
            return found.to_dict()

        raw = await asked(retrieve)
        self._check_mode([] if raw is None else [raw])
        return raw

    async def _endpoints(self) -> list[Any]:
        v1 = await self._all(lambda: self._client.v1.webhook_endpoints.list_async({"limit": _PAGE}))
        listed: Any = {"limit": _PAGE, "include": ["webhook_endpoint.url"]}
        v2 = await self._all(lambda: self._client.v2.core.event_destinations.list_async(listed))
        thin = [held for held in map(held_destination, v2) if held is not None]
        return [*map(held_endpoint, v1), *thin]

    async def _all(self, listing: Callable[[], Awaitable[Any]]) -> list[Raw]:
        """A whole list, page after page, as dicts."""

        async def pages() -> list[Raw]:
            page = await listing()
            found: list[Raw] = []
            items: AsyncIterator[Any] = page.auto_paging_iter()
            async for item in items:
                found.append(item.to_dict())
                if len(found) > OBJECTS_MAX:
                    raise Fault("stripe", FaultKind.PROTOCOL, f"a list has more than {OBJECTS_MAX} objects")
            return found

        found = await asked(pages)
        self._check_mode(found)
        return found

    def _check_mode(self, found: Iterable[Raw]) -> None:
        for raw in found:
            if raw.get("livemode", self._live) is not self._live:
                ours, theirs = ("live", "test") if self._live else ("test", "live")
                raise NotTaken(f"the secret key is for {ours} mode, and {raw.get('id')} is a {theirs} mode object")


def _marked(raw: Raw, part: str) -> bool:
    return bool((raw.get("metadata") or {}).get(PART) == part)
