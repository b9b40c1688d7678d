"""Customers and their keys: made, listed, changed, revoked. One place for the command line, the admin API and the
portal. The rule: a key is shown once, when it is made; only its digest is kept."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.diagnostics import suggest
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Customer, Customers, Key, Keys
from gatekeeper.rules import keys as key_rules

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")
_NAME_LETTERS_MAX = 200
# The year 9999: a later day cannot be written as a date.
_LATEST_MS = 253_402_300_799_000
_SCOPES_MAX = 100
# An account at the biller: what Stripe's ids are made of.
_ACCOUNT = re.compile(r"[A-Za-z0-9_]{1,255}")
# A key that was replaced is good for so long at most: whoever needs a month has no need of a new one.
GRACE_HOURS_MAX = 30 * 24
# Good keys that a customer's people make by themselves, and keys that there ever were.
KEYS_MAX, _KEYS_EVER_MAX = 100, 1_000
_HOUR_MS = 3_600_000
# Somebody who changes a customer so often between a read and a write is a mistake.
_ATTEMPTS = 10
# A subject that a key carries: the same shape that a client may assert.
_SUBJECT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is made. ``secret`` is the whole key: it exists only here and with its owner."""

    key: Key
    secret: str


@dataclass(frozen=True, slots=True)
class KeyWish:
    """What is asked for when a key is made."""

    name: str = ""
    expires_ms: int | None = None
    routes: Sequence[str] | None = None
    models: Sequence[str] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    may_assert: bool = False


@dataclass(frozen=True, slots=True)
class CustomerWish:
    """What is to be another way with a customer. None stays; an empty ``email`` or ``account`` takes it away."""

    name: str | None = None
    plan_id: str | None = None
    email: str | None = None
    account: str | None = None
    disabled: bool | None = None


