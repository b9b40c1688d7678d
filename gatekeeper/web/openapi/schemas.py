"""The shapes of what goes in and out, as JSON Schema 2020-12 (which is what OpenAPI 3.1 has). The rule: an object has
the fields that stand here and no others, so that the tests notice whatever is added without its words."""

from collections.abc import Mapping
from typing import Any

from gatekeeper.config.gateway import Dialect, HoldKind, OnDisconnect, Unmeasured
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.rules.limits import Mode, Scope, Window
from gatekeeper.web.openapi.operation import Schema

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANYTHING: Schema = {}
TIME: Schema = {"type": "integer", "description": "Milliseconds since 1970 (UTC)."}
DAY: Schema = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "description": "A day (UTC)."}
MONEY: Schema = {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$", "description": "Dollars, to the digit."}
UNITS: Schema = {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$", "description": "Units, to the digit."}
AMOUNT: Schema = {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$", "description": "In the limit's own unit."}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 200}
ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"}
SCOPE: Schema = {**TEXT, "description": f"One of {', '.join(Scope)}; or two of them, with a comma between."}
SUBJECT: Schema = {"type": "string", "pattern": "^[A-Za-z0-9._:@-]{1,128}$"}


def maybe(schema: Schema) -> dict[str, Any]:
    """The schema, or null."""
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [dict(schema), {"type": "null"}]}


def one_of(kinds: Any) -> dict[str, Any]:
    """One of the members of an enumeration, or of some texts."""
    return {"type": "string", "enum": [str(each) for each in kinds]}


def many(schema: Schema) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": dict(schema)}


def named(schema: Schema) -> dict[str, Any]:
    """An object whose names are not known beforehand."""
    return {"type": "object", "additionalProperties": dict(schema)}


def obj(fields: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object with these fields, all of which are there but the optional ones."""
    return {
        "type": "object",
        "properties": {name: dict(each) for name, each in fields.items()},
        "required": [name for name in fields if name not in optional],
        "additionalProperties": False,
    }


def asked(fields: Mapping[str, Schema], *, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a request's body may have. ``needed`` must be there."""
    made = obj(fields, optional=tuple(name for name in fields if name not in needed))
    return made if needed else {name: each for name, each in made.items() if name != "required"}


def page_of(name: str, schema: Schema, **more: Schema) -> dict[str, Any]:
    """A page of a list."""
    cursor = {"type": ["string", "null"], "description": "Ask again with it as `after`; null: this is the last page."}
    return obj({name: many(schema), "next": cursor, **more})


def ref(name: str) -> dict[str, Any]:
    """A schema by its name in ``COMPONENTS``."""
    return {"$ref": f"#/components/schemas/{name}"}


LIMIT_STATE = obj(
    {
        "name": TEXT,
        "scope": SCOPE,
        "dimension": TEXT,
        "window": TEXT,
        "cap": maybe(AMOUNT),
        "used": AMOUNT,
        "held": AMOUNT,
        "remaining": maybe(AMOUNT),
        "resets_ms": maybe(TIME),
    }
)
ERROR = obj(
    {
        "error": obj(
            {"message": TEXT, "type": TEXT, "param": {"type": "null"}, "code": TEXT, "limit": LIMIT_STATE},
            optional=("limit",),
        )
    }
)
CUSTOMER = {
    "id": ID,
    "name": NAME,
    "plan": TEXT,
    "email": maybe(TEXT),
    "created_ms": TIME,
    "disabled": FLAG,
    "stripe_customer_id": maybe(TEXT),
}
KEY = {
    "id": TEXT,
    "customer_id": ID,
    "name": TEXT,
    "shown": {**TEXT, "description": "The first letters of the key, for people."},
    "created_ms": TIME,
    "expires_ms": maybe(TIME),
    "revoked_ms": maybe(TIME),
    "last_used_ms": maybe(TIME),
    "routes": maybe(many(TEXT)),
    "models": maybe(many(TEXT)),
    "user_id": maybe(TEXT),
    "agent_id": maybe(TEXT),
    "may_assert": FLAG,
}
SECRET_KEY: Schema = {**TEXT, "description": "The key itself. It is shown here and never again."}
PLAN = {
    "id": TEXT,
    "name": TEXT,
    "monthly_price": MONEY,
    "quota": maybe(UNITS),
    "quota_window": maybe(one_of(Window)),
    "when_exhausted": maybe(one_of(Mode)),
    "overage_price": maybe(MONEY),
    "overage_per": maybe(WHOLE),
    "rates": many(obj({"scope": SCOPE, "subject": TEXT, "dimension": TEXT, "cap": UNITS, "per_ms": WHOLE})),
    "stripe_price": maybe(TEXT),
}
WHOLE_PLAN = {
    **PLAN,
    "clamp_output": FLAG,
    "limits": many(
        obj(
            {
                "name": TEXT,
                "scope": SCOPE,
                "subject": TEXT,
                "dimension": TEXT,
                "cap": maybe(AMOUNT),
                "window": maybe(TEXT),
                "mode": maybe(TEXT),
            }
        )
    ),
    "downgrade": many(many(TEXT)),
    "on_cancel": maybe(TEXT),
    "trial_days": WHOLE,
    "examples": many(obj({"name": TEXT, "units": UNITS, "charge": maybe(MONEY)})),
    "customers": WHOLE,
}
EXPRESSION = obj(
    {"text": TEXT, "hash": TEXT, "warnings": many(obj({"message": TEXT, "hint": maybe(TEXT)}))},
)
ROUTE = {
    "name": TEXT,
    "path": TEXT,
    "methods": maybe(many(TEXT)),
    "host": maybe(TEXT),
    "upstream": TEXT,
    "fallback": many(obj({"upstream": TEXT, "model": maybe(TEXT)})),
    "dialect": one_of(Dialect),
    "free": FLAG,
    "models": many(TEXT),
    "meter": EXPRESSION,
    "meters": named(EXPRESSION),
    **{name: maybe(EXPRESSION) for name in ("estimate", "live", "cost", "when")},
    "unmeasured": one_of(Unmeasured),
    "unmeasured_default": TEXT,
    "hold": one_of(HoldKind),
    "on_disconnect": one_of(OnDisconnect),
    "examples": WHOLE,
}
TOTAL = {"tokens_used": NUMBER, "requests": WHOLE, "charge": MONEY, "last_request_ms": maybe(TIME)}
DAYS = many(obj({"day": DAY, **TOTAL}))
SPENT = {"requests": WHOLE, "units": UNITS, "charge": MONEY}
COSTS = {"cost": MONEY, "margin": MONEY, "unpriced_requests": WHOLE}
ATTEMPT = obj(
    {
        "number": WHOLE,
        "upstream": TEXT,
        "model": maybe(TEXT),
        "started_ms": TIME,
        "ended_ms": TIME,
        "status": maybe(WHOLE),
        "fault": maybe(TEXT),
    }
)
RECORD = {
    "id": TEXT,
    "customer_id": TEXT,
    "key_id": maybe(TEXT),
    "user_id": maybe(TEXT),
    "agent_id": maybe(TEXT),
    "plan": TEXT,
    "route": TEXT,
    "upstream": TEXT,
    "model": maybe(TEXT),
    "model_requested": maybe(TEXT),
    "method": TEXT,
    "path": TEXT,
    "status": maybe(WHOLE),
    "outcome": one_of(Outcome),
    "streamed": FLAG,
    "started_ms": TIME,
    "ended_ms": TIME,
    "first_byte_ms": maybe(WHOLE),
    "units": UNITS,
    "source": one_of(Mark),
    "note": maybe(TEXT),
    "charge": MONEY,
    "overrun": UNITS,
    "usage": maybe({"type": "object"}),
    "meters": named(TEXT),
    "evidence": {"type": "object"},
    "meter_hash": TEXT,
    "request_bytes": WHOLE,
    "response_bytes": WHOLE,
    "response_id": maybe(TEXT),
}
BATCH = {
    "batch": TEXT,
    "customer_id": TEXT,
    "meter": TEXT,
    "identifier": TEXT,
    "units": UNITS,
    "carried_units": UNITS,
    "left_units": UNITS,
    "period_start_ms": TIME,
    "period_end_ms": TIME,
    "ts_ms": TIME,
    "late": FLAG,
    "state": one_of(("waiting", "sent", "dead", "empty")),
    "age_s": WHOLE,
    "attempts": WHOLE,
    "reopened": WHOLE,
    "created_ms": TIME,
    "next_ms": TIME,
    "first_sent_ms": maybe(TIME),
    "sent_ms": maybe(TIME),
    "error": maybe(TEXT),
}
BACKLOG = obj(
    {"waiting": WHOLE, "dead": WHOLE, "unfrozen": WHOLE, "without_account": WHOLE, "oldest_s": WHOLE, "behind": FLAG}
)
EVENT = {"id": TEXT, "kind": TEXT, "customer_id": maybe(TEXT), "created_ms": TIME, "content": {"type": "object"}}
DELIVERY = {
    "event": TEXT,
    "kind": TEXT,
    "customer_id": maybe(TEXT),
    "created_ms": TIME,
    "target": TEXT,
    "state": one_of(("waiting", "sent", "dead")),
    "attempts": WHOLE,
    "next_ms": TIME,
    "sent_ms": maybe(TIME),
    "error": maybe(TEXT),
}
BUDGET = {
    "id": TEXT,
    "family": one_of(("stock", "rate")),
    "name": TEXT,
    "scope": SCOPE,
    "subject": TEXT,
    "dimension": TEXT,
    "window": TEXT,
    "mode": TEXT,
    "zone": TEXT,
    "release": TEXT,
    "per_ms": WHOLE,
    "cap": maybe(AMOUNT),
    "from": TEXT,
    "plan": maybe(TEXT),
    "declared": maybe(obj({"cap": maybe(AMOUNT), "mode": TEXT, "from": TEXT})),
    "version": WHOLE,
    "created_ms": maybe(TIME),
    "updated_ms": maybe(TIME),
}
# A stock limit has a window, a mode and a zone; a rate has its span.
EITHER = ("window", "zone", "release", "per_ms")
BUDGET_STATE = {
    "type": ["object", "null"],
    "properties": {
        "subject": TEXT,
        "used": AMOUNT,
        "held": AMOUNT,
        "spent": AMOUNT,
        "remaining": maybe(AMOUNT),
        "starts_ms": TIME,
        "resets_ms": maybe(TIME),
        "closed_until_ms": maybe(TIME),
    },
    "required": ["subject", "remaining"],
    "additionalProperties": False,
}
MISTAKE = obj(
    {
        "severity": one_of(("error", "warning")),
        "message": TEXT,
        "file": TEXT,
        "line": WHOLE,
        "column": WHOLE,
        "hint": maybe(TEXT),
        "shown": {**TEXT, "description": "As the command line shows it, with the line and a caret."},
    }
)
WORKER = obj({"pid": WHOLE, "generation": TEXT, "loaded_ms": TIME, "this": FLAG})
COMPONENTS: Mapping[str, Schema] = {
    "Error": ERROR,
    "Customer": obj(CUSTOMER),
    "Key": obj(KEY),
    "Plan": obj(PLAN),
    "WholePlan": obj(WHOLE_PLAN),
    "Route": obj(ROUTE),
    "Record": obj({**RECORD, "cost": MONEY}, optional=("cost",)),
    "OperatorRecord": obj({**RECORD, "cost": maybe(MONEY), "attempts": many(ATTEMPT)}, optional=("attempts",)),
    "Batch": obj(BATCH),
    "Event": obj(EVENT),
    "Delivery": obj(DELIVERY),
    "Budget": obj(BUDGET, optional=EITHER),
    "BudgetState": BUDGET_STATE,
    "StandingBudget": obj(
        {**BUDGET, "state": ref("BudgetState"), "top": maybe(many(ref("BudgetState"))), "reset_ms": TIME},
        optional=(*EITHER, "top", "reset_ms"),
    ),
    "LimitState": LIMIT_STATE,
    "Mistake": MISTAKE,
    "Worker": WORKER,
}
