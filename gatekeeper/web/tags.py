"""ETags (RFC 9110, sections 8.8.3 and 13.1.1): a change may name the state that it is meant for. The rule: whoever
names none changes what there is."""

import hashlib
import re
from typing import Any

import orjson
from starlette.requests import Request

from gatekeeper.errors import Code, Refusal


def tag_of(shown: Any) -> str:
    """The ETag of what is shown as JSON, without its quotes."""
    return hashlib.sha256(orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def tag_header(shown: Any) -> dict[str, str]:
    """The header of an answer."""
    return {"etag": f'"{tag_of(shown)}"'}


def if_match(request: Request) -> str | None:
    """The one state that is meant; None: any. Raises Refusal."""
    written = request.headers.get("if-match")
    if written is None or written.strip() == "*":
        return None
    found = re.fullmatch(r'\s*"([^",]{0,64})"\s*', written)
    if found is None:
        raise Refusal(Code.BAD_REQUEST, 'If-Match names one ETag, as in "18f-3".')
    return found[1]


def check_match(request: Request, shown: Any) -> bool:
    """Raises Refusal (412) where another state is meant than the one shown; returns whether one was named."""
    meant = if_match(request)
    if meant is not None and meant != tag_of(shown):
        raise stale()
    return meant is not None


def stale() -> Refusal:
    """What was meant is not what there is."""
    return Refusal(Code.CONFLICT, "This has changed in the meantime.", hint="fetch it again", status=412)
