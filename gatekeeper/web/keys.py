"""The operator's API for customers' keys. The rule: a key is shown once, in the answer that makes it."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.accounts import Accounts, KeyWish
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Store
from gatekeeper.web.admin import key_json
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import limit_of, only, page, take, texts
from gatekeeper.web.gate import note
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.accounts import KEYS


@dataclass(frozen=True, slots=True)
class Keys:
    """Endpoints; each raises Refusal."""

    accounts: Accounts
    store: Store
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(KEYS, self, self.guard)

    async def list_keys(self, request: Request) -> Response:
        """Everybody's keys, without the keys themselves: ``?after=ID&limit=N``."""
        limit = limit_of(request)
        rows = await self.store.keys(after=request.query_params.get("after", ""), limit=limit + 1)
        return json_answer(page("keys", rows, limit, key_json, lambda row: row.id))

    async def list_customer_keys(self, request: Request) -> Response:
        """A customer's keys."""
        customer, limit = await self.accounts.customer(request.path_params["customer_id"]), limit_of(request)
        rows = await self.store.keys(customer.id, after=request.query_params.get("after", ""), limit=limit + 1)
        return json_answer(page("keys", rows, limit, key_json, lambda row: row.id))

    async def create_key(self, request: Request) -> Response:
        """``{"name"?, "expires_ms"?, "routes"?, "models"?, "user_id"?, "agent_id"?, "may_assert"?}``. The answer holds
        the key itself, this once."""
        names = ("name", "expires_ms", "routes", "models", "user_id", "agent_id", "may_assert")
        body = only(await json_body(request), *names)
        wish = KeyWish(
            name=take(body, "name", str) or "",
            expires_ms=take(body, "expires_ms", int),
            routes=texts(body, "routes"),
            models=texts(body, "models"),
            user_id=take(body, "user_id", str),
            agent_id=take(body, "agent_id", str),
            may_assert=take(body, "may_assert", bool) or False,
        )
        made = await self.accounts.create_key(request.path_params["customer_id"], wish)
        note(request, subject=made.key.id, after=key_json(made.key))
        return json_answer({**key_json(made.key), "key": made.secret}, 201)

    async def get_key(self, request: Request) -> Response:
        """One key, without the key itself."""
        found = await self.store.key(request.path_params["key_id"])
        if found is None:
            raise Refusal(Code.NOT_FOUND, f"There is no key {request.path_params['key_id'][:64]!r}.")
        return json_answer(key_json(found))

    async def rotate_key(self, request: Request) -> Response:
        """``{"grace_hours"?}``: a new key with the same scopes; the old one is good for so long. The answer holds the
        new key itself, this once."""
        body = only(await json_body(request), "grace_hours")
        made = await self.accounts.rotate_key(request.path_params["key_id"], take(body, "grace_hours", int) or 0)
        old = await self.store.key(request.path_params["key_id"])
        note(request, after=key_json(made.key))
        replaced = None if old is None else key_json(old)
        return json_answer({**key_json(made.key), "key": made.secret, "replaces": replaced}, 201)

    async def revoke_key(self, request: Request) -> Response:
        """Revoke a key; twice is the same as once."""
        return json_answer(key_json(await self.accounts.revoke_key(request.path_params["key_id"])))
