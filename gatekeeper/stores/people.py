"""Who signs in, what they changed, answers to repeat. See ``ports.Logins``, ``Sessions``, ``Trail`` and ``Repeats``.

The rule: whatever may happen once (a link, the first request of a key, a try that finds the door open) is decided by
one transaction, and secrets come here only as digests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from gatekeeper.ports.people import Deed, Login, Role, Session
from gatekeeper.rules.throttling import WINDOW_MS, Door
from gatekeeper.stores.database import Ask, Database, Row, Steps, alone

# What a repeat is worth: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/, section 2.3.
_DAY_MS = 86_400_000
# Of rows that nobody needs any more, on the way of something else.
_FORGOTTEN_AT_ONCE = 20
# Behind all ids of deeds.
_LAST = "~"


class SqlPeople:
    """See the four roles."""

    _database: Database

    # --- logins ---

    async def create_login(self, login: Login) -> bool:
        """False when id or email exists. Raises Fault when there is no such customer."""
        return bool(await self._database.write(alone("create_login", **asdict(login))))

    async def login(self, login_id: str) -> Login | None:
        """One, or None."""
        return _one(await self._database.read(alone("login", id=login_id)))

    async def login_of(self, email: str) -> Login | None:
        """By address, in lower case."""
        return _one(await self._database.read(alone("login_of", email=email)))

    async def logins(self, *, customer_id: str | None = None, after: str = "", limit: int = 100) -> Sequence[Login]:
        """In the order of their ids."""
        if customer_id is None:
            work = alone("operators", after=after, limit=limit)
        else:
            work = alone("logins_of_customer", customer_id=customer_id, after=after, limit=limit)
        return [_login(row) for row in await self._database.read(work)]

    async def update_login(self, login: Login, before: Login | None = None) -> bool:
        """Replaces all fields but id and created_ms."""
        return await self._database.write(lambda: _update(login, before))

    async def touch_login(self, login_id: str, now_ms: int) -> None:
        """Signed in now."""
        await self._database.write(alone("touch_login", id=login_id, now_ms=now_ms), durable=False)

    # --- sessions, links, tokens ---

    async def add_session(self, session: Session) -> None:
        """Signed in."""

        def work() -> Steps[None]:
            yield Ask("forget_sessions", {"now_ms": session.created_ms, "limit": _FORGOTTEN_AT_ONCE})
            yield Ask("add_session", asdict(session))

        await self._database.write(work)

    async def session(self, digest: str, now_ms: int) -> tuple[Session, Login] | None:
        """With its login."""
        rows = await self._database.read(alone("session", digest=digest, now_ms=now_ms))
        return (Session(*rows[0][:4]), _login(rows[0][4:])) if rows else None

    async def extend_session(self, digest: str, expires_ms: int) -> None:
        """Used: it ends later."""
        work = alone("extend_session", digest=digest, expires_ms=expires_ms)
        await self._database.write(work, durable=False)

    async def end_session(self, digest: str) -> None:
        """Signed out."""
        await self._database.write(alone("end_session", digest=digest))

    async def end_sessions(self, login_id: str) -> None:
        """Everywhere."""
        await self._database.write(alone("end_sessions", login_id=login_id))

    async def add_link(self, digest: str, login_id: str, expires_ms: int) -> None:
        """A link by which this login signs in, once."""
        await self._database.write(alone("add_link", digest=digest, login_id=login_id, expires_ms=expires_ms))

    async def use_link(self, digest: str, now_ms: int) -> Login | None:
        """Its login, the first time and in time."""

        def work() -> Steps[Login | None]:
            yield Ask("forget_links", {"now_ms": now_ms, "limit": _FORGOTTEN_AT_ONCE})
            used = yield Ask("use_link", {"digest": digest, "now_ms": now_ms})
            found = _one((yield Ask("login", {"id": used[0][0]}))) if used else None
            return None if found is None or found.disabled_ms is not None else found

        return await self._database.write(work)

    async def link_login(self, digest: str, now_ms: int) -> Login | None:
        """The same without using it."""
        return _one(await self._database.read(alone("link_login", digest=digest, now_ms=now_ms)))

    async def end_links(self, login_id: str) -> None:
        """No link of this login works any more."""
        await self._database.write(alone("end_links", login_id=login_id))

    async def end_token(self, digest: str, expires_ms: int) -> None:
        """A token was signed out. It is forgotten long after it expired, for clocks that differ."""

        def work() -> Steps[None]:
            yield Ask("forget_tokens", {"now_ms": expires_ms - _DAY_MS, "limit": _FORGOTTEN_AT_ONCE})
            yield Ask("end_token", {"digest": digest, "expires_ms": expires_ms})

        await self._database.write(work)

    async def token_login(self, digest: str, login_id: str, whole: str = "", expires_ms: int = 0) -> Login | None:
        """Whose token it is."""
        work = alone("token_login", digest=digest, id=login_id, whole=whole, expires_ms=expires_ms)
        return _one(await self._database.read(work))

    # --- tries ---

    async def knock(self, free: Mapping[str, int], now_ms: int) -> int:
        """Counts one try for each name and returns 0; where one is closed, none, and returns until when."""
        # Who knocks at a closed door again and again does not take the writer's time from the calls.
        closed_ms = await self._database.read(lambda: _closed(free, now_ms))
        return closed_ms or await self._database.write(lambda: _knock(free, now_ms), durable=False)

    async def pardon(self, forget: Sequence[str], less: Sequence[str]) -> None:
        """It went well."""

        def work() -> Steps[None]:
            for name in sorted({*forget, *less}):
                yield Ask("forget_failure" if name in forget else "pardon_failure", {"name": name})

        await self._database.write(work, durable=False)

    # --- deeds ---

    async def begin_deed(self, deed: Deed) -> None:
        """Before the change."""
        await self._database.write(alone("begin_deed", **asdict(deed)))

    async def end_deed(self, deed_id: str, state: str, detail: str, subject: str = "") -> None:
        """After it."""
        work = alone("end_deed", id=deed_id, state=state, detail=detail, subject=subject)
        await self._database.write(work)

    async def deeds(
        self, *, before: str = "", actor: str | None = None, subject: str | None = None, limit: int = 100
    ) -> Sequence[Deed]:
        """The latest first."""
        names = {
            (False, False): "deeds",
            (True, False): "deeds_of_actor",
            (False, True): "deeds_on_subject",
            (True, True): "deeds_of_actor_on_subject",
        }
        query = names[(actor is not None, subject is not None)]
        who = {name: value for name, value in (("actor", actor), ("subject", subject)) if value is not None}
        rows = await self._database.report(alone(query, before=before or _LAST, limit=limit, **who))
        return [Deed(*row) for row in rows]

    # --- repeats ---

    async def claim_repeat(self, key: str, fingerprint: str, now_ms: int) -> tuple[str, int, str] | None:
        """None: it is the first."""
        return await self._database.write(lambda: _claim(key, fingerprint, now_ms))

    async def answer_repeat(self, key: str, status: int, answer: str) -> None:
        """What the first was answered."""
        await self._database.write(alone("answer_repeat", key=key, status=status, answer=answer))

    async def drop_repeat(self, key: str) -> None:
        """The first changed nothing."""
        await self._database.write(alone("drop_repeat", key=key))


def _update(login: Login, before: Login | None) -> Steps[bool]:
    yield Ask("lock_logins")
    found = _one((yield Ask("login", {"id": login.id})))
    if found is None or (before is not None and found != before):
        return False
    if _leads(found) and not _leads(login) and not (yield Ask("other_owners", {"id": login.id}))[0][0]:
        return False
    if (yield Ask("email_taken", {"email": login.email, "id": login.id}))[0][0]:
        return False
    return bool((yield Ask("update_login", asdict(login))))


def _leads(login: Login) -> bool:
    return login.role is Role.OWNER and login.disabled_ms is None and login.password is not None


def _closed(names: Iterable[str], now_ms: int) -> Steps[int]:
    closed_ms = 0
    for name in names:
        for row in (yield Ask("failure_seen", {"name": name})):
            closed_ms = max(closed_ms, Door(*row).opens_ms(now_ms))
    return closed_ms


def _knock(free: Mapping[str, int], now_ms: int) -> Steps[int]:
    long_ago = {"before_ms": now_ms - 2 * WINDOW_MS, "now_ms": now_ms - 2 * WINDOW_MS, "limit": _FORGOTTEN_AT_ONCE}
    yield Ask("forget_failures", long_ago)
    doors = {}
    # Sorted: two that knock at the same doors lock them in the same order.
    for name in sorted(free):
        yield Ask("open_failure", {"name": name, "now_ms": now_ms})
        rows = yield Ask("failure", {"name": name})
        doors[name] = Door(*rows[0])
    closed_ms = max(door.opens_ms(now_ms) for door in doors.values())
    if closed_ms:
        for name, door in doors.items():
            # Made only to be locked: nobody fills the disk with names.
            if not door.count:
                yield Ask("forget_failure", {"name": name})
        return closed_ms
    for name, door in doors.items():
        yield Ask("set_failure", {"name": name, **asdict(door.tried(free[name], now_ms))})
    return 0


def _claim(key: str, fingerprint: str, now_ms: int) -> Steps[tuple[str, int, str] | None]:
    before_ms = now_ms - _DAY_MS
    yield Ask("forget_repeats", {"before_ms": before_ms, "limit": _FORGOTTEN_AT_ONCE})
    mine = {"key": key, "fingerprint": fingerprint, "now_ms": now_ms, "before_ms": before_ms}
    if (yield Ask("claim_repeat", mine)):
        return None
    rows = yield Ask("repeat", {"key": key})
    # Dropped between the two: whoever asks again is the first.
    return (rows[0][0], rows[0][1], rows[0][2]) if rows else (fingerprint, 0, "")


def _one(rows: Sequence[Row]) -> Login | None:
    return _login(rows[0]) if rows else None


def _login(row: Row) -> Login:
    login_id, email, created_ms, role, customer_id, password, disabled_ms, last_ms = row
    named = None if role is None else Role(role)
    return Login(login_id, email, created_ms, named, customer_id, password, disabled_ms, last_ms)
