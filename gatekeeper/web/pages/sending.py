"""What others are told: usage for the biller, events for webhooks and mail, and events that the biller sent us. What
was given up is tried again by a button."""

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.errors import Code, Refusal
from gatekeeper.rules.billing import BatchState
from gatekeeper.web.gate import note
from gatekeeper.web.notices import STATES, target_json
from gatekeeper.web.pages.desk import PAGE_ROWS, Desk, seen_other
from gatekeeper.web.pages.forms import read_form

HERE = "/dashboard/outbox"


class OutboxPages:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def batches(self, request: Request) -> Response:
        """``?state=&customer_id=``: what the biller is told of usage."""
        desk, query = self._desk, request.query_params
        state, customer_id = query.get("state", ""), query.get("customer_id", "").strip()
        if state and state not in tuple(BatchState):
            raise Refusal(Code.BAD_REQUEST, f"state is one of {', '.join(BatchState)}.")
        stripe = desk.gateway().stripe
        backlog, whole = await desk.store.backlog(known_only=stripe.enabled), await desk.store.backlog()
        return desk.answer(
            request,
            "outbox.html",
            tab="",
            rows=await desk.store.batches(
                state=BatchState(state) if state else None, customer_id=customer_id or None, limit=PAGE_ROWS
            ),
            state=state,
            customer_id=customer_id,
            states=[("", "all states"), *((each.value, each.value) for each in BatchState)],
            backlog=backlog,
            without_account=whole.unfrozen - backlog.unfrozen,
            is_behind=backlog.is_behind(desk.clock.now_ms()),
            told="Stripe" if stripe.enabled else "a file" if stripe.reports else None,
        )

    async def retry_batch(self, request: Request) -> Response:
        """``known``: empty, told or unsent; see ``POST /admin/outbox/{id}/retry``."""
        form, now_ms = await read_form(request), self._desk.clock.now_ms()
        batch = await self._desk.store.batch(request.path_params["batch_id"])
        if batch is None:
            raise Refusal(Code.NOT_FOUND, "There is no such batch.")
        known = form.get("known")
        note(request, known=known or None, state=batch.state)
        if known in ("told", "unsent"):
            await self._desk.store.settle_by_hand(batch.id, now_ms, told=known == "told")
            return seen_other(HERE, done="settled")
        await self._desk.store.retry_batches(now_ms, batch.id)
        return seen_other(HERE, done="retried")

    async def deliveries(self, request: Request) -> Response:
        """``?state=``: who was told of what."""
        state = _state(request, STATES)
        return self._desk.answer(
            request,
            "deliveries.html",
            tab="events",
            rows=await self._desk.store.deliveries(state=state or None, limit=PAGE_ROWS),
            targets=[target_json(each) for each in self._desk.gateway().notifications],
            state=state,
            states=[("", "all states"), *((each, each) for each in STATES)],
        )

    async def retry_delivery(self, request: Request) -> Response:
        """One event to one target; without a target to all."""
        form = await read_form(request)
        await self._desk.store.retry(
            self._desk.clock.now_ms(), event_id=request.path_params["event_id"], target=form.get("target") or None
        )
        return seen_other(f"{HERE}/events", done="retried")

    async def letters(self, request: Request) -> Response:
        """``?state=``: what the biller told us."""
        states = ("waiting", "done", "dead")
        state = _state(request, states)
        return self._desk.answer(
            request,
            "letters.html",
            tab="received",
            rows=await self._desk.store.letters(state=state or None, limit=PAGE_ROWS),
            state=state,
            states=[("", "all states"), *((each, each) for each in states)],
            sells=self._desk.subscriptions is not None,
        )

    async def retry_letter(self, request: Request) -> Response:
        """Work on an event of the biller again, at once."""
        await self._desk.store.retry_events(self._desk.clock.now_ms(), request.path_params["event_id"])
        return seen_other(f"{HERE}/received", done="retried")


def _state(request: Request, states: tuple[str, ...]) -> str:
    state = request.query_params.get("state", "")
    if state and state not in states:
        raise Refusal(Code.BAD_REQUEST, f"state is one of {', '.join(states)}.")
    return state
