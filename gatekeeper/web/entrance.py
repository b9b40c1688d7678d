"""The dashboard's door: sign in, sign out, and the link that works once. The rule: no secret stays in a URL; the one in
a link is exchanged for a cookie by the first GET, which uses nothing up, so that a program that looks at links before
people do takes nobody's.
"""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gatekeeper.errors import Code, Refusal
from gatekeeper.people.operators import FIRST_EMAIL
from gatekeeper.people.passwords import LETTERS_MIN, check_password
from gatekeeper.people.signins import LINK_LIFE_MS, check_email
from gatekeeper.ports.people import Login
from gatekeeper.web.forms import form_of
from gatekeeper.web.gate import DASHBOARD, Gate, next_of
from gatekeeper.web.pages.rendering import Pages
from gatekeeper.web.signing import signed_in, signed_out

FIRST = f"{DASHBOARD}/first"
_LOGIN = f"{DASHBOARD}/login"
_NO_STORE = {"cache-control": "no-store", "referrer-policy": "same-origin"}


@dataclass(frozen=True, slots=True)
class Entrance:
    """Pages; each refusal is a page too."""

    gate: Gate
    pages: Pages

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        here = self.gate.from_here
        return [
            Route(_LOGIN, here(self.get_login), methods=["GET"]),
            Route(_LOGIN, here(self.post_login), methods=["POST"]),
            Route(f"{DASHBOARD}/logout", self.gate.page(self.post_logout), methods=["POST"]),
            Route(FIRST, here(self.get_first), methods=["GET"]),
            Route(FIRST, here(self.post_first), methods=["POST"]),
        ]

    async def get_login(self, request: Request) -> Response:
        """``?next=PATH``: the form; whoever is signed in goes on."""
        target = next_of(request.query_params.get("next"), DASHBOARD)
        cookie = self.gate.cookie_of(request, DASHBOARD)
        if cookie is not None and await self.gate.signins.session(cookie) is not None:
            return _to(target)
        return self._login_page(request, target)

    async def post_login(self, request: Request) -> Response:
        """``email``, ``password``, ``next``: a new session, whatever came along."""
        form = await form_of(request)
        email, target = form.get("email", ""), next_of(form.get("next"), DASHBOARD)
        address = self.gate.address_of(request)
        try:
            login = await self.gate.signins.by_password(email, form.get("password", ""), address)
            if login.role is None:
                raise Refusal(Code.WRONG_PASSWORD)
        except Refusal as refusal:
            return self._login_page(request, target, email, refusal)
        return await self._signed_in(request, login, target)

    async def post_logout(self, request: Request) -> Response:
        """The session ends."""
        return await signed_out(request, self.gate, DASHBOARD)

    async def get_first(self, request: Request) -> Response:
        """``?link=SECRET`` is put into a cookie and out of the URL; without it the form."""
        sent = request.query_params.get("link")
        if sent is not None:
            answer = _to(FIRST)
            if await self._owner_of(sent) is not None:
                secure = self.gate.is_secure(request)
                name, life_s = _link_name(secure), LINK_LIFE_MS // 1000
                # Lax and not Strict: whoever comes by a link in a letter brings it along to the next page.
                answer.set_cookie(name, sent, max_age=life_s, path=FIRST, secure=secure, httponly=True, samesite="lax")
            return answer
        login = await self._owner_of(self._link(request))
        return self._first_page(request, login, 200 if login is not None else 404)

    async def post_first(self, request: Request) -> Response:
        """``password``, ``again`` and, of the first owner, ``email``: the link is used up, and he is signed in."""
        form, secret = await form_of(request), self._link(request)
        login = await self._owner_of(secret)
        if login is None:
            return self._first_page(request, None, 404)
        email = form.get("email", "") if login.email == FIRST_EMAIL else login.email
        password = form.get("password", "")
        try:
            if password != form.get("again", ""):
                raise Refusal(Code.BAD_REQUEST, "The two passwords differ.")
            # Before the link is used up: a short password, or somebody else's address, costs nobody his way in.
            email = check_email(email)
            check_password(password, email)
            await self.gate.signins.check_free(email, login)
            used = await self.gate.signins.use_link(secret)
            if used is None or used.id != login.id:
                return self._first_page(request, None, 404)
            async with self.gate.deeds.doing(
                email, f"POST {FIRST}", login.id, {"from": self.gate.address_of(request), "role": login.role}
            ):
                login = await self.gate.signins.set_password(used, password, email)
        except Refusal as refusal:
            return self._first_page(request, login, refusal.status, email, refusal)
        answer = await self._signed_in(request, login, DASHBOARD)
        secure = self.gate.is_secure(request)
        answer.delete_cookie(_link_name(secure), path=FIRST, secure=secure, httponly=True, samesite="lax")
        return answer

    async def _signed_in(self, request: Request, login: Login, target: str) -> Response:
        return await signed_in(request, self.gate, DASHBOARD, login, _to(target))

    async def _owner_of(self, secret: str) -> Login | None:
        """Whose link it is, where he is an operator."""
        found = await self.gate.signins.look_at_link(secret)
        return found if found is not None and found.role is not None else None

    def _link(self, request: Request) -> str:
        return request.cookies.get(_link_name(self.gate.is_secure(request)), "")

    def _login_page(self, request: Request, target: str, email: str = "", refusal: Refusal | None = None) -> Response:
        status = 200 if refusal is None else refusal.status
        answer = self.pages.answer(
            request,
            "dashboard/login.html",
            status,
            next=target,
            email=email[:320],
            said=None if refusal is None else refusal.public,
            wait_s=None if refusal is None else refusal.retry_after_s,
        )
        if refusal is not None and refusal.retry_after_s is not None:
            answer.headers["retry-after"] = str(refusal.retry_after_s)
        return answer

    def _first_page(
        self, request: Request, login: Login | None, status: int, email: str = "", refusal: Refusal | None = None
    ) -> Response:
        known = None if login is None or login.email == FIRST_EMAIL else login.email
        return self.pages.answer(
            request,
            "dashboard/first.html",
            status,
            works=login is not None,
            known=known,
            email=email[:320],
            letters_min=LETTERS_MIN,
            said=None if refusal is None else refusal.public,
            hint=None if refusal is None else refusal.hint,
        )


def _to(target: str) -> Response:
    return RedirectResponse(target, 303, _NO_STORE)


def _link_name(secure: bool) -> str:
    return "__Secure-gatekeeper-link" if secure else "gatekeeper-link"
