"""One customer: limits as they stand, what was used, keys, subscription and invoices. Looked at here; changed in
``customers`` and by the keys' forms of this page. The rule: a key is shown once, in the answer that makes it."""

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.accounts import KeyWish
from gatekeeper.errors import Code, LimitState, Refusal
from gatekeeper.ports import Customer
from gatekeeper.rules.latches import seen
from gatekeeper.rules.limits import CounterRow, Scope
from gatekeeper.rules.lines import Bounds, Subject, stock_lines
from gatekeeper.rules.spent import SpendBy
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.web.gate import note
from gatekeeper.web.pages.customers import customer_url
from gatekeeper.web.pages.desk import Desk, is_asked_wrongly, seen_other
from gatekeeper.web.pages.forms import NO_FORM, Form, end_of_day_ms, read_form, words_of
from gatekeeper.web.pages.series import day_series
from gatekeeper.web.usage import period_bounds

KEYS_SHOWN = 200
INVOICES_SHOWN = 24
ROWS = 12
_PERIODS = {"7d": 7, "30d": 30, "90d": 90}
_FIELDS = (
    ("routes", r"no route"),
    ("models", r"^models"),
    ("user_id", r"^user_id"),
    ("agent_id", r"^agent_id"),
    ("expires", r"expire"),
    ("name", r"^name"),
)
_NOTHING = Bounds()


