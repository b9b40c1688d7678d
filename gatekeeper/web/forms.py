"""Forms that a page sends: ``application/x-www-form-urlencoded``, one value a field. The rule: what came is kept for
whoever reads it after the gate has looked for its own field."""

from urllib.parse import parse_qsl

from starlette.requests import Request

from gatekeeper.errors import Code, Refusal
from gatekeeper.web.answers import body_bytes

FIELDS_MAX = 200


async def form_of(request: Request) -> dict[str, str]:
    """The fields. Raises Refusal for what is no form, too large, or says one field twice."""
    kept: dict[str, str] | None = request.scope.get("gatekeeper.form")
    if kept is not None:
        return kept
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await body_bytes(request)
    if body and kind != "application/x-www-form-urlencoded":
        raise Refusal(Code.BAD_REQUEST, "The body must be a form (application/x-www-form-urlencoded).")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, "The form cannot be read.") from cause
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Refusal(Code.BAD_REQUEST, "A field stands twice in the form.")
    if any("\0" in text for pair in pairs for text in pair):
        raise Refusal(Code.BAD_REQUEST, "A text in the form holds the character NUL.")
    request.scope["gatekeeper.form"] = form
    return form
