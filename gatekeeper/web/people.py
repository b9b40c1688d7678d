"""``/auth``: signing in and out for programs, one's own keys; and the owner's API for operators, the people of
customers and the audit log. The rule: whoever belongs to a customer sees and changes only what is that customer's;
what is another's is for him not there.
"""

import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gatekeeper.accounts import Accounts, KeyWish
from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Refusal
from gatekeeper.people.operators import Operators
from gatekeeper.people.signins import LINK_LIFE_MS
from gatekeeper.ports import Store
from gatekeeper.ports.people import Deed, Login, Role
from gatekeeper.web.admin import key_json
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import limit_of, need, only, page, take, texts
from gatekeeper.web.gate import DASHBOARD, PORTAL, Actor, Endpoint, Gate, actor_of, bearer_of, note
from gatekeeper.web.openapi import routes_of
from gatekeeper.web.openapi.people import AUTH, OPERATORS
from gatekeeper.web.tags import check_match, tag_header

_KEY_FIELDS = ("customer_id", "name", "expires_ms", "routes", "models", "user_id", "agent_id", "may_assert")


@dataclass(frozen=True, slots=True)
class Auth:
    """``/auth``. Endpoints; each raises Refusal."""

    gate: Gate
    accounts: Accounts
    store: Store

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        found: list[BaseRoute] = []
        for each in AUTH:
            endpoint: Endpoint = getattr(self, each.endpoint)
            guard = self.gate.from_here if each.endpoint == "sign_in" else self.gate.anybody
            found.append(Route(each.path, guard(endpoint), methods=[each.method]))
        return found

    async def sign_in(self, request: Request) -> Response:
        """``{"email", "password"}`` -> a token."""
        body = only(await json_body(request), "email", "password")
        email, password = need(body, "email", str), need(body, "password", str)
        address = self.gate.address_of(request)
        login = await self.gate.signins.by_password(email, password, address)
        async with self.gate.deeds.doing(login.email, "POST /auth/login", login.id, {"from": address}):
            token, expires_ms = self.gate.signins.token(login)
        shown = {"token": token, "expires_ms": expires_ms, "role": login.role, "customer_id": login.customer_id}
        return json_answer(shown)

    async def sign_out(self, request: Request) -> Response:
        """Whatever came is worth nothing any more."""
        token = bearer_of(request)
        if token is not None:
            await self.gate.signins.end_token(token)
        for side in (DASHBOARD, PORTAL):
            cookie = self.gate.cookie_of(request, side)
            if token is None and cookie is not None:
                await self.gate.signins.end(cookie)
        return json_answer({"signed_out": True})

    async def change_password(self, request: Request) -> Response:
        """``{"old", "new"}``."""
        body = only(await json_body(request), "old", "new")
        old, new, login = need(body, "old", str), need(body, "new", str), await self._login(actor_of(request))
        await self.gate.signins.change_password(login, old, new, self.gate.address_of(request))
        note(request, subject=login.id)
        return json_answer({"changed": True})

    async def create_own_key(self, request: Request) -> Response:
        """For one's own customer; an operator says for which. The answer holds the key itself, this once."""
        body, actor = only(await json_body(request), *_KEY_FIELDS), actor_of(request)
        customer_id = take(body, "customer_id", str)
        may_assert = take(body, "may_assert", bool) or False
        if actor.customer_id is None:
            _check_changes(actor)
            if customer_id is None:
                raise Refusal(Code.BAD_REQUEST, "customer_id is missing.")
        else:
            if customer_id not in (None, actor.customer_id):
                raise Refusal(Code.NOT_FOUND, f"There is no customer {str(customer_id)[:64]!r}.")
            if may_assert:
                # Else he would count his calls for users whose limits are not used up yet.
                raise Refusal(Code.NOT_PERMITTED, "may_assert is for the operator to give.")
            customer_id = actor.customer_id
            await self.accounts.check_room(customer_id)
        wish = KeyWish(
            name=take(body, "name", str) or "",
            expires_ms=take(body, "expires_ms", int),
            routes=texts(body, "routes"),
            models=texts(body, "models"),
            user_id=take(body, "user_id", str),
            agent_id=take(body, "agent_id", str),
            may_assert=may_assert,
        )
        made = await self.accounts.create_key(customer_id, wish)
        note(request, subject=customer_id, made=key_json(made.key))
        return json_answer({**key_json(made.key), "key": made.secret}, 201)

    async def revoke_own_key(self, request: Request) -> Response:
        """A key of one's own customer; an operator any."""
        actor, key_id = actor_of(request), request.path_params["key_id"]
        if actor.customer_id is None:
            _check_changes(actor)
        else:
            key = await self.store.key(key_id)
            if key is None or key.customer_id != actor.customer_id:
                raise Refusal(Code.NOT_FOUND, f"There is no key {key_id[:64]!r}.")
        return json_answer(key_json(await self.accounts.revoke_key(key_id)))

    async def _login(self, actor: Actor) -> Login:
        found = await self.store.login(actor.id)
        if found is None:
            raise Refusal(Code.NOT_PERMITTED, "The admin key has no password.")
        return found


