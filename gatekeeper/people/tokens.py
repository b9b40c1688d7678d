"""Tokens for programs: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256. The rule: a token says who it is, the
database says what he may; the algorithm is ours to say and not the token's (RFC 8725, section 3.1).
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jwt

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports.people import Login

LIFE_MS = 3_600_000
SECRET_BYTES_MIN = 32
# A token of ours has some 400 letters.
TOKEN_LETTERS_MAX = 2_048
_ALGORITHM = "HS256"
_NAME = "gatekeeper"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token that is genuine and not expired says. ``password`` tells whether it was made before the password was
    changed."""

    token_id: str
    login_id: str
    role: str
    password: str
    expires_ms: int
    made_ms: int


class Tokens:
    """Makes and reads them. ``secret`` is asked for when it is first needed; it may read a file."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._make_secret = secret
        self._secret: bytes | None = None

    def make(self, login: Login, now_ms: int) -> tuple[str, int]:
        """(token, when it expires). Raises Fault when the secret can neither be read nor kept."""
        expires_s = (now_ms + LIFE_MS) // 1000
        claims = {
            "iss": _NAME,
            "aud": _NAME,
            "sub": login.id,
            "role": role_of(login),
            "pwd": self.fingerprint(login),
            # RFC 7519, section 2: a date may have a fraction. Whether it was made before all tokens were ended.
            "iat": now_ms / 1000,
            "exp": expires_s,
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self._key(), algorithm=_ALGORITHM), expires_s * 1000

    def read(self, token: str, now_ms: int) -> Claims | None:
        """None for what is not ours, was changed, or has expired. Raises Fault as ``make``."""
        if len(token) > TOKEN_LETTERS_MAX:
            return None
        try:
            found = jwt.decode(
                token,
                self._key(),
                algorithms=[_ALGORITHM],
                audience=_NAME,
                issuer=_NAME,
                # Against the clock that we were given, below.
                options={
                    "require": ["exp", "iat", "sub", "jti", "aud", "iss"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            expires_ms, made_ms = int(found["exp"]) * 1000, round(found["iat"] * 1000)
            claims = Claims(found["jti"], found["sub"], found["role"], found["pwd"], expires_ms, made_ms)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError):
            return None
        texts = (claims.token_id, claims.login_id, claims.role, claims.password)
        return claims if now_ms < claims.expires_ms and all(isinstance(text, str) for text in texts) else None

    def fingerprint(self, login: Login) -> str:
        """Of the password's hash: another one after the password was changed."""
        return hmac.new(self._key(), f"password:{login.password}".encode(), hashlib.sha256).hexdigest()[:24]

    def _key(self) -> bytes:
        if self._secret is None:
            self._secret = self._make_secret()
        return self._secret


def role_of(login: Login) -> str:
    """What stands in a token: an operator's role, or whose person it is."""
    return login.role.value if login.role is not None else f"customer:{login.customer_id}"


def kept_secret(file: Path) -> bytes:
    """The secret in a file that only we may read, made with it when there is none. Two processes that make it at once
    end up with the same one. Raises Fault."""
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            fresh = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w") as writing:
                    writing.write(secrets.token_hex(SECRET_BYTES_MIN) + "\n")
                    writing.flush()
                    os.fsync(writing.fileno())
                # Fails where somebody else was quicker: then his is the one.
                with_link(fresh, file)
            finally:
                fresh.unlink(missing_ok=True)
        found = file.read_text("ascii").strip()
    except (OSError, ValueError) as cause:
        raise Fault("secret", FaultKind.STORE, f"{file} cannot be read or made: {cause}") from cause
    if len(found) < SECRET_BYTES_MIN:
        raise Fault("secret", FaultKind.STORE, f"{file} is too short for a secret; remove it, and it is made anew")
    return found.encode("ascii")


def with_link(fresh: Path, file: Path) -> None:
    """Give a whole file its name, unless the name is taken."""
    try:
        os.link(fresh, file)
    except FileExistsError:
        return
