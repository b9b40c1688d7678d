"""The operations on what was used, spent and earned."""

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.rules.limits import Mode, Scope, Window
from gatekeeper.rules.spent import Amount, SpendBy
from gatekeeper.web.openapi.operation import Operation, Query, Who
from gatekeeper.web.openapi.parameters import AFTER, LIMIT, PERIOD
from gatekeeper.web.openapi.schemas import (
    AMOUNT,
    BUDGET,
    COSTS,
    DAY,
    DAYS,
    EITHER,
    MONEY,
    SCOPE,
    SPENT,
    TEXT,
    TIME,
    TOTAL,
    WHOLE,
    asked,
    many,
    maybe,
    named,
    obj,
    one_of,
    page_of,
    ref,
)

_PARTS = {each.value: maybe(TEXT) if each is not SpendBy.HOUR else maybe(TIME) for each in SpendBy}
_NARROW = ("customer_id", "key_id", "user_id", "agent_id", "plan", "route", "model")

RECORDS = (
    Operation(
        "GET",
        "/admin/requests",
        "list_requests",
        "Calls, the latest first",
        page_of("requests", ref("OperatorRecord")),
        tag="requests",
        query=(
            *(Query(name, "Only these.", TEXT) for name in _NARROW),
            Query("outcome", "How it ended.", one_of(Outcome)),
            Query("source", "How far its units are known.", one_of(Mark)),
            Query(
                "status",
                "The upstream's HTTP status, or a class of them (4xx).",
                {"type": "string", "pattern": "^[1-5]([0-9]{2}|xx)$"},
            ),
            Query("id", "A part of the call's id.", TEXT),
            Query("since_ms", "Begun then or later.", TIME),
            Query("before_ms", "Begun before.", TIME),
            AFTER,
            LIMIT,
        ),
    ),
    Operation(
        "GET",
        "/admin/requests/{call_id}",
        "get_request",
        "One call, with the tries that did not serve it",
        ref("OperatorRecord"),
        tag="requests",
    ),
    Operation(
        "GET",
        "/admin/requests/{call_id}/explain",
        "explain_request",
        "Why a call cost what it cost, with the evidence, read again; or what a call in flight holds",
        {"type": "object", "required": ["id", "customer", "plan", "route", "started"]},
        tag="requests",
    ),
)

REVENUE = (
    Operation(
        "GET",
        "/admin/revenue",
        "get_revenue",
        "Revenue, what providers take and the margin, told apart by one thing; monthly prices beside it",
        obj(
            {
                "period_start": DAY,
                "period_end": DAY,
                "by": TEXT,
                "rows": many(obj({**_PARTS, **SPENT, **COSTS}, optional=tuple(_PARTS))),
                "total": obj({**SPENT, **COSTS}),
                "monthly": many(
                    obj({"plan": TEXT, "customers": WHOLE, "monthly_price": maybe(MONEY), "total": maybe(MONEY)})
                ),
            }
        ),
        tag="spending",
        query=(
            Query("by", "What sums are told apart by.", one_of(("day", "plan", "model", "customer", "route"))),
            *PERIOD,
            LIMIT,
        ),
    ),
)

SPEND = (
    Operation(
        "GET",
        "/admin/spend",
        "get_spend",
        "Totals, rate and history of a scope's spend",
        obj(
            {
                "scope": one_of(Scope),
                "subject": maybe(TEXT),
                "period_start": DAY,
                "period_end": DAY,
                "total": obj({**SPENT, **COSTS}),
                "rate": obj({"last_hour": obj({**SPENT, **COSTS}), "mean_per_hour": obj({**SPENT, **COSTS})}),
                "group_by": one_of(SpendBy),
                "rows": many(obj({**_PARTS, **SPENT, **COSTS}, optional=tuple(_PARTS))),
            }
        ),
        tag="spending",
        query=(
            Query("scope", "Whose spend; all of it unless said.", one_of(Scope)),
            Query("subject", "Who of the scope; a user or agent as `customer/name`.", TEXT),
            Query("group_by", "What sums are told apart by.", one_of(SpendBy)),
            *PERIOD,
            LIMIT,
        ),
    ),
    Operation(
        "GET",
        "/admin/spikes",
        "get_spikes",
        "Who spends much faster than in the hours before",
        obj(
            {
                "scope": one_of(Scope),
                "measure": one_of(Amount),
                "minimum": AMOUNT,
                "factor": TEXT,
                "hours": WHOLE,
                "until_ms": TIME,
                "spikes": many(
                    obj(
                        {
                            "subject": TEXT,
                            "last_hour": AMOUNT,
                            "usual_per_hour": AMOUNT,
                            "hours": WHOLE,
                            "times": maybe(TEXT),
                        }
                    )
                ),
            }
        ),
        tag="spending",
        query=(
            Query("scope", "Whose pace is looked at.", one_of(Scope)),
            Query("measure", "What it is of.", one_of(Amount)),
            Query("minimum", "The least in the last hour that counts, in plain digits.", AMOUNT),
            Query("factor", "How many times the usual.", AMOUNT),
            Query("hours", "How many hours before are the usual.", WHOLE),
            Query("customer", "Only what lives under this one.", TEXT),
            LIMIT,
        ),
    ),
)

