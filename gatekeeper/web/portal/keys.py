"""A customer's keys, made, rotated and revoked by himself. The rule: a key is shown once, in the answer that makes it,
and one that is made here asserts no user and no agent."""

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.accounts import KeyWish
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Customer
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.web.gate import PORTAL, note
from gatekeeper.web.pages.customer import KEYS_SHOWN
from gatekeeper.web.pages.desk import is_asked_wrongly, seen_other
from gatekeeper.web.pages.forms import NO_FORM, Form, end_of_day_ms, words_of
from gatekeeper.web.portal.desk import PortalDesk
from gatekeeper.web.portal.forms import typed

_GRACE_HOURS = 24
_FIELDS = (("models", r"^models"), ("expires", r"expire"), ("name", r"^name"))
# A later day is a slip of the pen: whoever means for ever leaves it empty.
_ENDS_DAYS_MAX = 3_660


class Keys:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, portal: PortalDesk) -> None:
        self._portal = portal

    async def page(self, request: Request) -> Response:
        """The keys, and the form for a new one."""
        return await self._page(request, await self._portal.customer(request), NO_FORM)

    async def create(self, request: Request) -> Response:
        """``name``, ``models``, ``expires`` (its last day); the page that answers shows the key, this once."""
        customer, accounts = await self._portal.customer(request), self._portal.desk.accounts
        _, form = await typed(request)
        try:
            await accounts.check_room(customer.id)
            wish = KeyWish(form.get("name"), self._expires_ms(form), models=words_of(form.get("models")))
            made = await accounts.create_key(customer.id, wish)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return await self._page(request, customer, form.blamed(refusal, _FIELDS), refusal.status)
        note(request, key=made.key.id, name=made.key.name)
        return await self._page(request, customer, NO_FORM, secret=made.secret)

    async def rotate(self, request: Request) -> Response:
        """A key in the place of another, which is good for a day yet."""
        customer, accounts = await self._portal.customer(request), self._portal.desk.accounts
        await accounts.check_room(customer.id)
        key_id = request.path_params["key_id"]
        made = await accounts.rotate_key(key_id, _GRACE_HOURS, customer_id=customer.id)
        note(request, replaced=key_id, key=made.key.id)
        return await self._page(request, customer, NO_FORM, secret=made.secret)

    async def revoke(self, request: Request) -> Response:
        """Refuse a key from now on."""
        customer, key_id = await self._portal.customer(request), request.path_params["key_id"]
        key = await self._portal.desk.store.key(key_id)
        if key is None or key.customer_id != customer.id:
            raise Refusal(Code.NOT_FOUND, f"There is no key {key_id[:64]!r}.")
        await self._portal.desk.accounts.revoke_key(key_id)
        return seen_other(f"{PORTAL}/keys", done="revoked")

    def _expires_ms(self, form: Form) -> int | None:
        expires_ms = end_of_day_ms(form.get("expires"))
        if expires_ms is not None and expires_ms > self._portal.desk.clock.now_ms() + _ENDS_DAYS_MAX * DAY_MS:
            raise Refusal(Code.BAD_REQUEST, "A key expires within ten years, or never: then leave the day empty.")
        return expires_ms

    async def _page(
        self, request: Request, customer: Customer, form: Form, status: int = 200, secret: str | None = None
    ) -> Response:
        desk = self._portal.desk
        rows = await desk.store.keys(customer.id, limit=KEYS_SHOWN + 1)
        gateway = desk.gateway()
        model = next((model for route in gateway.router.routes for model in route.models), None)
        path = next((route.pattern.text for route in gateway.router.routes if "chat" in route.pattern.text), None)
        return self._portal.answer(
            request,
            "keys.html",
            status,
            customer=customer,
            keys=sorted(rows[:KEYS_SHOWN], key=lambda key: -key.created_ms),
            more=len(rows) > KEYS_SHOWN,
            form=form,
            secret=secret,
            url=gateway.server.public_url or str(request.base_url).rstrip("/"),
            path=path or "/v1/chat/completions",
            model=model or "MODEL",
        )
