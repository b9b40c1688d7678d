"""The URLs of the fake: method, path, the SDK's type of the parameters, and who answers.

The rule: one line for each URL; a URL that is not here is a 404 "Unrecognized request URL", as Stripe says it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gatekeeper.demo.stripe.account import Stored
from gatekeeper.demo.stripe.refusing import invalid
from gatekeeper.demo.stripe.rooms import Rooms


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, its parameters typed. ``ids`` are the values of the path's placeholders, in order."""

    ids: tuple[str, ...]
    params: Mapping[str, Any]
    version: str
    idempotency_key: str

    @property
    def id(self) -> str:
        """The only placeholder's value."""
        return self.ids[0]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``shape``: the class in ``stripe.params`` (dotted for its packages) that the parameters must satisfy."""

    method: str
    path: str
    shape: str
    answer: Callable[[Asked], Stored]

    def params_type(self) -> type:
        """The SDK's TypedDict; imported late, the provider half of the demo runs without it."""
        from importlib import import_module

        package, _, name = self.shape.rpartition(".")
        module = import_module(f"stripe.params.{package}" if package else "stripe.params")
        found: type = getattr(module, name)
        return found


def endpoints(rooms: Rooms) -> list[Endpoint]:
    """All of them."""
    return [
        *_selling(rooms),
        *_metering(rooms),
        *_subscribing(rooms),
        *_invoicing(rooms),
        *_visiting(rooms),
        *_telling(rooms),
    ]


def _selling(rooms: Rooms) -> list[Endpoint]:
    account, customers, catalogue = rooms.account, rooms.customers, rooms.catalogue
    return [
        Endpoint("POST", "/v1/customers", "CustomerCreateParams", lambda a: customers.create(a.params)),
        Endpoint("GET", "/v1/customers", "CustomerListParams", lambda a: customers.listed(a.params)),
        Endpoint("GET", "/v1/customers/{id}", "CustomerRetrieveParams", lambda a: customers.retrieve(a.id)),
        Endpoint("POST", "/v1/customers/{id}", "CustomerUpdateParams", lambda a: customers.update(a.id, a.params)),
        Endpoint("DELETE", "/v1/customers/{id}", "CustomerDeleteParams", lambda a: customers.delete(a.id)),
        Endpoint("POST", "/v1/products", "ProductCreateParams", lambda a: catalogue.create_product(a.params)),
        Endpoint("GET", "/v1/products", "ProductListParams", lambda a: catalogue.list_products(a.params)),
        Endpoint("GET", "/v1/products/{id}", "ProductRetrieveParams", lambda a: account.get("product", a.id)),
        Endpoint(
            "POST", "/v1/products/{id}", "ProductUpdateParams", lambda a: catalogue.update_product(a.id, a.params)
        ),
        Endpoint("POST", "/v1/prices", "PriceCreateParams", lambda a: catalogue.create_price(a.params)),
        Endpoint("GET", "/v1/prices", "PriceListParams", lambda a: catalogue.list_prices(a.params)),
        Endpoint("GET", "/v1/prices/{id}", "PriceRetrieveParams", lambda a: account.get("price", a.id)),
        Endpoint("POST", "/v1/prices/{id}", "PriceUpdateParams", lambda a: catalogue.update_price(a.id, a.params)),
    ]


def _metering(rooms: Rooms) -> list[Endpoint]:
    account, meters, usage = rooms.account, rooms.meters, rooms.usage
    top = "/v1/billing/meters"
    return [
        Endpoint("POST", top, "billing.MeterCreateParams", lambda a: meters.create(a.params)),
        Endpoint("GET", top, "billing.MeterListParams", lambda a: meters.listed(a.params)),
        Endpoint("GET", f"{top}/{{id}}", "billing.MeterRetrieveParams", lambda a: account.get("billing.meter", a.id)),
        Endpoint("POST", f"{top}/{{id}}", "billing.MeterUpdateParams", lambda a: meters.update(a.id, a.params)),
        Endpoint(
            "POST", f"{top}/{{id}}/deactivate", "billing.MeterDeactivateParams",
            lambda a: meters.deactivate(a.id),
        ),
        Endpoint(
            "POST", f"{top}/{{id}}/reactivate", "billing.MeterReactivateParams",
            lambda a: meters.reactivate(a.id),
        ),
        Endpoint(
            "GET", f"{top}/{{id}}/event_summaries", "billing.MeterEventSummaryListParams",
            lambda a: usage.summaries(a.id, a.params),
        ),
        Endpoint(
            "POST", METER_EVENTS, "billing.MeterEventCreateParams", lambda a: usage.create(a.params, a.idempotency_key)
        ),
        Endpoint(
            "POST", "/v1/billing/meter_event_adjustments", "billing.MeterEventAdjustmentCreateParams",
            lambda a: usage.cancel(a.params),
        ),
    ]  # fmt: skip


