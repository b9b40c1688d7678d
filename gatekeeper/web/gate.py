"""Who may ask for what: the one gate before every endpoint of operators and customers' people. The rule: an endpoint is
reached by nobody whom the gate has not named, and whatever changes something has its deed in the audit log first.

A caller shows one of three things: ``X-Admin-Key``, ``Authorization: Bearer`` with a token, or the cookie of a
session. Whoever shows several is taken at the first of them. A cookie comes by itself, also from a page of
somebody else: so what a cookie pays for must come from a page of ours, and bring the token that only our pages know.
"""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.people.repeats import Again, Remembered
from gatekeeper.people.signins import SignIns, csrf_matches, csrf_of_cookie
from gatekeeper.people.trail import Deeds, Doing
from gatekeeper.ports.people import Login, Role
from gatekeeper.web.answers import body_bytes, check_storable, json_answer
from gatekeeper.web.forms import form_of

Endpoint = Callable[[Request], Awaitable[Response]]

ADMIN_KEY_NAME = "admin key"
DASHBOARD, PORTAL = "/dashboard", "/portal"
_SAFE = frozenset({"GET", "HEAD"})
# Longer ones are no addresses of ours.
_NEXT_LETTERS_MAX = 1_000


class ActorKind(StrEnum):
    """As what somebody asks."""

    KEY = "key"
    OPERATOR = "operator"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever asks. ``name`` is "admin key" or the email; the admin key has the role OWNER. A customer's person has a
    ``customer_id`` and no role."""

    kind: ActorKind
    id: str
    name: str
    role: Role | None
    customer_id: str | None


def actor_of(request: Request) -> Actor:
    """Who asks, behind a guard."""
    actor: Actor = request.state.actor
    return actor


def csrf_of(request: Request) -> str:
    """What a form or the header X-CSRF-Token must bring, behind a guard; empty for whoever came without a cookie."""
    text: str = getattr(request.state, "csrf", "")
    return text


def note(request: Request, **facts: Any) -> None:
    """Add facts to this request's deed, never a secret: ``subject`` is what it is about, ``before`` and ``after`` what
    changed. Nothing where the request changes nothing."""
    doing: Doing | None = getattr(request.state, "doing", None)
    if doing is not None:
        doing.note(facts)


def shown_once(request: Request, *fields: str) -> None:
    """These fields of the answer are secrets: a repeat under the same Idempotency-Key does not have them. So it is for
    what is named like a secret (``people.repeats.SECRETS``) without this."""
    request.state.once = frozenset(fields)


class Gate:
    """Guards; each takes an endpoint and gives one back that raises Refusal where the caller may not pass."""

    def __init__(
        self,
        signins: SignIns,
        deeds: Deeds,
        remembered: Remembered,
        gateway: Callable[[], Gateway],
    ) -> None:
        self.signins = signins
        self.deeds = deeds
        self._remembered = remembered
        self._gateway = gateway

    def operator(self, endpoint: Endpoint, least: Role | None = None, *, changes: bool = True) -> Endpoint:
        """For the JSON API of operators. ``least`` None: VIEWER to look, ADMIN to change. A POST with an
        Idempotency-Key is answered once. ``changes`` False: also its POST changes nothing, so it has no deed."""

        async def guarded(request: Request) -> Response:
            actor = await self._operator(request)
            looks = request.method in _SAFE or not changes
            _check_role(actor, least or (Role.VIEWER if looks else Role.ADMIN))
            return await self._let_in(request, actor, endpoint, changes=changes)

        return guarded

    def customer(self, endpoint: Endpoint) -> Endpoint:
        """For the JSON API of a customer's people: a token, or the portal's cookie."""

        async def guarded(request: Request) -> Response:
            token = bearer_of(request)
            login = await self._by_token(token) if token is not None else await self._by_cookie(request, PORTAL)
            if login is None:
                raise Refusal(Code.NOT_SIGNED_IN)
            if login.customer_id is None:
                raise Refusal(Code.NOT_PERMITTED, "This is for the people of a customer.")
            return await self._let_in(request, _actor(login), endpoint)

        return guarded

    def anybody(self, endpoint: Endpoint) -> Endpoint:
        """For JSON that operators and customers' people may ask for alike; the endpoint decides what each may see."""

        async def guarded(request: Request) -> Response:
            if "x-admin-key" in request.headers:
                actor = self._by_key(request)
            else:
                token = bearer_of(request)
                login = await self._by_token(token) if token is not None else await self._by_either_cookie(request)
                if login is None:
                    raise Refusal(Code.NOT_SIGNED_IN)
                actor = _actor(login)
            if actor.role is not None and request.method not in _SAFE:
                _check_role(actor, Role.VIEWER)
            return await self._let_in(request, actor, endpoint)

        return guarded

    def page(self, endpoint: Endpoint, least: Role = Role.VIEWER, *, changes: bool = True) -> Endpoint:
        """For pages of operators: whoever is not signed in is sent to the sign-in page, and comes back. ``changes``
        False: also its POST changes nothing, so it has no deed."""

        async def guarded(request: Request) -> Response:
            login = await self._by_cookie(request, DASHBOARD)
            if login is None or login.role is None:
                return sent_to_sign_in(request, DASHBOARD)
            actor = _actor(login)
            _check_role(actor, least)
            return await self._let_in(request, actor, endpoint, changes=changes)

        return guarded

    def customer_page(self, endpoint: Endpoint) -> Endpoint:
        """For pages of a customer's people."""

        async def guarded(request: Request) -> Response:
            login = await self._by_cookie(request, PORTAL)
            if login is None or login.customer_id is None:
                return sent_to_sign_in(request, PORTAL)
            return await self._let_in(request, _actor(login), endpoint)

        return guarded

    def from_here(self, endpoint: Endpoint) -> Endpoint:
        """For what nobody needs to be signed in for, but which must not come from somebody else's page: signing in. The
        endpoint writes no deed."""

        async def guarded(request: Request) -> Response:
            if request.method not in _SAFE:
                self.check_origin(request)
            check_storable([*request.path_params.values(), *request.query_params.values()])
            return await endpoint(request)

        return guarded

    # --- who it is ---

    async def _operator(self, request: Request) -> Actor:
        token = bearer_of(request)
        if "x-admin-key" not in request.headers and (token is not None or self.cookie_of(request, DASHBOARD)):
            login = await self._by_token(token) if token is not None else await self._by_cookie(request, DASHBOARD)
            if login is None:
                raise Refusal(Code.NOT_SIGNED_IN)
            if login.role is None:
                raise Refusal(Code.NOT_PERMITTED, "This is for operators.")
            return _actor(login)
        return self._by_key(request)

    def _by_key(self, request: Request) -> Actor:
        secret = self._gateway().admin_key
        sent = request.headers.get("x-admin-key", "")
        if secret is None or not secret.reveal():
            raise Refusal(Code.ADMIN_KEY_REQUIRED, "The admin API is off.", hint="set ADMIN_API_KEY, or [admin] key")
        if not hmac.compare_digest(sent.encode(), secret.reveal().encode()):
            raise Refusal(Code.ADMIN_KEY_REQUIRED)
        return Actor(ActorKind.KEY, "admin-key", ADMIN_KEY_NAME, Role.OWNER, None)

    async def _by_token(self, token: str) -> Login | None:
        return await self.signins.of_token(token)

    async def _by_cookie(self, request: Request, side: str) -> Login | None:
        cookie = self.cookie_of(request, side)
        found = None if cookie is None else await self.signins.session(cookie)
        if found is None or cookie is None:
            return None
        if request.method not in _SAFE:
            self.check_origin(request)
            sent = request.headers.get("x-csrf-token")
            if sent is None and _is_form(request):
                sent = (await form_of(request)).get("csrf")
            if sent is None or not csrf_matches(cookie, sent):
                raise Refusal(Code.CROSS_SITE, hint="send X-CSRF-Token, or the form's field csrf; or reload the page")
        request.state.csrf = csrf_of_cookie(cookie)
        return found[1]

    async def _by_either_cookie(self, request: Request) -> Login | None:
        return await self._by_cookie(request, DASHBOARD) or await self._by_cookie(request, PORTAL)

    async def is_still_in(self, request: Request, side: str) -> bool:
        """Whether the session by which this request came in holds yet: for an answer that goes on for minutes."""
        cookie = self.cookie_of(request, side)
        try:
            return cookie is not None and await self.signins.session(cookie) is not None
        except Fault:
            # He comes back by himself when it can be told.
            return False

    def check_origin(self, request: Request) -> None:
        """Raises Refusal for a request that a browser says comes from another site (Sec-Fetch-Site, Origin)."""
        site = request.headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            raise Refusal(Code.CROSS_SITE)
        origin = request.headers.get("origin")
        # "null" is what a page with referrer-policy no-referrer says of itself, and a sandboxed frame of anybody.
        if origin is None or (origin == "null" and site is not None):
            return
        if origin.lower() not in self.origins(request):
            raise Refusal(Code.CROSS_SITE)

    def origins(self, request: Request) -> set[str]:
        """The origins that are this gateway: ``[server] public_url``, and what the request was sent to."""
        server = self._gateway().server
        known = {f"{request.url.scheme}://{request.headers.get('host', '').lower()}"}
        if server.public_url is not None:
            parts = urlsplit(server.public_url)
            known.add(f"{parts.scheme}://{parts.netloc}".lower())
        peer = request.client.host if request.client else None
        if server.trusts(peer):
            scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
            host = request.headers.get("x-forwarded-host", request.headers.get("host", ""))
            known.add(f"{scheme}://{host}".lower())
        return known

    def home(self, request: Request) -> str:
        """Where the gateway is reached, for a link: ``[server] public_url``, else as this request came."""
        url = self._gateway().server.public_url
        return url if url is not None else f"{request.url.scheme}://{request.headers.get('host', '')}"

    def is_secure(self, request: Request) -> bool:
        """Whether cookies go over https only: so it is configured, or so the request came."""
        url = self._gateway().server.public_url
        if url is not None:
            return url.startswith("https://")
        peer = request.client.host if request.client else None
        told = request.headers.get("x-forwarded-proto") if self._gateway().server.trusts(peer) else None
        return (told or request.url.scheme) == "https"

    def cookie_of(self, request: Request, side: str) -> str | None:
        """The session cookie that came. Over https only the one that no subdomain and no plain http can have set."""
        return request.cookies.get(cookie_name(side, secure=self.is_secure(request))) or None

    def address_of(self, request: Request) -> str:
        """Who asks, by network address: the peer, or the last address before the proxies that are trusted."""
        server = self._gateway().server
        address = request.client.host if request.client else ""
        if server.trusts(address):
            chain = [_bare(each) for line in request.headers.getlist("x-forwarded-for") for each in line.split(",")]
            for each in reversed(chain):
                address = each
                if not server.trusts(each):
                    break
        return address

    # --- letting in ---

    async def _let_in(self, request: Request, actor: Actor, endpoint: Endpoint, *, changes: bool = True) -> Response:
        request.state.actor = actor
        check_storable([*request.path_params.values(), *request.query_params.values()])
        if request.method in _SAFE or not changes:
            return await endpoint(request)
        key = request.headers.get("idempotency-key")
        if key is None or request.method != "POST":
            return await self._done(request, actor, endpoint)
        asked = f"{request.method} {request.url.path}?{request.url.query}\0".encode() + await body_bytes(request)
        ticket, again = await self._remembered.claim(f"{actor.kind}:{actor.id}", key, asked)
        if again is not None:
            return _again(again)
        try:
            answer = await self._done(request, actor, endpoint)
        except Refusal:
            await self._remembered.dropped(ticket)
            raise
        if answer.status_code < 300 and answer.media_type == "application/json":
            etag = answer.headers.get("etag")
            once: frozenset[str] = getattr(request.state, "once", frozenset())
            await self._remembered.answered(ticket, answer.status_code, bytes(answer.body), etag, once)
        else:
            await self._remembered.dropped(ticket)
        return answer

    async def _done(self, request: Request, actor: Actor, endpoint: Endpoint) -> Response:
        """The endpoint, with its deed around it."""
        # As it is declared: an id in the path is the subject, and not another action.
        route = request.scope.get("route")
        action = f"{request.method} {getattr(route, 'path', request.url.path)}"
        subject = "/".join(str(value) for value in request.path_params.values())
        address = self.address_of(request)
        async with self.deeds.doing(actor.name, action, subject, {"from": address}) as doing:
            request.state.doing = doing
            answer = await endpoint(request)
            doing.refused = answer.status_code >= 400
        return answer