OWN_SPEND = (
    Operation(
        "GET",
        "/v1/spend",
        "get_own_spend",
        "What the key that asks has spent",
        obj(
            {
                "period_start": DAY,
                "period_end": DAY,
                "total": obj(SPENT),
                "rate": obj({"last_hour": obj(SPENT), "mean_per_hour": obj(SPENT)}),
                "group_by": one_of(SpendBy),
                "rows": many(obj({**_PARTS, **SPENT}, optional=tuple(_PARTS))),
            }
        ),
        tag="own",
        who=Who.KEY,
        query=(Query("group_by", "What sums are told apart by.", one_of(SpendBy)), *PERIOD, LIMIT),
    ),
)

OWN = (
    Operation(
        "GET",
        "/v1/usage",
        "get_usage",
        "What the key that asks has used, and how its limits stand",
        obj(
            {
                **TOTAL,
                "period_start": DAY,
                "period_end": DAY,
                "plan": TEXT,
                "rate_limit_remaining": obj({"per_minute": maybe(AMOUNT), "per_day": maybe(AMOUNT)}),
                "limits": many(ref("LimitState")),
                "days": DAYS,
            }
        ),
        tag="own",
        who=Who.KEY,
        query=PERIOD,
    ),
    Operation(
        "GET",
        "/v1/models",
        "get_models",
        "The models that the key may use, as OpenAI lists them",
        obj(
            {
                "object": TEXT,
                "data": many(obj({"id": TEXT, "object": TEXT, "created": WHOLE, "owned_by": TEXT})),
            }
        ),
        tag="own",
        who=Who.KEY,
    ),
    Operation(
        "GET",
        "/v1/budget",
        "get_budget",
        "What the key may still spend: of each dimension the least that is left, and each limit",
        obj(
            {
                "remaining": named(AMOUNT),
                "limits": many(
                    obj(
                        {
                            "name": TEXT,
                            "scope": SCOPE,
                            "dimension": TEXT,
                            "window": one_of(Window),
                            "mode": one_of(Mode),
                            "remaining": maybe(AMOUNT),
                            "resets_ms": maybe(TIME),
                        }
                    )
                ),
                "rates": many(
                    obj({"name": TEXT, "scope": SCOPE, "dimension": TEXT, "per_ms": WHOLE, "remaining": AMOUNT})
                ),
            }
        ),
        tag="own",
        who=Who.KEY,
        query=(
            Query("route", "Also the limits of this route.", TEXT),
            Query("model", "Also the limits of this model.", TEXT),
        ),
    ),
    Operation(
        "GET",
        "/v1/requests/{call_id}",
        "get_request",
        "One call of this customer, with its charge",
        ref("Record"),
        tag="own",
        who=Who.KEY,
    ),
)

_CAP = {"type": ["string", "integer", "null"], "description": 'An amount in plain digits; null or "unlimited": none.'}
BUDGETS = (
    Operation(
        "GET",
        "/admin/budgets",
        "list_budgets",
        "Limits with their state; with a subject those that hold for it",
        page_of("budgets", ref("StandingBudget")),
        tag="budgets",
        query=(Query("scope", "Only these.", SCOPE), Query("subject", "For whom.", TEXT), AFTER, LIMIT),
    ),
    Operation(
        "POST",
        "/admin/budgets",
        "create_budget",
        "Set a limit where no operator has set one",
        ref("StandingBudget"),
        201,
        tag="budgets",
        body=asked(
            {
                "scope": SCOPE,
                "subject": maybe(TEXT),
                "dimension": {"type": "string", "minLength": 1},
                "window": maybe(one_of(Window)),
                "per_ms": maybe(WHOLE),
                "cap": _CAP,
                "mode": maybe(TEXT),
                "zone": maybe(TEXT),
                "name": maybe(TEXT),
                "release": maybe(TEXT),
            },
            needed=("scope", "dimension", "cap"),
        ),
        errors=(409,),
        once=True,
        tagged=True,
    ),
    Operation(
        "GET",
        "/admin/budgets/{budget_id}",
        "get_budget",
        "One limit with its state, and who used most of it",
        ref("StandingBudget"),
        tag="budgets",
        query=(Query("subject", "For whom.", TEXT), LIMIT),
        tagged=True,
    ),
    Operation(
        "PATCH",
        "/admin/budgets/{budget_id}",
        "change_budget",
        "Change a limit, or lay an operator's over one that is declared",
        ref("StandingBudget"),
        tag="budgets",
        body=asked(
            {"cap": _CAP, "mode": maybe(TEXT), "zone": maybe(TEXT), "name": maybe(TEXT), "release": maybe(TEXT)}
        ),
        errors=(409,),
        tagged=True,
    ),
    Operation(
        "DELETE",
        "/admin/budgets/{budget_id}",
        "remove_budget",
        "Take an operator's limit away",
        obj({"removed": TEXT, "holds": maybe(obj(BUDGET, optional=EITHER))}),
        tag="budgets",
        errors=(409,),
        tagged=True,
    ),
    Operation(
        "POST",
        "/admin/budgets/{budget_id}/reset",
        "reset_budget",
        "Begin the count anew; what was used stays on record",
        ref("StandingBudget"),
        tag="budgets",
        body=asked({"subject": maybe(TEXT), "reason": maybe(TEXT)}),
        errors=(409,),
    ),
)
