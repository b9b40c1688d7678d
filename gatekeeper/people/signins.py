"""Signing in and out: by password, by a link that works once, by session and by token. The rule: the answer to a wrong
password says nothing, neither in words nor in time, about whether there is such a person; what a browser or a program
holds is stored only as a digest.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Refusal
from gatekeeper.people.passwords import Passwords
from gatekeeper.people.tokens import LIFE_MS, Tokens, role_of
from gatekeeper.ports.people import Login, Logins, Session, Sessions
from gatekeeper.rules.throttling import FREE_OF_ADDRESS, FREE_OF_EMAIL

HOUR_MS = 3_600_000
# (not used for so long, begun so long ago): an operator's browser can change what everybody pays.
OPERATOR_LIFE_MS = (2 * HOUR_MS, 12 * HOUR_MS)
CUSTOMER_LIFE_MS = (24 * HOUR_MS, 14 * 24 * HOUR_MS)
# A session that is used is written at most once in so long.
EXTENDED_MS = 5 * 60_000
LINK_LIFE_MS = HOUR_MS
# How long a change of role, a sign-out or a new password may stay unseen by a process.
REMEMBERED_S = 1.0
REMEMBERED_MAX = 1_000
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,255}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class Store(Logins, Sessions, Protocol):
    """What is asked of the store."""


class SignIns:
    """Every method raises Fault when the store fails."""

    def __init__(self, store: Store, passwords: Passwords, tokens: Tokens, clock: Clock) -> None:
        self._store = store
        self._passwords = passwords
        self._tokens = tokens
        self._clock = clock
        self._seen: dict[str, tuple[float, Login]] = {}

    # --- by password ---

    async def by_password(self, email: str, password: str, address: str) -> Login:
        """Who signs in from this client address. Raises Refusal: wrong, or too often in vain."""
        email = email.strip().lower()
        names = await self._knock(email, address)
        found = await self._store.login_of(email) if _EMAIL.fullmatch(email) else None
        hashed = None if found is None or found.disabled_ms is not None else found.password
        if not await self._passwords.matches(hashed, password):
            raise Refusal(Code.WRONG_PASSWORD)
        assert found is not None and found.password is not None
        await self._store.pardon(names[:1], names[1:])
        if self._passwords.is_old(found.password):
            fresh = replace(found, password=await self._passwords.hashed(password))
            if await self._store.update_login(fresh, before=found):
                found = fresh
        await self._store.touch_login(found.id, self._clock.now_ms())
        return found

    async def check_rate(self, email: str, address: str) -> None:
        """Counts one try of whoever asks for a link, say. Raises Refusal when there were too many."""
        await self._knock(email.strip().lower(), address)

    async def change_password(self, login: Login, old: str, new: str, address: str) -> Login:
        """Raises Refusal when the old one is wrong or the new one no good. Ends all sessions, links and tokens."""
        names = await self._knock(login.email, address)
        current = await self._store.login(login.id)
        if current is None or not await self._passwords.matches(current.password, old):
            raise Refusal(Code.WRONG_PASSWORD, "The present password is wrong.")
        await self._store.pardon(names[:1], names[1:])
        return await self.set_password(current, new)

    async def set_password(self, login: Login, new: str, email: str | None = None) -> Login:
        """For whoever has proved by a link that he is it. Raises Refusal. Ends all sessions, links and tokens."""
        address = check_email(email) if email is not None else login.email
        hashed = await self._passwords.hashed(new, address)
        changed = replace(login, email=address, password=hashed)
        if not await self._store.update_login(changed, before=login):
            raise Refusal(Code.CONFLICT, "The address belongs to somebody else, or something changed meanwhile.")
        await self.end_everywhere(login.id)
        return changed

    async def check_free(self, email: str, login: Login) -> None:
        """Raises Refusal where the address is somebody else's."""
        found = await self._store.login_of(email)
        if found is not None and found.id != login.id:
            raise Refusal(Code.CONFLICT, "Somebody has that email already.")

    async def end_everywhere(self, login_id: str) -> None:
        """All sessions, links and tokens that there are, for good; a token may be remembered for a second."""
        await self._store.end_token(_all_of(login_id), self._clock.now_ms() + LIFE_MS)
        await self._store.end_sessions(login_id)
        await self._store.end_links(login_id)
        self._seen.clear()

    # --- by session ---

    async def begin(self, login: Login, before: str | None = None) -> tuple[str, Session]:
        """(cookie, session): always a new one; ``before`` is the cookie that came, whose session ends. Raises Refusal
        where password or role were changed since the login was read: whoever ended all sessions meant this one, too."""
        if before is not None:
            await self.end(before)
        cookie, now_ms = secrets.token_urlsafe(32), self._clock.now_ms()
        idle_ms, _ = _life_ms(login)
        session = Session(digest_of(cookie), login.id, now_ms, now_ms + idle_ms)
        await self._store.add_session(session)
        # Looked at when the session is there: what is changed from now on ends it.
        current = await self._store.login(login.id)
        if current is None or (current.password, current.role) != (login.password, login.role):
            await self._store.end_session(session.digest)
            raise Refusal(Code.WRONG_PASSWORD)
        return cookie, session

    async def session(self, cookie: str) -> tuple[Session, Login] | None:
        """Whose it is; None when it ended. Being asked for, it lasts longer."""
        if not _SECRET.fullmatch(cookie):
            return None
        now_ms = self._clock.now_ms()
        found = await self._store.session(digest_of(cookie), now_ms)
        if found is None:
            return None
        session, login = found
        idle_ms, whole_ms = _life_ms(login)
        if now_ms >= session.created_ms + whole_ms:
            return None
        expires_ms = min(now_ms + idle_ms, session.created_ms + whole_ms)
        if expires_ms >= session.expires_ms + EXTENDED_MS:
            await self._store.extend_session(session.digest, expires_ms)
        return found

    async def end(self, cookie: str) -> None:
        """Signed out; nothing where there is no such session."""
        if _SECRET.fullmatch(cookie):
            await self._store.end_session(digest_of(cookie))

    # --- by token ---

    def token(self, login: Login) -> tuple[str, int]:
        """(token, when it expires)."""
        return self._tokens.make(login, self._clock.now_ms())

    async def of_token(self, token: str) -> Login | None:
        """Whose it is; None when it is not ours, has expired, was signed out, or says another role than he has now."""
        claims = self._tokens.read(token, self._clock.now_ms())
        if claims is None:
            return None
        now_s = self._clock.monotonic_s()
        known = self._seen.get(claims.token_id)
        if known is None or now_s >= known[0] + REMEMBERED_S:
            login = await self._store.token_login(
                digest_of(claims.token_id), claims.login_id, _all_of(claims.login_id), claims.made_ms + LIFE_MS
            )
            if login is None:
                self._seen.pop(claims.token_id, None)
                return None
            if len(self._seen) >= REMEMBERED_MAX:
                self._seen.clear()
            known = self._seen[claims.token_id] = now_s, login
        login = known[1]
        genuine = hmac.compare_digest(claims.password, self._tokens.fingerprint(login))
        return login if genuine and claims.role == role_of(login) else None

    async def end_token(self, token: str) -> None:
        """Signed out; nothing where it is none."""
        claims = self._tokens.read(token, self._clock.now_ms())
        if claims is not None:
            await self._store.end_token(digest_of(claims.token_id), claims.expires_ms)
            self._seen.pop(claims.token_id, None)

    # --- by link ---

    async def make_link(self, login: Login, life_ms: int = LINK_LIFE_MS) -> str:
        """What stands in a link that signs this login in, once."""
        secret = secrets.token_urlsafe(32)
        await self._store.add_link(digest_of(secret), login.id, self._clock.now_ms() + life_ms)
        return secret

    async def end_links(self, login_id: str) -> None:
        """No link of this login works any more."""
        await self._store.end_links(login_id)

    async def look_at_link(self, secret: str) -> Login | None:
        """Whose link it is, without using it."""
        if not _SECRET.fullmatch(secret):
            return None
        return await self._store.link_login(digest_of(secret), self._clock.now_ms())

    async def use_link(self, secret: str) -> Login | None:
        """Whose link it was: the first time, and in time."""
        if not _SECRET.fullmatch(secret):
            return None
        return await self._store.use_link(digest_of(secret), self._clock.now_ms())

    async def _knock(self, email: str, address: str) -> Sequence[str]:
        names = (digest_of(f"email:{email}"), digest_of(f"address:{network_of(address)}"))
        now_ms = self._clock.now_ms()
        free = {names[0]: FREE_OF_EMAIL, names[1]: FREE_OF_ADDRESS}
        opens_ms = await self._store.knock(free, now_ms)
        if opens_ms:
            wait_s = max(1, -(-(opens_ms - now_ms) // 1000))
            raise Refusal(Code.RATE_LIMITED, "Too many tries to sign in.", retry_after_s=wait_s)
        return names


def digest_of(secret: str) -> str:
    """Hex SHA-256: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _all_of(login_id: str) -> str:
    """Under which all tokens of a login end. No token has such an id: it has a blank."""
    return digest_of(f"all of {login_id}")


def csrf_of_cookie(cookie: str) -> str:
    """What a form must bring along: only who has the cookie, or a page of ours, knows it."""
    return hmac.new(cookie.encode("ascii"), digest_of(cookie).encode("ascii"), hashlib.sha256).hexdigest()


def csrf_matches(cookie: str, sent: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(csrf_of_cookie(cookie).encode(), sent.encode("utf-8", "surrogatepass"))


def check_email(email: str) -> str:
    """In lower case. Raises Refusal for what is no address."""
    low = email.strip().lower()
    if not _EMAIL.fullmatch(low) or not low.isprintable():
        raise Refusal(Code.BAD_REQUEST, "email is not an address.")
    return low


def network_of(address: str) -> str:
    """What one client is likely to have at hand: one IPv4 address, or the /64 of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if found.version == 6:
        mapped = found.ipv4_mapped
        return str(mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def _life_ms(login: Login) -> tuple[int, int]:
    return CUSTOMER_LIFE_MS if login.role is None else OPERATOR_LIFE_MS
