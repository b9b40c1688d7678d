"""Passwords, as Argon2id hashes (RFC 9106, section 4: the second recommended option, 64 MiB). The rule: whoever asks
learns nothing from how long it takes, and no number of askers takes more memory than a few hashes.
"""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from gatekeeper.errors import Code, Refusal

T = TypeVar("T")

# Two hashes at a time: 128 MiB, and a core is left for the calls.
AT_ONCE = 2
# Whoever comes after so many would wait for seconds.
WAITING_MAX = 32
# NIST SP 800-63B, 3.1.1.2: length is what counts; no rules about letters and digits.
LETTERS_MIN = 12
# A megabyte to hash is an attack.
BYTES_MAX = 1_024
# What people choose first, long enough to pass otherwise.
_KNOWN = frozenset(
    {
        "password1234",
        "passwordpassword",
        "123456789012",
        "1234567890123",
        "qwertyuiop12",
        "qwertyuiopas",
        "gatekeeper12",
    }
)


class Passwords:
    """Hashes and checks. ``hasher`` is another one only for tests that hash much."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobodys: str | None = None

    async def hashed(self, password: str, about: str = "") -> str:
        """A hash to keep. Raises Refusal for a password that is no good; ``about`` (the email) is none."""
        check_password(password, about)
        return await self._in_turn(self._hash, password)

    async def matches(self, hashed: str | None, password: str) -> bool:
        """Whether it is that password. None (there is nobody, or none with a password) takes as long, and is False."""
        return await self._in_turn(self._matches, hashed, password)

    def is_old(self, hashed: str) -> bool:
        """Whether it was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    async def _in_turn(self, work: Callable[..., T], *args: str | None) -> T:
        if self._waiting >= WAITING_MAX:
            raise Refusal(Code.RATE_LIMITED, "Too many people sign in at once.", retry_after_s=5)
        self._waiting += 1
        try:
            async with self._turns:
                # A caller who goes away does not give his turn to somebody else before the thread is done.
                return await shielded(asyncio.to_thread(work, *args))
        finally:
            self._waiting -= 1

    def _hash(self, password: str) -> str:
        return self._hasher.hash(_as_bytes(password))

    def _matches(self, hashed: str | None, password: str) -> bool:
        if self._nobodys is None:
            self._nobodys = self._hasher.hash(secrets.token_urlsafe(32))
        try:
            return self._hasher.verify(hashed or self._nobodys, _as_bytes(password)) and hashed is not None
        except (VerificationError, InvalidHashError):
            return False


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """The result; a cancellation waits until the work is done, and is then raised."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def check_password(password: str, about: str = "") -> None:
    """Raises Refusal for a password that is too short, too long, or the first that somebody would try."""
    if len(password) < LETTERS_MIN:
        raise Refusal(
            Code.BAD_REQUEST, f"A password has at least {LETTERS_MIN} letters.", hint="some words in a row do"
        )
    if len(password.encode("utf-8", "surrogatepass")) > BYTES_MAX or "\0" in password:
        raise Refusal(Code.BAD_REQUEST, f"A password has at most {BYTES_MAX} bytes.")
    low = password.casefold()
    if low in _KNOWN or len(set(low)) < 4 or (about and low == about.casefold()):
        raise Refusal(Code.BAD_REQUEST, "That password is the first that somebody would try.")


def _as_bytes(password: str) -> bytes:
    # NIST SP 800-63B, 3.1.1.2: two keyboards write one "ü" in two ways.
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