@dataclass(frozen=True, slots=True)
class OperatorsApi:
    """``/admin/operators``, ``/admin/customers/{id}/people`` and ``/admin/audit``. Each endpoint raises Refusal."""

    gate: Gate
    operators: Operators
    accounts: Accounts
    store: Store
    clock: Clock

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(OPERATORS, self, self.gate.operator)

    async def list_operators(self, request: Request) -> Response:
        """``?after=ID&limit=N``, in the order of ids."""
        limit = limit_of(request)
        rows = await self.operators.listed(after=request.query_params.get("after", ""), limit=limit + 1)
        return json_answer(page("operators", rows, limit, operator_json, lambda row: row.id))

    async def create_operator(self, request: Request) -> Response:
        """``{"email", "role"}``."""
        body = only(await json_body(request), "email", "role")
        made = await self.operators.add(need(body, "email", str), _role(need(body, "role", str)))
        note(request, subject=made.id, made=operator_json(made))
        link = await self.operators.link(made)
        shown = {**operator_json(made), "link": self._url(request, link), "link_expires_ms": self._link_ends_ms()}
        return json_answer(shown, 201)

    async def get_operator(self, request: Request) -> Response:
        """One operator."""
        return _operator(await self.operators.operator(request.path_params["operator_id"]))

    async def change_operator(self, request: Request) -> Response:
        """``{"email"?, "role"?, "disabled"?}``; If-Match names the state that is meant."""
        body = only(await json_body(request), "email", "role", "disabled")
        before = await self.operators.operator(request.path_params["operator_id"])
        exactly = check_match(request, _state(before))
        role = take(body, "role", str)
        after = await self.operators.change(
            before,
            email=take(body, "email", str),
            role=None if role is None else _role(role),
            disabled=take(body, "disabled", bool),
            exactly=exactly,
        )
        note(request, before=_state(before), after=_state(after))
        return _operator(after)

    async def remove_operator(self, request: Request) -> Response:
        """He does not sign in any more."""
        before = await self.operators.operator(request.path_params["operator_id"])
        check_match(request, _state(before))
        return _operator(await self.operators.remove(before))

    async def link_operator(self, request: Request) -> Response:
        """A link that works once."""
        only(await json_body(request))
        found = await self.operators.operator(request.path_params["operator_id"])
        link = await self.operators.link(found)
        return json_answer({"link": self._url(request, link), "expires_ms": self._link_ends_ms()}, 201)

    async def list_people(self, request: Request) -> Response:
        """Who signs in for a customer."""
        customer, limit = await self.accounts.customer(request.path_params["customer_id"]), limit_of(request)
        after = request.query_params.get("after", "")
        rows = await self.operators.listed(customer_id=customer.id, after=after, limit=limit + 1)
        return json_answer(page("people", rows, limit, person_json, lambda row: row.id))

    async def create_person(self, request: Request) -> Response:
        """``{"email"}``."""
        email = need(only(await json_body(request), "email"), "email", str)
        customer = await self.accounts.customer(request.path_params["customer_id"])
        made = await self.operators.add_person(customer.id, email)
        note(request, made=person_json(made))
        return json_answer(person_json(made), 201)

    async def remove_person(self, request: Request) -> Response:
        """Signed out everywhere, and disabled."""
        before = await self.operators.person(request.path_params["person_id"])
        return json_answer(person_json(await self.operators.remove(before)))

    async def list_deeds(self, request: Request) -> Response:
        """``?actor=&subject=&after=ID&limit=N``, the latest first."""
        query, limit = request.query_params, limit_of(request)
        rows = await self.store.deeds(
            before=query.get("after", ""), actor=query.get("actor"), subject=query.get("subject"), limit=limit + 1
        )
        return json_answer(page("deeds", rows, limit, deed_json, lambda row: row.id))

    def _url(self, request: Request, secret: str) -> str:
        return link_url(self.gate.home(request), secret)

    def _link_ends_ms(self) -> int:
        return self.clock.now_ms() + LINK_LIFE_MS


def link_url(home: str, secret: str) -> str:
    """The address of a link that lets an operator in once."""
    return f"{home}{DASHBOARD}/first?link={secret}"


def operator_json(login: Login) -> dict[str, Any]:
    """An operator for machines: whether there is a password, never its hash."""
    return {**_login_json(login), "role": login.role}


def person_json(login: Login) -> dict[str, Any]:
    """One of a customer's people, for machines."""
    return {**_login_json(login), "customer_id": login.customer_id}


def deed_json(deed: Deed) -> dict[str, Any]:
    """A line of the audit log, for machines."""
    return {
        "id": deed.id,
        "at_ms": deed.at_ms,
        "actor": deed.actor,
        "action": deed.action,
        "subject": deed.subject,
        "state": deed.state,
        "detail": json.loads(deed.detail),
    }


def _login_json(login: Login) -> dict[str, Any]:
    return {
        "id": login.id,
        "email": login.email,
        "created_ms": login.created_ms,
        "disabled": login.disabled_ms is not None,
        "last_ms": login.last_ms,
        "password": login.password is not None,
    }


def _state(login: Login) -> dict[str, Any]:
    """What an ETag is of: signing in is no change."""
    return {"id": login.id, "email": login.email, "role": login.role, "disabled": login.disabled_ms is not None}


def _operator(login: Login) -> Response:
    return json_answer(operator_json(login), headers=tag_header(_state(login)))


def _role(text: str) -> Role:
    if text not in tuple(Role):
        raise Refusal(Code.BAD_REQUEST, f"role is one of {', '.join(Role)}.")
    return Role(text)


def _check_changes(actor: Actor) -> None:
    if actor.role is None or not actor.role.covers(Role.ADMIN):
        raise Refusal(Code.NOT_PERMITTED, f"This takes the role {Role.ADMIN}.")
