"""Templates into answers. The rule: whatever a page shows is escaped, nothing in it is a script or a style of its own
(the Content-Security-Policy takes none), and no cache keeps it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.clock import Clock
from gatekeeper.errors import REFUSALS, Refusal
from gatekeeper.version import __version__
from gatekeeper.web.pages import formats
from gatekeeper.web.pages.assets import Assets

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
# https://www.w3.org/TR/CSP3/: what is not named here is not loaded, run or sent at all.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": CSP,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # The URL of a page may hold the name of a customer, and that of a sign-in its secret.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
_TITLES = {
    400: "That cannot be done",
    401: "Please sign in",
    403: "You may not do this",
    404: "There is no such page",
    405: "That cannot be done here",
    409: "Somebody else was here first",
    413: "That is too large",
    429: "Too often",
    500: "We made a mistake",
    502: "Somebody else does not answer",
    503: "Not at the moment",
}


def script_json(value: Any) -> Markup:
    """JSON for a ``<script type="application/json">``: no ``<``, ``&`` or ``'`` in it, so that it
    cannot end, nor a quoted attribute."""
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    for letter in "<>&'\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


class Pages:
    """Answers pages. Every template has ``actor`` (None: nobody is signed in), ``csrf``, ``path``, ``now_ms`` and
    ``version`` beside what it is given."""

    def __init__(self, clock: Clock, assets: Assets | None = None, templates: Path = TEMPLATES) -> None:
        self._clock = clock
        self.assets = assets or Assets()
        self._templates = Environment(
            loader=FileSystemLoader(templates),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(formats.FILTERS)
        self._templates.filters["script_json"] = script_json
        self._templates.globals["asset"] = self.assets.url

    def answer(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """The page that ``template`` writes of ``context``."""
        return Response(
            self.text(request, template, **context), status, dict(HEADERS), media_type="text/html; charset=utf-8"
        )

    def text(self, request: Request, template: str, **context: Any) -> str:
        """What ``template`` writes of ``context``."""
        known = {
            "actor": getattr(request.state, "actor", None),
            "csrf": getattr(request.state, "csrf", ""),
            "path": request.url.path,
            "now_ms": self._clock.now_ms(),
            "version": __version__,
        }
        return self._templates.get_template(template).render(**{**known, **context})

    def refused(self, request: Request, refusal: Refusal) -> Response:
        """A refusal as a page: what happened, and what to do."""
        page = self.answer(
            request,
            "error.html",
            refusal.status,
            title=_TITLES.get(refusal.status, "That did not work"),
            said=refusal.public,
            hint=refusal.hint,
            number=refusal.status,
            retry=REFUSALS[refusal.code].retry_helps,
        )
        for name, value in refusal.headers:
            page.headers[name] = value
        if refusal.retry_after_s is not None:
            page.headers["retry-after"] = str(refusal.retry_after_s)
        return page


def wants_page(request: Request) -> bool:
    """Whether a refusal of this request is answered as a page."""
    path = request.url.path
    return any(path == top or path.startswith(top + "/") for top in ("/dashboard", "/portal", "/playground"))
