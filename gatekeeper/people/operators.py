"""Who may sign in: operators with their roles, and the people of customers. The rule: there is always an owner, once
there was one; whoever is taken away or loses a right has lost it everywhere within a second. Nobody is deleted: his
deeds name him.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Refusal
from gatekeeper.people.signins import LINK_LIFE_MS, SignIns, check_email
from gatekeeper.ports.people import Login, Logins, Role

# The owner who has not come yet: an address that nobody can type in.
FIRST_ID, FIRST_EMAIL = "op_first", "the first owner"
_PAGE = 500


class Operators:
    """Every method raises Refusal for what is asked wrongly, Fault when the store fails."""

    def __init__(self, logins: Logins, signins: SignIns, clock: Clock) -> None:
        self._logins = logins
        self._signins = signins
        self._clock = clock

    async def listed(self, *, customer_id: str | None = None, after: str = "", limit: int = 100) -> Sequence[Login]:
        """In the order of their ids: operators, or the people of one customer."""
        rows = await self._logins.logins(customer_id=customer_id, after=after, limit=limit + 1)
        return [row for row in rows if row.email != FIRST_EMAIL][:limit]

    async def operator(self, login_id: str) -> Login:
        """One operator."""
        found = await self._logins.login(login_id)
        if found is None or found.role is None or found.email == FIRST_EMAIL:
            raise Refusal(Code.NOT_FOUND, f"There is no operator {login_id[:64]!r}.")
        return found

    async def person(self, login_id: str, customer_id: str | None = None) -> Login:
        """One of a customer's people; with ``customer_id`` only that customer's."""
        found = await self._logins.login(login_id)
        if found is None or found.customer_id is None or customer_id not in (None, found.customer_id):
            raise Refusal(Code.NOT_FOUND, f"There is no person {login_id[:64]!r}.")
        return found

    async def by_email(self, email: str) -> Login:
        """An operator by address."""
        found = await self._logins.login_of(check_email(email))
        if found is None or found.role is None:
            raise Refusal(Code.NOT_FOUND, f"There is no operator {email[:64]!r}.")
        return found

    async def add(self, email: str, role: Role) -> Login:
        """A new operator, who has no password yet: a link lets him in, to choose one."""
        return await self._create(Login("op_" + secrets.token_hex(8), check_email(email), self._clock.now_ms(), role))

    async def add_person(self, customer_id: str, email: str) -> Login:
        """One more of a customer's people; the customer must exist."""
        login = Login("per_" + secrets.token_hex(8), check_email(email), self._clock.now_ms(), customer_id=customer_id)
        return await self._create(login)

    async def change(
        self,
        before: Login,
        *,
        email: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
        exactly: bool = False,
    ) -> Login:
        """What is given is changed, all of it or nothing. ``exactly``: only where it still is as ``before`` in all that
        counts (412)."""
        disabled_ms = before.disabled_ms
        if disabled is not None:
            disabled_ms = (disabled_ms or self._clock.now_ms()) if disabled else None
        after = replace(
            before,
            email=before.email if email is None else check_email(email),
            role=before.role if role is None or before.role is None else role,
            disabled_ms=disabled_ms,
        )
        if not await self._logins.update_login(after, before=before):
            raise await self._why_not(before, after, exactly)
        if after.disabled_ms is not None or after.email != before.email or after.role != before.role:
            await self._signins.end_everywhere(after.id)
        return after

    async def remove(self, before: Login) -> Login:
        """He does not sign in any more."""
        return await self.change(before, disabled=True)

    async def link(self, login: Login, life_ms: int = LINK_LIFE_MS) -> str:
        """A secret that signs this login in once, to choose a password; links made before work no more."""
        if login.disabled_ms is not None:
            raise Refusal(Code.CONFLICT, f"{login.email} is disabled.", hint="enable it first")
        await self._signins.end_links(login.id)
        return await self._signins.make_link(login, life_ms)

    async def first_link(self) -> str | None:
        """What lets the first owner in; None: there is an owner who can sign in."""
        after = ""
        while page := await self._logins.logins(after=after, limit=_PAGE):
            if any(row.role is Role.OWNER and row.password is not None and row.disabled_ms is None for row in page):
                return None
            after = page[-1].id
        first = Login(FIRST_ID, FIRST_EMAIL, self._clock.now_ms(), Role.OWNER)
        if not await self._logins.create_login(first):
            found = await self._logins.login(FIRST_ID)
            if found is None or found.disabled_ms is not None:
                return None
            first = found
        return await self.link(first)

    async def _create(self, login: Login) -> Login:
        if not await self._logins.create_login(login):
            raise Refusal(Code.CONFLICT, "Somebody has that email already.")
        return login

    async def _why_not(self, before: Login, after: Login, exactly: bool) -> Refusal:
        now = await self._logins.login(before.id)
        if now is None:
            return Refusal(Code.NOT_FOUND)
        if now != before:
            said = "This has changed in the meantime."
            return Refusal(Code.CONFLICT, said, hint="fetch it again", status=412 if exactly else 409)
        taken = await self._logins.login_of(after.email)
        if taken is not None and taken.id != after.id:
            return Refusal(Code.CONFLICT, "Somebody has that email already.")
        return Refusal(Code.CONFLICT, "This is the last owner who can sign in.", hint="make another owner first")
