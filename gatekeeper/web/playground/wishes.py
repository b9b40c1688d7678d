"""What somebody asks to have tried, out of a JSON body or a form. The rule: everything has a bound, and what is not
understood is refused with the name of the field."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gatekeeper.config.gateway import Gateway, Route
from gatekeeper.diagnostics import suggest
from gatekeeper.errors import Code, Refusal
from gatekeeper.meters import Context, Outcome
from gatekeeper.money import units_to_micro
from gatekeeper.web.asked import need, take
from gatekeeper.web.playground.checking import CONTEXTS
from gatekeeper.web.playground.samples import Sample, samples
from gatekeeper.web.playground.trying import Trial

# A route has two or three.
METERS_MAX = 16
_METER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_FIGURE = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_HEADER = re.compile(r"[\x20-\x7e]{0,200}")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
TRIAL_FIELDS = (
    "expression", "context", "meters", "route", "stream", "stream_base64", "sample", "content_type",
    "content_encoding", "status", "outcome", "method", "request", "used",
)  # fmt: skip


def trial_of(body: Mapping[str, Any], gateway: Gateway) -> Trial:
    """From the fields of a JSON body (``TRIAL_FIELDS``). Raises Refusal."""
    fields = dict(body)
    context = context_of(take(fields, "context", str))
    content, content_type = _answer_of(fields)
    status = take(fields, "status", int)
    if status is not None and not 100 <= status <= 599:
        raise Refusal(Code.BAD_REQUEST, "status is a number from 100 to 599.")
    route = route_of(take(fields, "route", str), gateway)
    method = take(fields, "method", str) or "POST"
    if not _METHOD.fullmatch(method):
        raise Refusal(Code.BAD_REQUEST, "method is a word in capital letters, as POST.")
    return Trial(
        expression=need(fields, "expression", str),
        context=context,
        meters=_meters_of(fields, context),
        body=content,
        content_type=_header(fields, "content_type") or content_type,
        content_encoding=_header(fields, "content_encoding"),
        status=200 if status is None else status,
        outcome=_outcome_of(take(fields, "outcome", str)),
        request=_request_of(fields),
        method=method,
        used_micro=used_of(fields.get("used")),
        dialect=None if route is None else route.dialect.value,
        upstream=None if route is None else route.upstream,
    )


def context_of(text: str | None) -> Context:
    """``meter`` where nothing is said. Raises Refusal."""
    if text is None or text == "":
        return Context.METER
    for context in CONTEXTS:
        if context == text:
            return context
    names = ", ".join(CONTEXTS)
    raise Refusal(Code.BAD_REQUEST, f"context is one of {names}.", hint=suggest(text[:40], CONTEXTS))


def route_of(name: str | None, gateway: Gateway) -> Route | None:
    """The route of that name; None where none is named. Raises Refusal."""
    if not name:
        return None
    routes = {route.name: route for route in gateway.router.routes}
    if name not in routes:
        raise Refusal(Code.BAD_REQUEST, f"There is no route {name[:64]!r}.", hint=suggest(name[:64], routes))
    return routes[name]


def used_of(value: object) -> int:
    """Units used before, as a whole number or a decimal text, in millionths. Raises Refusal."""
    if value is None or value == "":
        return 0
    if isinstance(value, bool) or not isinstance(value, int | str) or not _FIGURE.fullmatch(str(value)):
        raise Refusal(Code.BAD_REQUEST, "used is a number of units below 10^12, with at most 6 decimals.")
    return units_to_micro(Decimal(value))


def sample_of(name: str) -> Sample:
    """Raises Refusal."""
    known = samples()
    if name not in known:
        raise Refusal(Code.BAD_REQUEST, f"There is no sample {name[:64]!r}.", hint=suggest(name[:64], known))
    return known[name]


def _answer_of(fields: dict[str, Any]) -> tuple[bytes, str]:
    """(the answer's bytes, the content type where it is known)."""
    given = [name for name in ("stream", "stream_base64", "sample") if fields.get(name) is not None]
    if len(given) > 1:
        raise Refusal(Code.BAD_REQUEST, f"An answer is one of {', '.join(given)}, not several of them.")
    name = take(fields, "sample", str)
    if name is not None:
        sample = sample_of(name)
        return sample.body, sample.content_type
    text = take(fields, "stream", str)
    if text is not None:
        return text.encode(), ""
    packed = take(fields, "stream_base64", str)
    if packed is None:
        return b"", ""
    try:
        return base64.b64decode(packed, validate=True), ""
    except (binascii.Error, ValueError) as cause:
        raise Refusal(Code.BAD_REQUEST, "stream_base64 is no base64.") from cause


def _meters_of(fields: dict[str, Any], context: Context) -> dict[str, str]:
    value = fields.get("meters")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Refusal(Code.BAD_REQUEST, "meters are expressions by name.")
    if len(value) > METERS_MAX:
        raise Refusal(Code.BAD_REQUEST, f"At most {METERS_MAX} named meters are tried at once.")
    for name in value:
        if not _METER_NAME.fullmatch(name):
            raise Refusal(Code.BAD_REQUEST, f"{name[:40]!r} cannot be the name of a meter.")
        if name == context:
            raise Refusal(Code.BAD_REQUEST, f"{name!r} is the expression itself; give the named meter another name.")
    return value


def _outcome_of(text: str | None) -> Outcome:
    if not text:
        return Outcome.COMPLETE
    try:
        return Outcome(text)
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, f"outcome is one of {', '.join(Outcome)}.") from cause


def _request_of(fields: dict[str, Any]) -> bytes | None:
    """The request's body: a text as it is, anything else as JSON."""
    value = fields.get("request")
    if value is None or value == "":
        return None
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _header(fields: dict[str, Any], name: str) -> str:
    text = take(fields, name, str) or ""
    if not _HEADER.fullmatch(text):
        raise Refusal(Code.BAD_REQUEST, f"{name} is a header's value: plain letters, at most 200.")
    return text


def trial_of_form(form: Mapping[str, str], gateway: Gateway) -> Trial:
    """From the fields of the page's form: all texts, empty where nothing was said. Raises Refusal."""
    fields: dict[str, Any] = {name: form.get(name) or None for name in TRIAL_FIELDS if name not in ("meters", "sample")}
    # A textarea sends CRLF; a stream with LF reads the same, and a file that was put into it had LF.
    fields["expression"] = form.get("expression", "").replace("\r\n", "\n")
    for name in ("stream", "request"):
        if fields[name] is not None:
            fields[name] = fields[name].replace("\r\n", "\n")
    status = form.get("status", "").strip()
    if status and not (status.isascii() and status.isdigit() and len(status) == 3):
        raise Refusal(Code.BAD_REQUEST, "status is a number from 100 to 599.")
    fields["status"] = int(status) if status else None
    fields["used"] = form.get("used", "").replace(",", "").replace("_", "").strip()
    sample = form.get("sample", "")
    if sample:
        # The page keeps what was pasted beside a chosen sample; the choice counts.
        fields |= {"sample": sample, "stream": None, "stream_base64": None}
        if not form.get("content_type_said"):
            fields["content_type"] = None
    elif fields["stream_base64"] is not None:
        fields["stream"] = None
    return trial_of(fields, gateway)
