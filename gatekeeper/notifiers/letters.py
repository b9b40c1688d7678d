"""What a mail says: subject and plain text of each kind of event.

The rule: a letter is for people, so it says what happened, to whom and what follows; a kind without words of its own is
told by its figures.
"""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from gatekeeper.ports import Customer
from gatekeeper.rules.notices import Event, Kind

# A subject is one line, and most programs show no more of it.
_SUBJECT_MAX = 150
_AFTER = {
    "block": "Once the limit is used up, further calls are refused.",
    "overage": "What is used beyond it is charged.",
    "soft": "Calls may be served by a smaller model.",
}
_WINDOWS = {"hour": "this hour", "day": "today", "month": "this month", "billing_period": "in this billing period"}


def letter(event: Event, customer: Customer | None) -> tuple[str, str]:
    """(subject, text)."""
    if event.kind == Kind.LIMIT_THRESHOLD:
        subject, lines = _threshold(event.content, customer)
    elif event.kind == Kind.ALERT_REACHED:
        subject, lines = _alert(event.content)
    else:
        about = "" if customer is None else f" ({customer.name})"
        subject = event.kind.removeprefix("gatekeeper.").replace(".", " ").replace("_", " ").capitalize() + about
        lines = [f"{name}: {_plain(value)}" for name, value in event.content.items()]
    when = dt.datetime.fromtimestamp(event.created_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return _one_line(subject), "\n".join([*lines, "", f"{when}, event {event.id}", ""])


def _threshold(content: Mapping[str, Any], customer: Customer | None) -> tuple[str, list[str]]:
    is_money = content["dimension"] == "dollars"
    amounts = [_amount(content[name], is_money=is_money) for name in ("used", "cap")]
    whose = customer.name if customer is not None else f"{content['scope']} {content['subject']}"
    unit = "" if is_money else f" {content['dimension'].removeprefix('units:')}"
    window = _WINDOWS.get(content["window"], "in total")
    reached = f"{content['threshold']} % of the limit {content['limit']!r} is used"
    lines = [
        f"{reached}: {amounts[0]} of {amounts[1]}{unit} {window}.",
        f"It counts for: {content['scope']} {content['subject']}.",
        _AFTER.get(content["mode"], "Nothing is refused because of it."),
    ]
    if content["resets_ms"] is not None:
        resets = dt.datetime.fromtimestamp(content["resets_ms"] / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        lines.append(f"It starts anew at {resets}.")
    return f"{whose}: {content['threshold']} % of {content['limit']} used", lines


def _alert(content: Mapping[str, Any]) -> tuple[str, list[str]]:
    is_money = content["measure"] == "charge"
    reached, threshold = (_amount(content[name], is_money=is_money) for name in ("reached", "threshold"))
    unit = "" if is_money else " units"
    window = _WINDOWS.get(content["window"], "in total")
    lines = [
        f"You asked to be told at {threshold}{unit}: {reached}{unit} are used {window}.",
        "Nothing is refused because of it. Alerts are changed in the portal, under Alerts.",
    ]
    return f"{reached}{unit} used {window}", lines


def _amount(text: str, *, is_money: bool) -> str:
    whole, point, rest = text.partition(".")
    grouped = f"{int(whole):,}{point}{rest}"
    return f"${grouped}" if is_money else grouped


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _one_line(text: str) -> str:
    """Without what would end a header: names are chosen by customers."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown if len(shown) <= _SUBJECT_MAX else shown[: _SUBJECT_MAX - 3] + "..."
