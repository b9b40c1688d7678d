"""Who signs in: operators and customers' people, their sessions, what they changed, and answers to repeat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    """What an operator may do: look; change; also change who may."""

    VIEWER = "viewer"
    ADMIN = "admin"
    OWNER = "owner"

    def covers(self, least: "Role") -> bool:
        """Whether whoever has this role may do what takes at least ``least``."""
        order = list(Role)
        return order.index(self) >= order.index(least)


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who signs in with an email address (kept in lower case, no other login has it). An operator has a
    ``role``, somebody of a customer has a ``customer_id``; never both. ``password`` is an Argon2 hash (RFC 9106), None:
    there is none, sign in by a link."""

    id: str
    email: str
    created_ms: int
    role: Role | None = None
    customer_id: str | None = None
    password: str | None = None
    disabled_ms: int | None = None
    last_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is signed in. ``digest`` is the hex SHA-256 of the cookie; the cookie itself is not stored."""

    digest: str
    login_id: str
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Deed:
    """A change that somebody asked for. ``state`` is begun, done or refused; it is written before the change is made,
    so that none is without its deed. ``detail`` is what was asked and what came of it (JSON), never a secret."""

    id: str
    at_ms: int
    actor: str
    action: str
    subject: str
    state: str
    detail: str


class Logins(Protocol):
    """The list of people who sign in."""

    async def create_login(self, login: Login) -> bool:
        """False when id or email exists."""
        ...

    async def login(self, login_id: str) -> Login | None:
        """One, or None."""
        ...

    async def login_of(self, email: str) -> Login | None:
        """By address, in lower case."""
        ...

    async def logins(self, *, customer_id: str | None = None, after: str = "", limit: int = 100) -> Sequence[Login]:
        """In the order of their ids: operators, or the people of one customer."""
        ...

    async def update_login(self, login: Login, before: Login | None = None) -> bool:
        """Replaces all fields but id and created_ms; False when there is none, when another has the email, when it is
        not (any more) as ``before``, and when it would leave no owner who can sign in where there is one."""
        ...

    async def touch_login(self, login_id: str, now_ms: int) -> None:
        """Signed in now."""
        ...


class Sessions(Protocol):
    """Who is signed in, links that work once, and how often somebody failed to."""

    async def add_session(self, session: Session) -> None:
        """Signed in."""
        ...

    async def session(self, digest: str, now_ms: int) -> tuple[Session, Login] | None:
        """With its login; None where it ended, or its login is disabled."""
        ...

    async def extend_session(self, digest: str, expires_ms: int) -> None:
        """Used: it ends later."""
        ...

    async def end_session(self, digest: str) -> None:
        """Signed out."""
        ...

    async def end_sessions(self, login_id: str) -> None:
        """Everywhere: a password was changed, or somebody was disabled."""
        ...

    async def add_link(self, digest: str, login_id: str, expires_ms: int) -> None:
        """A link by which this login signs in, once."""
        ...

    async def use_link(self, digest: str, now_ms: int) -> Login | None:
        """Its login, the first time and in time; None otherwise."""
        ...

    async def link_login(self, digest: str, now_ms: int) -> Login | None:
        """The same without using it."""
        ...

    async def end_links(self, login_id: str) -> None:
        """No link of this login works any more."""
        ...

    async def end_token(self, digest: str, expires_ms: int) -> None:
        """A token was signed out before it expires; or, under one digest for all of a login, those that expire before.
        What was said before stays where it is the later one."""
        ...

    async def token_login(self, digest: str, login_id: str, whole: str = "", expires_ms: int = 0) -> Login | None:
        """Whose token it is; None where it was signed out (by itself, or under ``whole`` with all that expire before),
        or its login is disabled or gone."""
        ...

    async def knock(self, free: Mapping[str, int], now_ms: int) -> int:
        """Counts one try for each name, of which so many are free (see ``rules.throttling``), and returns 0; or, where
        one of the doors is closed, counts none and returns until when."""
        ...

    async def pardon(self, forget: Sequence[str], less: Sequence[str]) -> None:
        """It went well: forget all tries of some names, and one of others."""
        ...


class Trail(Protocol):
    """The audit log: append only, but for the state of a deed."""

    async def begin_deed(self, deed: Deed) -> None:
        """Before the change."""
        ...

    async def end_deed(self, deed_id: str, state: str, detail: str, subject: str = "") -> None:
        """After it; ``subject`` where it was not known before."""
        ...

    async def deeds(
        self, *, before: str = "", actor: str | None = None, subject: str | None = None, limit: int = 100
    ) -> Sequence[Deed]:
        """The latest first; ids are in the order of time, and ``before`` is one of them."""
        ...


class Repeats(Protocol):
    """Answers to requests with an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), kept for a day."""

    async def claim_repeat(self, key: str, fingerprint: str, now_ms: int) -> tuple[str, int, str] | None:
        """None: it is the first, go on. Else (fingerprint, status, answer) of the first; status 0: not answered yet."""
        ...

    async def answer_repeat(self, key: str, status: int, answer: str) -> None:
        """What the first was answered, without secrets."""
        ...

    async def drop_repeat(self, key: str) -> None:
        """The first changed nothing: the next one goes on."""
        ...