class CustomerPage:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def overview(self, request: Request) -> Response:
        """Facts, limits, and the last days."""
        customer = await self._customer(request)
        desk, now_ms = self._desk, self._desk.clock.now_ms()
        start_ms, end_ms = period_bounds({"period": "current_month"}, now_ms)
        days_ms = now_ms // DAY_MS * DAY_MS - 29 * DAY_MS
        days = await desk.store.breakdown(SpendBy.DAY, Scope.CUSTOMER, customer.id, days_ms, now_ms + DAY_MS, limit=31)
        return desk.answer(
            request,
            "customer.html",
            customer=customer,
            tab="",
            plan=desk.gateway().plans.get(customer.plan_id),
            bars=await limit_bars(desk, customer),
            total=await desk.store.spend_total(Scope.CUSTOMER, customer.id, start_ms, end_ms),
            units=day_series(days, days_ms, now_ms, [("Units", lambda row: row.units_micro / 1e6, "bars")], "units"),
            days=days,
        )

    async def usage(self, request: Request) -> Response:
        """``?range=7d|30d|90d``: by day, model, agent, user, key and route."""
        customer = await self._customer(request)
        desk, now_ms = self._desk, self._desk.clock.now_ms()
        chosen = request.query_params.get("range", "30d")
        if chosen not in _PERIODS:
            raise Refusal(Code.BAD_REQUEST, f"range is one of {', '.join(_PERIODS)}.")
        start_ms = now_ms // DAY_MS * DAY_MS - (_PERIODS[chosen] - 1) * DAY_MS
        found = {
            by.value: await desk.store.breakdown(
                by,
                Scope.CUSTOMER,
                customer.id,
                start_ms,
                now_ms + 1,
                limit=_PERIODS[chosen] + 1 if by is SpendBy.DAY else ROWS,
            )
            for by in (SpendBy.DAY, SpendBy.MODEL, SpendBy.AGENT, SpendBy.USER, SpendBy.KEY, SpendBy.ROUTE)
        }
        money = [
            ("Charged", lambda row: row.charge_nano / 1e9, "line"),
            ("Provider's cost", lambda row: row.cost_nano / 1e9, "line"),
        ]
        days = found["day"]
        return desk.answer(
            request,
            "customer_usage.html",
            customer=customer,
            tab="usage",
            chosen=chosen,
            ranges=list(_PERIODS),
            days=days,
            total=await desk.store.spend_total(Scope.CUSTOMER, customer.id, start_ms, now_ms + 1),
            parts=[(name, found[name]) for name in ("model", "agent", "user", "key", "route")],
            money=day_series(days, start_ms, now_ms, money, "dollars"),
            units=day_series(days, start_ms, now_ms, [("Units", lambda row: row.units_micro / 1e6, "bars")], "units"),
        )

    async def keys(self, request: Request) -> Response:
        """The keys, and the form for a new one."""
        return await self._keys_page(request, await self._customer(request), NO_FORM)

    async def create_key(self, request: Request) -> Response:
        """A new key; the page that answers shows it, this once."""
        form, customer = await read_form(request), await self._customer(request)
        try:
            made = await self._desk.accounts.create_key(customer.id, key_wish(form))
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return await self._keys_page(request, customer, form.blamed(refusal, _FIELDS), refusal.status)
        note(request, key=made.key.id, name=made.key.name)
        return await self._keys_page(request, customer, NO_FORM, secret=made.secret)

    async def rotate_key(self, request: Request) -> Response:
        """A key in the place of another, which is good for a while yet."""
        form, customer = await read_form(request), await self._customer(request)
        hours = form.get("grace_hours", "24")
        if not (hours.isascii() and hours.isdigit() and len(hours) < 6):
            raise Refusal(Code.BAD_REQUEST, "The hours of grace are a whole number.")
        made = await self._desk.accounts.rotate_key(request.path_params["key_id"], int(hours), customer_id=customer.id)
        note(request, replaced=request.path_params["key_id"], key=made.key.id)
        return await self._keys_page(request, customer, NO_FORM, secret=made.secret)

    async def revoke_key(self, request: Request) -> Response:
        """Refuse a key from now on."""
        customer, key_id = await self._customer(request), request.path_params["key_id"]
        key = await self._desk.store.key(key_id)
        if key is None or key.customer_id != customer.id:
            raise Refusal(Code.NOT_FOUND, f"There is no key {key_id[:64]!r}.")
        await self._desk.accounts.revoke_key(key_id)
        return seen_other(customer_url(customer.id, "keys"), done="revoked")

    async def billing(self, request: Request) -> Response:
        """The statement of the period, the subscription and the invoices."""
        customer = await self._customer(request)
        desk = self._desk
        listed = await desk.invoices.listed(customer.id, limit=INVOICES_SHOWN)
        return desk.answer(
            request,
            "customer_billing.html",
            customer=customer,
            tab="billing",
            beside=await desk.invoices.preview(customer.id),
            invoices=listed.invoices,
            fresh=listed.fresh,
            standing=await desk.store.standing(customer.id),
            sells=desk.subscriptions is not None,
        )

    async def _keys_page(
        self, request: Request, customer: Customer, form: Form, status: int = 200, secret: str | None = None
    ) -> Response:
        rows = await self._desk.store.keys(customer.id, limit=KEYS_SHOWN + 1)
        gateway = self._desk.gateway()
        model = next((model for route in gateway.router.routes for model in route.models), None)
        path = next((route.pattern.text for route in gateway.router.routes if "chat" in route.pattern.text), None)
        return self._desk.answer(
            request,
            "customer_keys.html",
            status,
            customer=customer,
            tab="keys",
            keys=sorted(rows[:KEYS_SHOWN], key=lambda key: -key.created_ms),
            more=len(rows) > KEYS_SHOWN,
            form=form,
            secret=secret,
            routes=[route.name for route in gateway.router.routes],
            url=self._desk.gate.home(request),
            path=path or "/v1/chat/completions",
            model=model or "MODEL",
        )

    async def _customer(self, request: Request) -> Customer:
        return await self._desk.accounts.customer(request.path_params["customer_id"])


async def limit_bars(desk: Desk, customer: Customer) -> list[LimitState]:
    """The stock limits that every call of a customer meets, as they stand."""
    gateway, now_ms = desk.gateway(), desk.clock.now_ms()
    plan = gateway.plans.get(customer.plan_id)
    if plan is None:
        return []
    subject = Subject(customer_id=customer.id, plan_id=plan.id, route="", anchor_ms=customer.anchor_ms)
    lines = stock_lines(plan, subject, _NOTHING, now_ms, gateway.limits, gateway.resets)
    states = await desk.store.counters([line.key for line in lines])
    return [
        LimitState(
            line.limit,
            line.key.scope,
            line.key.dimension,
            line.key.window,
            line.cap,
            row.used,
            row.held,
            line.ends_ms,
        )
        for line, row in seen(lines, (CounterRow(state.used, state.held) for state in states))
    ]


def key_wish(form: Form) -> KeyWish:
    """What the form asks for. Raises Refusal."""
    return KeyWish(
        name=form.get("name"),
        expires_ms=end_of_day_ms(form.get("expires")),
        routes=words_of(form.get("routes")),
        models=words_of(form.get("models")),
        user_id=form.get("user_id") or None,
        agent_id=form.get("agent_id") or None,
        may_assert=form.ticked("may_assert"),
    )
