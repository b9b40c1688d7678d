"""What every page of the dashboard reads and writes with, and the small things that they all do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gatekeeper.accounts import Accounts
from gatekeeper.billing.invoices import Invoices
from gatekeeper.billing.subscriptions import Subscriptions
from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.overlays import Limits
from gatekeeper.ports import Store
from gatekeeper.proxy.breakers import Standing
from gatekeeper.web.gate import Gate
from gatekeeper.web.pages.rendering import HEADERS, Pages

PAGE_ROWS = 50
T = TypeVar("T")
# What a page says after a change. Only these: a text in a URL is not ours to show.
DONE = {
    "customer": "The customer is made. Make a key, and the first call can come.",
    "changed": "The change is made.",
    "plan": "The customer is on the new plan. What was used in this period stays used.",
    "disabled": "The customer is disabled: every call is refused from now on.",
    "enabled": "The customer may call again.",
    "revoked": "The key is revoked: it is refused everywhere within a second.",
    "limit": "The limit holds from now on, in every process within half a second.",
    "removed": "The limit is taken away. What is declared in its place holds again.",
    "reset": "The count has begun anew. What was used stays on record.",
    "retried": "It is sent again at once.",
    "settled": "It is settled by hand.",
    "operator": "The change is made.",
}


@dataclass(frozen=True, slots=True)
class Desk:
    """One for a process. ``subscriptions`` None: Stripe is not enabled."""

    pages: Pages
    gate: Gate
    store: Store
    accounts: Accounts
    limits: Limits
    gateway: Callable[[], Gateway]
    clock: Clock
    invoices: Invoices
    subscriptions: Subscriptions | None = None
    breakers: Callable[[], Sequence[Standing]] = tuple
    # What each process of this host says of itself, this one first; see ``web.siblings``.
    processes: Callable[[], Sequence[Mapping[str, Any]]] = tuple

    def answer(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """A page of the dashboard, with what was done before it."""
        done = DONE.get(request.query_params.get("done", ""))
        return self.pages.answer(request, f"dashboard/{template}", status, **{"done": done, **context})


def seen_other(path: str, **query: str) -> Response:
    """To another page, with GET (RFC 9110, 15.4.4)."""
    target = f"{path}?{urlencode(query)}" if query else path
    return RedirectResponse(target, 303, headers={"cache-control": HEADERS["cache-control"]})


def paged(rows: Sequence[T], most: int = PAGE_ROWS) -> tuple[Sequence[T], bool]:
    """A page of rows of which one more was looked for, and whether there are more."""
    return rows[:most], len(rows) > most


def with_query(path: str, query: dict[str, str], **other: str) -> str:
    """The same page with other words in its query; an empty one is left out."""
    merged = {name: value for name, value in {**query, **other}.items() if value and name != "done"}
    return f"{path}?{urlencode(merged)}" if merged else path


def is_asked_wrongly(refusal: Refusal) -> bool:
    """Whether a form is shown again with this refusal in it; another one has a page of its own."""
    return refusal.code in (Code.BAD_REQUEST, Code.CONFLICT, Code.BILLER_UNAVAILABLE)