def cookie_name(side: str, *, secure: bool) -> str:
    """``__Host-`` keeps subdomains and plain http from setting it (RFC 6265bis, section 4.1.3.2)."""
    name = f"gatekeeper-{side.strip('/')}"
    return f"__Host-{name}" if secure else name


def bearer_of(request: Request) -> str | None:
    """What came as ``Authorization: Bearer`` and has the shape of a token; a customer's API key has not."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token.count(".") == 2 else None


def sent_to_sign_in(request: Request, side: str) -> Response:
    """To the sign-in page, and back to this one; htmx is told in its own way."""
    target = f"{side}/login"
    if request.method in _SAFE and "hx-request" not in request.headers:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        target += f"?next={quote(here, safe='')}" if len(here) <= _NEXT_LETTERS_MAX else ""
    headers = {"cache-control": "no-store"}
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={**headers, "hx-redirect": target})
    return RedirectResponse(target, 303, headers)


def next_of(text: str | None, side: str) -> str:
    """Where to go after signing in: a path of that side, whatever somebody wrote into the link."""
    if not text or len(text) > _NEXT_LETTERS_MAX or not text.isprintable() or not text.isascii() or "\\" in text:
        return side
    parts = urlsplit(text)
    inside = text == side or text.startswith((f"{side}/", f"{side}?"))
    fine = inside and not parts.netloc and not parts.scheme and "//" not in parts.path and ".." not in parts.path
    return text if fine else side


def _actor(login: Login) -> Actor:
    kind = ActorKind.CUSTOMER if login.role is None else ActorKind.OPERATOR
    return Actor(kind, login.id, login.email, login.role, login.customer_id)


def _check_role(actor: Actor, least: Role) -> None:
    if actor.role is None or not actor.role.covers(least):
        raise Refusal(Code.NOT_PERMITTED, f"This takes the role {least}.")


def _bare(address: str) -> str:
    """An address of X-Forwarded-For without its port, which some proxies write, too."""
    text = address.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/x-www-form-urlencoded"


def _again(again: Again) -> Response:
    headers = {"idempotent-replayed": "true", **({} if again.etag is None else {"etag": again.etag})}
    return json_answer(again.answer, again.status, headers)
