"""Answers kept under idempotency keys.

The rule, from https://docs.stripe.com/api/idempotent_requests: the first answer of a key is repeated, errors included,
also a 500; other parameters under the same key are an error; validation errors and conflicts are not kept; keys may be
removed once they are 24 hours old. The SDK sends one with every POST (``stripe._api_requestor``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gatekeeper.demo.stripe.refusing import Refused

KEPT_S = 24 * 3600
KEY_CHARACTERS_MAX = 255


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body, ready to be sent (again)."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Kept:
    method: str
    path: str
    params: Mapping[str, Any]
    first_s: int
    answer: Answer | None = None


@dataclass(slots=True)
class IdempotencyKeys:
    """Keys and their answers. A key without an answer is in flight."""

    _kept: dict[str, _Kept] = field(default_factory=dict)

    def begin(self, key: str, method: str, path: str, params: Mapping[str, Any], now_s: int) -> Answer | None:
        """The answer of an earlier call with this key, or None for the first. Raises Refused (400, 409)."""
        if len(key) > KEY_CHARACTERS_MAX:
            raise Refused(400, "Idempotency keys may be at most 255 characters long.", kind="idempotency_error")
        kept = self._kept.get(key)
        if kept is not None and now_s - kept.first_s >= KEPT_S and kept.answer is not None:
            kept = None
        if kept is None:
            self._kept[key] = _Kept(method, path, params, now_s)
            return None
        if (kept.method, kept.path) != (method, path):
            raise _clash("Keys for idempotent requests can only be used for the same endpoint they were first used for "
                         f"('{path}' vs '{kept.path}').", key)  # fmt: skip
        if kept.params != params:
            raise _clash("Keys for idempotent requests can only be used with the same parameters they were first used "
                         "with.", key)  # fmt: skip
        if kept.answer is None:
            raise Refused(
                409,
                "There is currently another in-progress request using this Idempotency Key.",
                code="idempotency_key_in_use",
                kind="idempotency_error",
                saved=False,
            )
        return kept.answer

    def keep(self, key: str, answer: Answer) -> None:
        """What the key answers from now on."""
        self._kept[key].answer = answer

    def forget(self, key: str) -> None:
        """The call did not begin: the key is as good as new."""
        self._kept.pop(key, None)


def _clash(message: str, key: str) -> Refused:
    return Refused(
        400,
        f"{message} Try using a key other than '{key}' if you meant to execute a different request.",
        kind="idempotency_error",
        saved=False,
    )
