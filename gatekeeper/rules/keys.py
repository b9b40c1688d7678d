"""The shape of a key, checkable without a database. ``gk_`` + 33 letters of base 62 (24 random bytes) + a CRC-32
checksum in 6 letters: a typo or a foreign key is told apart from a revoked one before any look-up.

The rule: only the SHA-256 digest of a key is ever stored. 192 random bits need no slow hash.
"""

import hashlib
import zlib

PREFIX = "gk_"
ENTROPY_BYTES = 24
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY_LETTERS = 33
_CHECK_LETTERS = 6
_LETTERS = frozenset(_ALPHABET)
KEY_LETTERS = len(PREFIX) + _BODY_LETTERS + _CHECK_LETTERS
SHOWN_LETTERS = 10


def _base62(number: int, letters: int) -> str:
    digits = []
    for _ in range(letters):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    assert number == 0
    return "".join(reversed(digits))


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECK_LETTERS)


def make_key(entropy: bytes) -> str:
    """A new key from 24 random bytes, which the caller draws from the operating system."""
    assert len(entropy) == ENTROPY_BYTES
    body = PREFIX + _base62(int.from_bytes(entropy, "big"), _BODY_LETTERS)
    return body + _check(body)


def well_formed(key: str) -> bool:
    """Whether this can be a key at all: prefix, length, letters and checksum."""
    if len(key) != KEY_LETTERS or not key.startswith(PREFIX):
        return False
    body, check = key[:-_CHECK_LETTERS], key[-_CHECK_LETTERS:]
    return _LETTERS.issuperset(key[len(PREFIX) :]) and _check(body) == check


def digest(key: str) -> str:
    """Hex SHA-256 of the whole key: what is stored and looked up."""
    return hashlib.sha256(key.encode()).hexdigest()


def shown(key: str) -> str:
    """The first characters, for people who must tell their keys apart."""
    return key[:SHOWN_LETTERS]
