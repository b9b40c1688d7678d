"""Signing in to the portal: by password, or by a link that is mailed. The rule: whoever asks for a link is told the
same, at the same speed, whether there is such a person or not; a link is used by a button, because mail programs
follow links by themselves."""

import asyncio
import logging
import secrets

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.people.signins import check_email
from gatekeeper.ports.people import Login
from gatekeeper.web.gate import PORTAL, actor_of, next_of
from gatekeeper.web.pages.desk import seen_other
from gatekeeper.web.pages.forms import NO_FORM, Form
from gatekeeper.web.portal.desk import PortalDesk
from gatekeeper.web.portal.forms import typed
from gatekeeper.web.signing import signed_in, signed_out

# Mails that are on their way at once; who asks for more waits for his turn, and is told nothing of it.
_MAILS_MAX = 8
_FOUND_MAX = 5
_LINK_LIFE_MS = 30 * 60_000

log = logging.getLogger("gatekeeper.web")


class SignIn:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, portal: PortalDesk) -> None:
        self._portal = portal
        self._signins = portal.desk.gate.signins
        self._mailing: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_MAILS_MAX)

    async def page(self, request: Request) -> Response:
        """The two ways in."""
        return self._page(request, NO_FORM)

    async def by_password(self, request: Request) -> Response:
        """``email``, ``password``; wrong ones are shown again without saying which was wrong."""
        fields, form = await typed(request)
        gate = self._portal.desk.gate
        try:
            login = await self._signins.by_password(
                fields.get("email", ""), fields.get("password", ""), gate.address_of(request)
            )
            if login.customer_id is None:
                # An operator's password opens the dashboard; nobody is told here that it is one.
                raise Refusal(Code.WRONG_PASSWORD)
        except Refusal as refusal:
            return self._page(request, Form(form.values, {}, refusal.public, refusal.hint), refusal.status)
        return await self._in(request, login, fields.get("next"))

    async def ask_for_link(self, request: Request) -> Response:
        """``email``: a link goes there, where somebody signs in with it."""
        if not self._portal.sends_links:
            raise Refusal(Code.NOT_FOUND, "No links are mailed here.", hint="[mail], and [server] public_url")
        fields, form = await typed(request)
        try:
            email = check_email(fields.get("email", ""))
            await self._signins.check_rate(email, self._portal.desk.gate.address_of(request))
        except Refusal as refusal:
            return self._page(request, Form(form.values, {}, refusal.public, refusal.hint), refusal.status)
        mailing = asyncio.create_task(self._mail_link(email), name="portal link")
        self._mailing.add(mailing)
        mailing.add_done_callback(self._mailing.discard)
        return self._portal.answer(request, "asked.html", email=email)

    async def link(self, request: Request) -> Response:
        """Where the link leads: a button that signs in."""
        secret = request.query_params.get("t", "")
        login = await self._signins.look_at_link(secret)
        good = login is not None and login.customer_id is not None
        return self._portal.answer(request, "link.html", 200 if good else 410, secret=secret if good else None)

    async def use_link(self, request: Request) -> Response:
        """The button was pressed: the link works this once."""
        fields, _ = await typed(request)
        login = await self._signins.use_link(fields.get("t", ""))
        if login is None or login.customer_id is None:
            return self._portal.answer(request, "link.html", 410, secret=None)
        return await self._in(request, login, None)

    async def out(self, request: Request) -> Response:
        """Sign out."""
        return await signed_out(request, self._portal.desk.gate, PORTAL)

    async def password_page(self, request: Request) -> Response:
        """Make or change a password."""
        return await self._password_page(request, NO_FORM)

    async def set_password(self, request: Request) -> Response:
        """``old`` (where there is one), ``new``. Other browsers are signed out; this one goes on with a new session."""
        fields, form = await typed(request)
        login, gate = await self._login(request), self._portal.desk.gate
        try:
            if login.password is not None:
                changed = await self._signins.change_password(
                    login, fields.get("old", ""), fields.get("new", ""), gate.address_of(request)
                )
            else:
                changed = await self._signins.set_password(login, fields.get("new", ""))
        except Refusal as refusal:
            name = "old" if refusal.code is Code.WRONG_PASSWORD else "new"
            return await self._password_page(request, form.wrong(name, refusal.public), refusal.status)
        answer = seen_other(f"{PORTAL}/password", done="password")
        return await signed_in(request, gate, PORTAL, changed, answer)

    async def settled(self) -> None:
        """Wait until no mail is on its way."""
        while self._mailing:
            await asyncio.wait(self._mailing)

    # --- the rest ---

    def _page(self, request: Request, form: Form, status: int = 200) -> Response:
        goes_on = request.query_params.get("next") or form.get("next")
        return self._portal.answer(
            request,
            "login.html",
            status,
            form=form,
            links=self._portal.sends_links,
            goes_on=next_of(goes_on, PORTAL),
        )

    async def _password_page(self, request: Request, form: Form, status: int = 200) -> Response:
        login = await self._login(request)
        return self._portal.answer(request, "password.html", status, form=form, has_one=login.password is not None)

    async def _login(self, request: Request) -> Login:
        found = await self._portal.desk.store.login(actor_of(request).id)
        if found is None:
            raise Refusal(Code.NOT_SIGNED_IN)
        return found

    async def _in(self, request: Request, login: Login, goes_on: str | None) -> Response:
        answer = seen_other(next_of(goes_on, PORTAL))
        return await signed_in(request, self._portal.desk.gate, PORTAL, login, answer)

    async def _mail_link(self, email: str) -> None:
        """In the background: how long this takes says nothing to whoever asked."""
        try:
            async with self._turns:
                login = await self._whose(email)
                if login is None:
                    return
                secret = await self._signins.make_link(login, _LINK_LIFE_MS)
                url = self._portal.desk.gateway().server.public_url
                text = (
                    "Somebody, most likely you, wants to sign in to the customers' portal:\n\n"
                    f"{url}{PORTAL}/link?t={secret}\n\n"
                    "The link works once, for half an hour. If it was not you, nothing has to be done.\n"
                )
                await self._portal.mail.send(email, "Sign in to the portal", text)
        except (Fault, Refusal) as failed:
            log.warning("a link to the portal could not be mailed: %s", failed)
        except Exception:
            log.exception("a link to the portal could not be mailed")

    async def _whose(self, email: str) -> Login | None:
        """The person with this address. The one address that an operator wrote down for a customer is a person, too."""
        store = self._portal.desk.store
        if (found := await store.login_of(email)) is not None:
            return _of_customer(found)
        rows = await store.customers(find=email, limit=_FOUND_MAX)
        named = [row for row in rows if row.email is not None and row.email.strip().lower() == email]
        # Whose it is cannot be said where several have it, or more may.
        if len(named) != 1 or len(rows) == _FOUND_MAX:
            return None
        login = Login("usr_" + secrets.token_hex(8), email, self._portal.desk.clock.now_ms(), customer_id=named[0].id)
        return login if await store.create_login(login) else _of_customer(await store.login_of(email))


def _of_customer(login: Login | None) -> Login | None:
    return login if login is not None and login.customer_id is not None and login.disabled_ms is None else None
