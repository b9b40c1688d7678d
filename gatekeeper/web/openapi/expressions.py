"""The operations that try an expression. They change nothing, so a viewer may ask, and there is no deed."""

from gatekeeper.meters import Context, Mark, Outcome
from gatekeeper.ports.people import Role
from gatekeeper.web.openapi.operation import Operation
from gatekeeper.web.openapi.schemas import (
    ANYTHING,
    FLAG,
    MONEY,
    TEXT,
    TIME,
    UNITS,
    WHOLE,
    asked,
    many,
    maybe,
    named,
    obj,
    one_of,
)

_CONTEXT = one_of((Context.METER, Context.ESTIMATE, Context.LIVE, Context.COST, Context.WHEN))
_MISTAKES = many(
    obj(
        {
            "meter": {**TEXT, "description": "Which expression it is in."},
            "severity": one_of(("error", "warning")),
            "message": TEXT,
            "hint": maybe(TEXT),
            "line": WHOLE,
            "column": WHOLE,
            "start": {**WHOLE, "description": "The first wrong character, from 0."},
            "end": WHOLE,
            "text": {**TEXT, "description": "As the command line prints it: place, line, caret, hint."},
        }
    )
)
_PLAN = maybe(
    obj(
        {
            "context": _CONTEXT,
            "canonical": TEXT,
            "hash": TEXT,
            "type": TEXT,
            "phases": many(one_of(("always", "request", "event", "finish"))),
            "slots": many(obj({"slot": WHOLE, "text": TEXT, "fed_with": TEXT, "looks_for": many(TEXT)})),
            "needs_request": FLAG,
            "explain": TEXT,
        }
    )
)
_READING = obj(
    {
        "source": one_of(Mark),
        "note": maybe(TEXT),
        "units": maybe(UNITS),
        "dollars": maybe(MONEY),
        "holds": maybe(FLAG),
        "value": ANYTHING,
        "evidence": ANYTHING,
    },
    optional=("units", "dollars", "holds"),
)
_QUOTE = obj({"charge": maybe(MONEY), "refused": FLAG, "why": TEXT})
_STEP = obj(
    {
        "index": {**maybe(WHOLE), "description": "Null is the end of the answer."},
        "event": TEXT,
        "data": TEXT,
        "data_letters": {**WHOLE, "description": "How long the data is in all; what is longer than 600 is cut."},
        "changes": many(obj({"meter": TEXT, "slot": WHOLE, "value": {**TEXT, "description": "JSON, cut where long."}})),
        "live": maybe(UNITS),
    }
)
_EVENTS = maybe(
    obj(
        {
            "count": WHOLE,
            "content_type": TEXT,
            "outcome": one_of(Outcome),
            "bytes": WHOLE,
            "slots": many(obj({"meter": TEXT, "slot": WHOLE, "text": TEXT})),
            "first": many(_STEP),
            "omitted": WHOLE,
            "last": many(_STEP),
        }
    )
)
_SUMS = {
    "calls": WHOLE,
    "not_read_again": {**WHOLE, "description": "Calls whose record does not hold what the expression reads."},
    "charge_unknown": WHOLE,
    "refused": {**WHOLE, "description": "Calls that would have found the quota used up."},
    "units_before": UNITS,
    "units_after": UNITS,
    "units_difference": UNITS,
    "charge_before": MONEY,
    "charge_after": MONEY,
    "charge_difference": MONEY,
}
_METERS = {**named(TEXT), "maxProperties": 16, "description": "Expressions by the names of their meters."}
_CUSTOMER = obj(
    {
        "customer": TEXT,
        **_SUMS,
        "meters": named(obj({"before": UNITS, "after": UNITS, "not_read_again": WHOLE})),
    }
)
_DRY_RUN = {
    "route": TEXT,
    "expression": maybe(TEXT),
    "route_meter": TEXT,
    "calls": WHOLE,
    "scanned": WHOLE,
    "corrections_left_out": WHOLE,
    "oldest_ms": maybe(TIME),
    "newest_ms": maybe(TIME),
    "exact": {**FLAG, "description": "Every call could be read again from what its record kept."},
    "not_read_again": WHOLE,
    "why_not": many(obj({"why": TEXT, "calls": WHOLE})),
    "customers": {**many(_CUSTOMER), "description": "The largest difference first."},
    "total": obj(_SUMS),
    "next": {**maybe(TEXT), "description": "Ask again with it as `before`, for the calls before these."},
}

EXPRESSIONS = (
    Operation(
        "POST",
        "/admin/expressions/check",
        "check_expression",
        "Check an expression: its mistakes with their places, and how it works",
        obj({"ok": FLAG, "mistakes": _MISTAKES, "plan": _PLAN}),
        tag="expressions",
        least=Role.VIEWER,
        body=asked(
            {
                "expression": TEXT,
                "context": maybe(_CONTEXT),
                "route": {**maybe(TEXT), "description": "Whose provider it reads: some warnings need it."},
            },
            needed=("expression",),
        ),
    ),
    Operation(
        "POST",
        "/admin/expressions/evaluate",
        "evaluate_expression",
        "Evaluate an expression over an answer: the reading, each event with what it changed, the charge on each plan",
        obj(
            {
                "ok": FLAG,
                "mistakes": _MISTAKES,
                "plan": _PLAN,
                "reading": {"anyOf": [_READING, {"type": "null"}]},
                "meters": named(_READING),
                "events": _EVENTS,
                "charges": many(obj({"plan": TEXT, "name": TEXT, "fresh": _QUOTE, "used": _QUOTE, "beyond": _QUOTE})),
                "example": {**maybe(TEXT), "description": "TOML: [[routes.example]]."},
            }
        ),
        tag="expressions",
        least=Role.VIEWER,
        body=asked(
            {
                "expression": TEXT,
                "context": maybe(_CONTEXT),
                "meters": maybe(_METERS),
                "route": maybe(TEXT),
                "stream": maybe(TEXT),
                "stream_base64": maybe(TEXT),
                "sample": maybe(TEXT),
                "content_type": {**maybe(TEXT), "description": "Guessed from the answer where it is not said."},
                "content_encoding": maybe(TEXT),
                "status": maybe({"type": "integer", "minimum": 100, "maximum": 599}),
                "outcome": maybe(one_of(Outcome)),
                "method": maybe(TEXT),
                "request": {"description": "The request's body: a text as it is, anything else as JSON."},
                "used": {
                    "anyOf": [{"type": "integer", "minimum": 0}, TEXT, {"type": "null"}],
                    "description": "Units used before, in this period.",
                },
            },
            needed=("expression",),
        ),
        errors=(429,),
    ),
    Operation(
        "POST",
        "/admin/expressions/dry-run",
        "dry_run_expression",
        "What the last calls of a route would have been charged, customer by customer; streams are not kept",
        {
            "type": "object",
            "properties": {"ok": FLAG, "mistakes": _MISTAKES, **_DRY_RUN},
            "required": ["ok", "mistakes"],
            "additionalProperties": False,
        },
        tag="expressions",
        least=Role.VIEWER,
        body=asked(
            {
                "route": TEXT,
                "expression": maybe(TEXT),
                "meters": maybe(_METERS),
                "last": maybe({"type": "integer", "minimum": 1, "maximum": 5_000}),
                "before": maybe(TEXT),
            },
            needed=("route",),
        ),
        errors=(429,),
    ),
)