class Accounts:
    """Every method raises Refusal for what is asked wrongly, Fault when the store fails."""

    def __init__(self, customers: Customers, keys: Keys, gateway: Callable[[], Gateway], clock: Clock) -> None:
        self._customers = customers
        self._keys = keys
        self._gateway = gateway
        self._clock = clock

    async def create_customer(
        self,
        name: str,
        *,
        plan_id: str | None = None,
        customer_id: str | None = None,
        email: str | None = None,
        account: str | None = None,
        disabled: bool = False,
    ) -> Customer:
        """A new customer on a plan (the default plan unless one is named). The id is made unless one is given.
        ``account`` is the customer's id at the biller."""
        plan_id = self._check_plan(plan_id if plan_id is not None else self._gateway().keys.default_plan)
        _check_text("name", name)
        if customer_id is not None and not _ID.fullmatch(customer_id):
            raise Refusal(Code.BAD_REQUEST, "A customer's id is 1 to 64 of the letters A-Z a-z 0-9 . _ @ -")
        _check_email(email)
        if account is not None:
            await self._check_account(account, customer_id)
        now_ms = self._clock.now_ms()
        customer = Customer(
            id=customer_id or "cus_" + secrets.token_hex(8),
            name=name,
            plan_id=plan_id,
            created_ms=now_ms,
            anchor_ms=now_ms,
            email=email,
            disabled_ms=now_ms if disabled else None,
            stripe_customer_id=account,
        )
        if not await self._customers.create_customer(customer):
            raise Refusal(Code.CONFLICT, f"There is a customer {customer.id!r} already.")
        return customer

    async def customer(self, customer_id: str) -> Customer:
        """One customer."""
        found = await self._customers.customer(customer_id)
        if found is None:
            raise Refusal(Code.NOT_FOUND, f"There is no customer {customer_id[:64]!r}.")
        return found

    async def set_plan(self, customer_id: str, plan_id: str) -> Customer:
        """Put a customer on another plan, at once. What was used in the running window stays used."""
        return await self.change_customer(customer_id, CustomerWish(plan_id=plan_id))

    async def set_disabled(self, customer_id: str, disabled: bool) -> Customer:
        """Refuse (or admit again) every call of a customer. Calls in flight go on. Who was disabled because a payment
        failed is from now on disabled by the operator: only he lets him in again."""
        return await self.change_customer(customer_id, CustomerWish(disabled=disabled))

    async def change_customer(
        self, customer_id: str, wish: CustomerWish, *, check: Callable[[Customer], object] | None = None
    ) -> Customer:
        """Change what is wished, all of it or nothing; what somebody else changes meanwhile stays. ``check`` sees the
        customer that is changed, and raises Refusal where it is another than the one that was meant."""
        if wish.name is not None:
            _check_text("name", wish.name)
        _check_email(wish.email or None)
        if wish.plan_id is not None:
            self._check_plan(wish.plan_id)
        for _ in range(_ATTEMPTS):
            before = await self.customer(customer_id)
            if check is not None:
                check(before)
            if wish.account and wish.account != before.stripe_customer_id:
                await self._check_account(wish.account, customer_id)
            after = _changed(before, wish, self._clock.now_ms())
            if await self._customers.update_customer(after, before=before):
                return after
        raise Refusal(Code.CONFLICT)

    async def archive(
        self, customer_id: str, *, check: Callable[[Customer], object] | None = None
    ) -> tuple[Customer, int]:
        """Disable a customer and revoke all of its keys; returns how many were good until now. What was used stays on
        record and is billed; a subscription at the biller goes on. ``check``: see ``change_customer``."""
        customer = await self.change_customer(customer_id, CustomerWish(disabled=True), check=check)
        return customer, await self._keys.revoke_keys(customer_id, self._clock.now_ms())

    async def create_key(self, customer_id: str, wish: KeyWish) -> NewKey:
        """A new key of a customer."""
        await self.customer(customer_id)
        return await self._made(customer_id, wish, self._check_routes(wish.routes))

    async def check_room(self, customer_id: str) -> None:
        """Before a customer's person makes a key: one who makes them by mistake, or whose browser was taken over, is
        stopped here; an operator may make more. Raises Refusal."""
        now_ms = self._clock.now_ms()
        rows = await self._keys.keys(customer_id, limit=_KEYS_EVER_MAX)
        good = sum(key.revoked_ms is None and (key.expires_ms is None or key.expires_ms > now_ms) for key in rows)
        if good >= KEYS_MAX or len(rows) >= _KEYS_EVER_MAX:
            raise Refusal(Code.CONFLICT, f"There are {good} keys already.", hint="revoke those that nobody uses")

    async def _made(self, customer_id: str, wish: KeyWish, routes: Sequence[str] | None) -> NewKey:
        now_ms = self._clock.now_ms()
        _check_text("name", wish.name, empty=True)
        if wish.expires_ms is not None and wish.expires_ms <= now_ms:
            raise Refusal(Code.BAD_REQUEST, "The key would have expired already.")
        if wish.expires_ms is not None and wish.expires_ms > _LATEST_MS:
            raise Refusal(Code.BAD_REQUEST, "expires_ms lies after the year 9999.")
        for field, value in (("user_id", wish.user_id), ("agent_id", wish.agent_id)):
            if value is not None and not _SUBJECT.fullmatch(value):
                raise Refusal(Code.BAD_REQUEST, f"{field} is 1 to 128 of the letters A-Z a-z 0-9 . _ : @ -")
        secret = key_rules.make_key(secrets.token_bytes(key_rules.ENTROPY_BYTES))
        key = Key(
            id="key_" + secrets.token_hex(8),
            customer_id=customer_id,
            name=wish.name,
            shown=key_rules.shown(secret),
            created_ms=now_ms,
            expires_ms=wish.expires_ms,
            routes=None if routes is None else tuple(routes),
            models=_check_models(wish.models),
            user_id=wish.user_id,
            agent_id=wish.agent_id,
            may_assert=wish.may_assert,
        )
        if not await self._keys.create_key(key, key_rules.digest(secret)):
            raise Refusal(Code.CONFLICT, "The key could not be stored; try again.")
        return NewKey(key, secret)

    async def revoke_key(self, key_id: str) -> Key:
        """Refuse the key from now on, everywhere within a second. Calls in flight go on."""
        if not await self._keys.revoke_key(key_id, self._clock.now_ms()):
            raise Refusal(Code.NOT_FOUND, f"There is no key {key_id[:64]!r}.")
        found = await self._keys.key(key_id)
        assert found is not None
        return found

    async def rotate_key(self, key_id: str, grace_hours: int = 0, *, customer_id: str | None = None) -> NewKey:
        """A new key for the same customer, with the scopes and the end of the old one; the old one is good for so many
        hours more (0: revoked at once). With ``customer_id`` only that customer's key is found."""
        old = await self._keys.key(key_id)
        if old is None or customer_id not in (None, old.customer_id):
            raise Refusal(Code.NOT_FOUND, f"There is no key {key_id[:64]!r}.")
        if not 0 <= grace_hours <= GRACE_HOURS_MAX:
            raise Refusal(Code.BAD_REQUEST, f"grace_hours is a number from 0 to {GRACE_HOURS_MAX}.")
        now_ms = self._clock.now_ms()
        if old.revoked_ms is not None or (old.expires_ms is not None and old.expires_ms <= now_ms):
            raise Refusal(Code.CONFLICT, "The key has ended already.", hint="make a new one")
        wish = KeyWish(old.name, old.expires_ms, old.routes, old.models, old.user_id, old.agent_id, old.may_assert)
        made = await self._made(old.customer_id, wish, old.routes)
        # The new one first: whoever dies between the two has a key too many, not one too few.
        if grace_hours:
            await self._keys.expire_key(key_id, now_ms + grace_hours * _HOUR_MS)
        else:
            await self._keys.revoke_key(key_id, now_ms)
        return made

    async def _check_account(self, account: str, customer_id: str | None) -> None:
        """Raises Refusal for what is no id at the biller, or another customer's."""
        if not _ACCOUNT.fullmatch(account):
            raise Refusal(Code.BAD_REQUEST, "stripe_customer_id is 1 to 255 letters, digits and '_'.")
        found = await self._customers.customers(find=account, limit=_SCOPES_MAX)
        if any(each.stripe_customer_id == account and each.id != customer_id for each in found):
            raise Refusal(Code.CONFLICT, f"Another customer has the account {account[:64]!r}.")

    def _check_plan(self, plan_id: str) -> str:
        plans = self._gateway().plans
        if plan_id not in plans:
            known = ", ".join(sorted(plans))
            raise Refusal(
                Code.BAD_REQUEST,
                f"There is no plan {plan_id[:64]!r}; there are: {known}.",
                hint=(suggest(plan_id, plans) or "").rstrip("?") or None,
            )
        return plan_id

    def _check_routes(self, routes: Sequence[str] | None) -> tuple[str, ...] | None:
        if routes is None:
            return None
        known = {route.name for route in self._gateway().router.routes}
        for name in routes:
            if name not in known:
                raise Refusal(
                    Code.BAD_REQUEST, f"There is no route {name[:64]!r}; there are: {', '.join(sorted(known))}."
                )
        return tuple(dict.fromkeys(routes))


