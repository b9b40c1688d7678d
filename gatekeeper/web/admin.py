"""Customers, keys and plans for machines, and what the rooms of ``/admin`` have in common."""

from typing import Any

from gatekeeper.money import plain, units_text
from gatekeeper.ports import Customer, Key
from gatekeeper.rules.declared import EACH
from gatekeeper.rules.plans import Plan
from gatekeeper.web.asked import PAGE_MAX, limit_of, only, take
from gatekeeper.web.openapi import Endpoint

__all__ = ["PAGE_MAX", "Endpoint", "customer_json", "key_json", "limit_of", "only", "plan_json", "take"]


def customer_json(customer: Customer) -> dict[str, Any]:
    """A customer for machines."""
    return {
        "id": customer.id,
        "name": customer.name,
        "plan": customer.plan_id,
        "email": customer.email,
        "created_ms": customer.created_ms,
        "disabled": customer.disabled_ms is not None,
        "stripe_customer_id": customer.stripe_customer_id,
    }


def key_json(key: Key) -> dict[str, Any]:
    """A key for machines: never the key itself."""
    return {
        "id": key.id,
        "customer_id": key.customer_id,
        "name": key.name,
        "shown": key.shown,
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "revoked_ms": key.revoked_ms,
        "last_used_ms": key.last_used_ms,
        "routes": key.routes,
        "models": key.models,
        "user_id": key.user_id,
        "agent_id": key.agent_id,
        "may_assert": key.may_assert,
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan for machines."""
    quota = plan.quota
    return {
        "id": plan.id,
        "name": plan.name,
        "monthly_price": plain(plan.monthly_price),
        "quota": None if quota is None or quota.cap is None else units_text(quota.cap),
        "quota_window": None if quota is None else quota.window,
        "when_exhausted": None if quota is None else quota.mode,
        "overage_price": None if plan.overage is None else plain(plan.overage.dollars),
        "overage_per": None if plan.overage is None else plan.overage.per,
        "rates": [
            {
                "scope": rate.scope,
                "subject": plan.named(rate) or EACH,
                "dimension": rate.dimension,
                "cap": units_text(rate.cap),
                "per_ms": rate.per_ms,
            }
            for rate in plan.rates
        ],
        "stripe_price": plan.stripe_price,
    }
