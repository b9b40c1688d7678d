"""Who calls: customers and their keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody who pays. ``anchor_ms`` is the start of the first billing period."""

    id: str
    name: str
    plan_id: str
    created_ms: int
    anchor_ms: int
    email: str | None = None
    disabled_ms: int | None = None
    stripe_customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A customer's key. The key itself is not stored: ``shown`` is its first characters, for people."""

    id: str
    customer_id: str
    name: str
    shown: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    last_used_ms: int | None = None
    # None allows all; names of routes; model patterns with `*`.
    routes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    may_assert: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """Who calls: a key with its customer."""

    key: Key
    customer: Customer


class Customers(Protocol):
    """The list of customers."""

    async def create_customer(self, customer: Customer) -> bool:
        """False when the id exists."""
        ...

    async def customer(self, customer_id: str) -> Customer | None:
        """One customer, or None."""
        ...

    async def customers(
        self, *, after: str = "", limit: int = 100, find: str | None = None, plan_id: str | None = None
    ) -> Sequence[Customer]:
        """In the order of their ids, those after ``after``; with ``find`` those in whose id, name, email or account at
        the biller it stands, in letters of any case (ASCII), with ``plan_id`` those on that plan."""
        ...

    async def update_customer(self, customer: Customer, before: Customer | None = None) -> bool:
        """Replaces all fields but id and created_ms; False when there is none, or it is not (any more) ``before``."""
        ...


class Keys(Protocol):
    """Keys, found by digest only."""

    async def create_key(self, key: Key, digest: str) -> bool:
        """False when id or digest exists. ``digest`` is the hex SHA-256 of the whole key."""
        ...

    async def holder(self, digest: str) -> Holder | None:
        """Also finds revoked and expired keys: saying which it is belongs to the rules."""
        ...

    async def key(self, key_id: str) -> Key | None:
        """One key, or None."""
        ...

    async def keys(self, customer_id: str | None = None, *, after: str = "", limit: int = 100) -> Sequence[Key]:
        """In the order of their ids, those after ``after``."""
        ...

    async def revoke_key(self, key_id: str, now_ms: int) -> bool:
        """False when there is no such key; revoking twice keeps the first time."""
        ...

    async def expire_key(self, key_id: str, expires_ms: int) -> bool:
        """Let a key end then, or before if it was to end before; False when there is none that still is good."""
        ...

    async def revoke_keys(self, customer_id: str, now_ms: int) -> int:
        """Revoke all keys of a customer; returns how many were not yet."""
        ...

    async def touch_keys(self, last_used_ms: Mapping[str, int]) -> None:
        """Record last use, many keys at once; never moves a time back."""
        ...