def _check_text(field: str, text: str, *, empty: bool = False) -> None:
    if not (empty or text.strip()) or len(text) > _NAME_LETTERS_MAX or not text.isprintable():
        raise Refusal(Code.BAD_REQUEST, f"{field} is a printable text of 1 to {_NAME_LETTERS_MAX} letters.")


def _changed(before: Customer, wish: CustomerWish, now_ms: int) -> Customer:
    disabled_ms = before.disabled_ms
    if wish.disabled is not None:
        disabled_ms = now_ms if wish.disabled else None
    return replace(
        before,
        name=before.name if wish.name is None else wish.name,
        plan_id=before.plan_id if wish.plan_id is None else wish.plan_id,
        email=before.email if wish.email is None else wish.email or None,
        stripe_customer_id=before.stripe_customer_id if wish.account is None else wish.account or None,
        disabled_ms=disabled_ms,
    )


def _check_email(email: str | None) -> None:
    if email is not None and not (email.isprintable() and _EMAIL.fullmatch(email)):
        raise Refusal(Code.BAD_REQUEST, "email is not an address.")


def _check_models(models: Sequence[str] | None) -> tuple[str, ...] | None:
    if models is None:
        return None
    if len(models) > _SCOPES_MAX or not all(
        0 < len(model) <= _NAME_LETTERS_MAX and model.isprintable() for model in models
    ):
        raise Refusal(Code.BAD_REQUEST, f"models is at most {_SCOPES_MAX} names or patterns such as 'gpt-4o*'.")
    return tuple(dict.fromkeys(models))
