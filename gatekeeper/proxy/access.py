"""Who calls, and may they: the key's look-up and the checks on it. The rule: a key is named in full nowhere."""

import re
from collections import OrderedDict
from fnmatch import fnmatchcase

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Route
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Customers, Holder, Key, Keys
from gatekeeper.proxy.call import Credentials
from gatekeeper.rules import keys as key_rules

# A revoked key must be refused everywhere within one second; 10,000 holders are about 10 MB.
HOLDER_TTL_S = 1.0
HOLDERS_MAX = 10_000

_SUBJECT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


class Directory:
    """Finds the holder of a key; remembers it for at most a second."""

    def __init__(self, keys: Keys, customers: Customers, clock: Clock) -> None:
        self._keys = keys
        self._customers = customers
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Holder | None]] = OrderedDict()
        self._used: dict[str, int] = {}

    async def holder(self, credentials: Credentials, anonymous_customer: str | None) -> Holder:
        """As ``find``; where calls without a key belong to a customer, so do those with a key that cannot be ours:
        an SDK sends some key whether one is needed or not."""
        if _is_anonymous(credentials, anonymous_customer):
            return await self.anonymous(anonymous_customer or "")
        return await self.find(credentials)

    async def find(self, credentials: Credentials) -> Holder:
        """The holder, not yet checked for validity. Raises Refusal: missing, conflicting, malformed, unknown."""
        holder = await self._remembered(_digest(credentials))
        if holder is None:
            raise Refusal(Code.UNKNOWN_KEY)
        return holder

    def recall(self, credentials: Credentials, anonymous_customer: str | None, since_s: float) -> Holder | None:
        """The same from memory alone, for when nobody can be asked: as it was seen last, if that is not before
        ``since_s``. Raises Refusal for a key that cannot be one of ours."""
        is_anonymous = _is_anonymous(credentials, anonymous_customer)
        seen_s, holder = self._known.get(
            f"customer:{anonymous_customer}" if is_anonymous else _digest(credentials), (float("-inf"), None)
        )
        return holder if seen_s >= since_s else None

    async def anonymous(self, customer_id: str) -> Holder:
        """The fixed holder of a gateway without keys. Raises Refusal when that customer does not exist."""
        mark = f"customer:{customer_id}"
        now_s = self._clock.monotonic_s()
        found = self._known.get(mark)
        if found is None or now_s - found[0] > HOLDER_TTL_S:
            customer = await self._customers.customer(customer_id)
            key = Key(id="", customer_id=customer_id, name="", shown="", created_ms=0, may_assert=True)
            found = (now_s, None if customer is None else Holder(key, customer))
            self._remember(mark, found)
        if found[1] is None:
            raise Refusal(Code.UNKNOWN_KEY, private=f"anonymous customer {customer_id!r} does not exist")
        return found[1]

    def mark(self, credentials: Credentials, anonymous_customer: str | None) -> str:
        """What ``fresh`` finds the holder by. Raises Refusal for a key that cannot be one of ours."""
        if _is_anonymous(credentials, anonymous_customer):
            return f"customer:{anonymous_customer}"
        if len(credentials.keys) == 1:
            mark = key_rules.digest(credentials.keys[0])
            # What is remembered was well-formed when it was first seen.
            if mark in self._known:
                return mark
        return _digest(credentials)

    def fresh(self, mark: str) -> Holder | None:
        """The holder, if it was looked up within the last second: then nobody need be asked."""
        found = self._known.get(mark)
        return found[1] if found is not None and self._clock.monotonic_s() - found[0] <= HOLDER_TTL_S else None

    def used(self, key_id: str, now_ms: int) -> None:
        """Note that a key was used; written later, many at once."""
        self._used[key_id] = now_ms

    async def write_used(self) -> None:
        """Write what ``used`` noted. Raises Fault; then the notes are kept for the next time."""
        noted, self._used = self._used, {}
        if not noted:
            return
        try:
            await self._keys.touch_keys(noted)
        except BaseException:
            self._used = {**noted, **self._used}
            raise

    async def _remembered(self, digest: str) -> Holder | None:
        now_s = self._clock.monotonic_s()
        found = self._known.get(digest)
        if found is not None and now_s - found[0] <= HOLDER_TTL_S:
            return found[1]
        # The age counts from before the look-up: what it reads may be revoked while it travels.
        holder = await self._keys.holder(digest)
        self._remember(digest, (now_s, holder))
        return holder

    def _remember(self, mark: str, found: tuple[float, Holder | None]) -> None:
        self._known[mark] = found
        self._known.move_to_end(mark)
        while len(self._known) > HOLDERS_MAX:
            self._known.popitem(last=False)


def _is_anonymous(credentials: Credentials, customer: str | None) -> bool:
    return customer is not None and not any(key.startswith(key_rules.PREFIX) for key in credentials.keys)


def _digest(credentials: Credentials) -> str:
    """Of the one key that was sent. Raises Refusal: missing, conflicting, malformed."""
    if not credentials.keys:
        raise Refusal(
            Code.MISSING_KEY, hint="send it as 'Authorization: Bearer gk_...', X-API-Key, x-goog-api-key or ?key="
        )
    if len(credentials.keys) > 1:
        raise Refusal(Code.CONFLICTING_KEYS, hint="send one key, in one place")
    text = credentials.keys[0]
    if not key_rules.well_formed(text):
        raise Refusal(Code.MALFORMED_KEY, hint="keys begin with 'gk_'; check that it was copied whole")
    return key_rules.digest(text)


def check_valid(holder: Holder, now_ms: int) -> None:
    """Raises Refusal for a revoked or expired key and for a disabled customer."""
    key = holder.key
    if key.revoked_ms is not None:
        raise Refusal(Code.REVOKED_KEY)
    if key.expires_ms is not None and now_ms >= key.expires_ms:
        raise Refusal(Code.EXPIRED_KEY)
    if holder.customer.disabled_ms is not None:
        raise Refusal(Code.CUSTOMER_DISABLED)


def check_route(holder: Holder, route: Route) -> None:
    """Raises Refusal where the key's scope leaves the route out."""
    routes = holder.key.routes
    if routes is not None and route.name not in routes:
        raise Refusal(Code.ROUTE_NOT_ALLOWED, hint=f"it may use: {', '.join(routes) or 'none'}")


def model_allowed(holder: Holder, model: str | None) -> bool:
    """Whether the key's scope holds this model; a scope of models refuses a call that names none."""
    models = holder.key.models
    return models is None or (model is not None and any(fnmatchcase(model, pattern) for pattern in models))


def check_model(holder: Holder, model: str | None) -> None:
    """Raises Refusal where the key's scope leaves the model out."""
    if not model_allowed(holder, model):
        raise Refusal(Code.MODEL_NOT_ALLOWED, hint=f"it may use: {', '.join(holder.key.models or ()) or 'none'}")


def subjects(holder: Holder, credentials: Credentials) -> tuple[str | None, str | None]:
    """(user, agent) of a call: the key's own, or what the client asserts where the key may. Raises Refusal for an
    asserted name of a bad shape."""
    key = holder.key
    user_id, agent_id = key.user_id, key.agent_id
    if key.may_assert:
        user_id = user_id or _asserted("X-User-Id", credentials.user_id)
        agent_id = agent_id or _asserted("X-Agent-Id", credentials.agent_id)
    return user_id, agent_id


def _asserted(header: str, value: str | None) -> str | None:
    if value is not None and not _SUBJECT.fullmatch(value):
        raise Refusal(Code.BAD_REQUEST, f"{header} must be 1 to 128 of the letters A-Z a-z 0-9 . _ : @ -")
    return value