def _subscribing(rooms: Rooms) -> list[Endpoint]:
    account, subscriptions, schedules = rooms.account, rooms.subscriptions, rooms.schedules
    top, sched = "/v1/subscriptions", "/v1/subscription_schedules"
    return [
        Endpoint("POST", top, "SubscriptionCreateParams", lambda a: subscriptions.create(a.params, a.version)),
        Endpoint("GET", top, "SubscriptionListParams", lambda a: subscriptions.listed(a.params)),
        Endpoint("GET", f"{top}/{{id}}", "SubscriptionRetrieveParams", lambda a: account.get("subscription", a.id)),
        Endpoint("POST", f"{top}/{{id}}", "SubscriptionUpdateParams", lambda a: subscriptions.update(a.id, a.params)),
        Endpoint("DELETE", f"{top}/{{id}}", "SubscriptionCancelParams", lambda a: subscriptions.cancel(a.id, a.params)),
        Endpoint("POST", sched, "SubscriptionScheduleCreateParams", lambda a: schedules.create(a.params)),
        Endpoint("GET", sched, "SubscriptionScheduleListParams", lambda a: schedules.listed(a.params)),
        Endpoint(
            "GET", f"{sched}/{{id}}", "SubscriptionScheduleRetrieveParams",
            lambda a: account.get("subscription_schedule", a.id),
        ),
        Endpoint(
            "POST", f"{sched}/{{id}}", "SubscriptionScheduleUpdateParams", lambda a: schedules.update(a.id, a.params)
        ),
        Endpoint(
            "POST", f"{sched}/{{id}}/release", "SubscriptionScheduleReleaseParams",
            lambda a: schedules.release(a.id),
        ),
        Endpoint(
            "POST", f"{sched}/{{id}}/cancel", "SubscriptionScheduleCancelParams",
            lambda a: schedules.cancel(a.id, a.params),
        ),
    ]  # fmt: skip


def _invoicing(rooms: Rooms) -> list[Endpoint]:
    account, invoices = rooms.account, rooms.invoices
    top, items = "/v1/invoices", "/v1/invoiceitems"

    def create_item(asked: Asked) -> Stored:
        made = rooms.invoice_items.create(asked.params)
        if "invoice" in asked.params:
            invoices.attach(asked.params["invoice"], made["_recipe"])
            made["invoice"] = asked.params["invoice"]
        return made

    return [
        Endpoint(
            "POST", f"{top}/create_preview", "InvoiceCreatePreviewParams",
            lambda a: rooms.subscriptions.upcoming(a.params),
        ),
        Endpoint("POST", top, "InvoiceCreateParams", lambda a: invoices.create(a.params)),
        Endpoint("GET", top, "InvoiceListParams", lambda a: invoices.listed(a.params)),
        Endpoint("GET", f"{top}/{{id}}", "InvoiceRetrieveParams", lambda a: account.get("invoice", a.id)),
        Endpoint("POST", f"{top}/{{id}}", "InvoiceUpdateParams", lambda a: invoices.update(a.id, a.params)),
        Endpoint(
            "GET", f"{top}/{{id}}/lines", "InvoiceLineItemListParams",
            lambda a: invoices.list_lines(a.id, a.params),
        ),
        Endpoint("POST", f"{top}/{{id}}/finalize", "InvoiceFinalizeInvoiceParams", lambda a: invoices.finalize(a.id)),
        Endpoint("POST", f"{top}/{{id}}/pay", "InvoicePayParams", lambda a: invoices.pay(a.id, a.params)),
        Endpoint("POST", f"{top}/{{id}}/void", "InvoiceVoidInvoiceParams", lambda a: invoices.void(a.id)),
        Endpoint(
            "POST", f"{top}/{{id}}/mark_uncollectible", "InvoiceMarkUncollectibleParams",
            lambda a: invoices.mark_uncollectible(a.id),
        ),
        Endpoint("POST", items, "InvoiceItemCreateParams", create_item),
        Endpoint("GET", items, "InvoiceItemListParams", lambda a: rooms.invoice_items.listed(a.params)),
        Endpoint("GET", f"{items}/{{id}}", "InvoiceItemRetrieveParams", lambda a: account.get("invoiceitem", a.id)),
        Endpoint("DELETE", f"{items}/{{id}}", "InvoiceItemDeleteParams", lambda a: rooms.invoice_items.delete(a.id)),
    ]  # fmt: skip


