"""``gatekeeper explain``: why one call cost what it cost, reproducible to the digit."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from gatekeeper.cli.output import add_command, add_json_flag, grouped, print_json
from gatekeeper.cli.settings import add_config_flag, read_gateway, with_reader
from gatekeeper.clock import SystemClock
from gatekeeper.errors import Code, Refusal
from gatekeeper.explanation import explained
from gatekeeper.stores import SqlStore

# A slot may hold 16 KiB; --json shows all of it.
_EVIDENCE_LETTERS_MAX = 200


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "explain",
        "show why a call cost what it cost",
        "Show why a call cost what it cost: who and what, the meter and its evidence, read again to the same digits,\n"
        "the quota before and after, the charge with its arithmetic, and what the provider took.",
    )
    parser.add_argument("call_id", metavar="REQUEST", help="the call's id, as in X-Gatekeeper-Call-Id")
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the explanation of one call."""
    gateway = read_gateway(arguments)

    async def work(store: SqlStore) -> dict[str, Any] | None:
        return await explained(store, gateway, arguments.call_id, SystemClock().now_ms())

    told = with_reader(gateway, work)
    if told is None:
        raise Refusal(
            Code.NOT_FOUND,
            f"There is no request {arguments.call_id[:64]!r}.",
            hint="X-Gatekeeper-Call-Id of the answer, or /admin/requests, says what there is",
        )
    if arguments.json:
        print_json(told)
    else:
        print("\n".join(_held(told) if "in_flight" in told else _settled(told)))
    return 0


def _held(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"Call {told['id']} is in flight: nothing is charged yet."
    yield from _who(told)
    for line in told["held"]:
        yield _row("holds", f"{_amount(line['amount'], line['dimension'])} of {_limit(line)}")
    yield _row("so far", f"{grouped(told['progress'])} units, if it died now; {told['output_tokens']} tokens granted")
    yield _row("expires", f"in {told['expires_in_s']} s without a sign of life")


def _settled(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"Call {told['id']}: {grouped(told['units'])} units, charged ${told['charge']}"
    yield from _who(told)
    for attempt in told["attempts"]:
        who = f"{attempt['upstream']}, {attempt['model']}" if attempt["model"] else attempt["upstream"]
        yield _row("tried", f"{attempt['number']}. {who}: {attempt['said']}")
    if told["model_requested"] is not None:
        yield _row("asked for", f"{told['model_requested']}; {told['model']} served")
    status = "no answer" if told["status"] is None else f"status {told['status']}"
    yield _row("ended", f"{told['outcome']}, {status}, after {told['duration_ms']} ms")
    yield from _read(told["reading"])
    for step in told["steps"]:
        yield from _charged(step)
    for line in told["counted"]:
        stood = "" if line["after"] is None else f" ({_plain(line['before'])} -> {_plain(line['after'])})"
        yield _row("counted", f"{_amount(line['taken'], line['dimension'])} on {_limit(line)}{stood}")
    for line in told["closed"]:
        yield _row("closed" if line["closed"] else "opened", line["said"])
    yield from _cost(told["cost"])
    if told["overrun"] != "0":
        yield _row("overrun", f"{grouped(told['overrun'])} units more than were held")
    for said in told["history"]:
        yield _row("note", said)
    for said in told["warnings"]:
        yield _row("WARNING", said)


def _who(told: Mapping[str, Any]) -> Iterator[str]:
    who = [f"customer {told['customer']}", f"plan {told['plan']}"]
    who += [f"{name} {told[name]}" for name in ("key", "user", "agent") if told.get(name)]
    yield _row("who", ", ".join(who))
    what = [f"route {told['route']}"]
    what += [f"{name} {told[name]}" for name in ("upstream", "model") if told.get(name)]
    called = f"{told['method']} {told['path']}: " if told.get("path") else ""
    yield _row("what", called + ", ".join(what) + (", streamed" if told.get("streamed") else ""))
    yield _row("when", f"{told['started']} UTC")


def _read(reading: Mapping[str, Any]) -> Iterator[str]:
    if reading["meter"] is not None:
        yield _row("meter", f"{reading['meter']}  [{reading['hash_today']}]")
    yield from _evidence(reading["evidence"])
    yield _row("read", f"{reading['source']}" + (f" ({reading['note']})" if reading["note"] else ""))
    if reading["policy"] is not None:
        yield _row("policy", reading["policy"])
    again = reading["again"]
    if again is not None:
        same = "the same" if again["same"] else "NOT the same"
        yield _row("again", f"{grouped(again['units'])} units, {again['source']}: {same}")


def _evidence(seen: Mapping[str, Any]) -> Iterator[str]:
    for name, value in seen.items():
        text = json.dumps(value)
        text = text if len(text) <= _EVIDENCE_LETTERS_MAX else text[:_EVIDENCE_LETTERS_MAX] + "..."
        yield _row("evidence", f"{name} = {text}")


def _charged(step: Mapping[str, Any]) -> Iterator[str]:
    quota = step["quota"]
    if quota is not None:
        included = "unlimited" if quota["included"] is None else grouped(quota["included"])
        stood = "" if quota["after"] is None else f": {_plain(quota['before'])} -> {_plain(quota['after'])}"
        since = "" if quota["start"] is None else f" since {quota['start']}"
        yield _row("quota", f"{included} included per {quota['window']}{since}{stood}")
    if step["overage"] is not None:
        yield _row("overage", step["overage"]["arithmetic"])
    elif step["why"] is not None:
        yield _row("overage", step["why"])
    yield _row("charge", f"${step['charge']} for {_plain(step['units'])} units")


def _cost(cost: Mapping[str, Any]) -> Iterator[str]:
    stated = cost["expression"]
    if stated is not None:
        yield from _stated(stated)
    if cost["cost"] is None:
        yield _row("cost", "not known: the model has no price")
        return
    price = cost["price"]
    if price is not None and not (stated is not None and stated["used"]):
        figures = ", ".join(
            f"{name} {value}" for name, value in price.items() if name not in ("model", "source", "per", "provider")
        )
        yield _row("price", f"{price.get('model')} ({price.get('source')}), $ per {price.get('per'):,}: {figures}")
    same = {True: "; again: the same", False: "; again: NOT the same", None: ""}[cost["same"]]
    yield _row("cost", f"${cost['cost']} at the provider{same}; charge less cost: ${cost['margin']}")


def _stated(stated: Mapping[str, Any]) -> Iterator[str]:
    """What the route's ``cost`` has read."""
    if stated["text"] is not None:
        yield _row("cost of", f"{stated['text']}  [{stated['hash_today']}]")
    yield from _evidence(stated["evidence"] or {})
    note = f" ({stated['note']})" if stated["note"] else ""
    found = "nothing" if stated["dollars"] is None else f"${stated['dollars']}"
    instead = "" if stated["used"] else "; the price list counts"
    yield _row("read", f"{found}, {stated['source']}{note}{instead}")


def _row(name: str, text: str) -> str:
    return f"  {name:<9} {text}"


def _limit(line: Mapping[str, Any]) -> str:
    return f"{line['limit']} ({line['scope']} {line['subject']}, {line['dimension']} per {line['window']})"


def _amount(amount: str, dimension: str) -> str:
    return f"${amount}" if dimension == "dollars" else _plain(amount)


def _plain(amount: str) -> str:
    """Digits in groups; a correction may be below nothing."""
    return "-" + grouped(amount[1:]) if amount.startswith("-") else grouped(amount)