def _visiting(rooms: Rooms) -> list[Endpoint]:
    account, checkout, portal = rooms.account, rooms.checkout, rooms.portal
    top, settings = "/v1/checkout/sessions", "/v1/billing_portal/configurations"
    return [
        Endpoint("POST", top, "checkout.SessionCreateParams", lambda a: checkout.create(a.params)),
        Endpoint("GET", top, "checkout.SessionListParams", lambda a: checkout.listed(a.params)),
        Endpoint(
            "GET", f"{top}/{{id}}", "checkout.SessionRetrieveParams",
            lambda a: account.get("checkout.session", a.id),
        ),
        Endpoint("POST", f"{top}/{{id}}/expire", "checkout.SessionExpireParams", lambda a: checkout.expire(a.id)),
        Endpoint(
            "GET", f"{top}/{{id}}/line_items", "checkout.SessionLineItemListParams",
            lambda a: checkout.list_lines(a.id, a.params),
        ),
        Endpoint(
            "POST", "/v1/billing_portal/sessions", "billing_portal.SessionCreateParams", lambda a: portal.open(a.params)
        ),
        Endpoint("POST", settings, "billing_portal.ConfigurationCreateParams", lambda a: portal.configure(a.params)),
        Endpoint("GET", settings, "billing_portal.ConfigurationListParams", lambda a: portal.configurations(a.params)),
        Endpoint(
            "GET", f"{settings}/{{id}}", "billing_portal.ConfigurationRetrieveParams",
            lambda a: account.get("billing_portal.configuration", a.id),
        ),
        Endpoint(
            "POST", f"{settings}/{{id}}", "billing_portal.ConfigurationUpdateParams",
            lambda a: portal.reconfigure(a.id, a.params),
        ),
    ]  # fmt: skip


def _telling(rooms: Rooms) -> list[Endpoint]:
    account, webhooks, happenings = rooms.account, rooms.webhooks, rooms.happenings
    top, v2 = "/v1/webhook_endpoints", "/v2/core/event_destinations"

    def destination(asked: Asked) -> Stored:
        if asked.params["event_payload"] == "thin" and "snapshot_api_version" in asked.params:
            raise invalid("Thin events have no version.", "snapshot_api_version")
        return webhooks.create_destination(asked.params)

    return [
        Endpoint("POST", top, "WebhookEndpointCreateParams", lambda a: webhooks.create(a.params)),
        Endpoint("GET", top, "WebhookEndpointListParams", lambda a: webhooks.listed(a.params)),
        Endpoint(
            "GET", f"{top}/{{id}}", "WebhookEndpointRetrieveParams",
            lambda a: account.get("webhook_endpoint", a.id),
        ),
        Endpoint("POST", f"{top}/{{id}}", "WebhookEndpointUpdateParams", lambda a: webhooks.update(a.id, a.params)),
        Endpoint("DELETE", f"{top}/{{id}}", "WebhookEndpointDeleteParams", lambda a: webhooks.delete(a.id)),
        Endpoint("GET", "/v1/events", "EventListParams", lambda a: happenings.listed(a.params)),
        Endpoint("GET", "/v1/events/{id}", "EventRetrieveParams", lambda a: happenings.retrieve(a.id)),
        Endpoint("POST", v2, "v2.core.EventDestinationCreateParams", destination),
        Endpoint("GET", v2, "v2.core.EventDestinationListParams", lambda a: webhooks.list_destinations(a.params)),
        Endpoint(
            "GET", f"{v2}/{{id}}", "v2.core.EventDestinationRetrieveParams",
            lambda a: webhooks.retrieve_destination(a.id, a.params),
        ),
        Endpoint(
            "POST", f"{v2}/{{id}}", "v2.core.EventDestinationUpdateParams",
            lambda a: webhooks.update_destination(a.id, a.params),
        ),
        Endpoint(
            "DELETE", f"{v2}/{{id}}", "v2.core.EventDestinationDeleteParams",
            lambda a: webhooks.delete_destination(a.id),
        ),
        Endpoint(
            "POST", f"{v2}/{{id}}/enable", "v2.core.EventDestinationEnableParams",
            lambda a: webhooks.switch_destination(a.id, "enabled"),
        ),
        Endpoint(
            "POST", f"{v2}/{{id}}/disable", "v2.core.EventDestinationDisableParams",
            lambda a: webhooks.switch_destination(a.id, "disabled"),
        ),
        Endpoint("GET", "/v2/core/events", "v2.core.EventListParams", lambda a: happenings.list_thin(a.params)),
        Endpoint(
            "GET", "/v2/core/events/{id}", "v2.core.EventRetrieveParams",
            lambda a: happenings.retrieve_thin(a.id),
        ),
    ]  # fmt: skip


METER_EVENTS = "/v1/billing/meter_events"
