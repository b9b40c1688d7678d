"""Names that clients assert (users, agents): each new one is a row on every limit of its scope.

The rule: one key brings at most so many new names in an hour, so that nobody fills the ledger with them. It is a bound
in each process, and of memory too: what was forgotten may come as new again.
"""

from collections import OrderedDict

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Refusal

HOUR_S = 3_600.0
# About 30 MB for all keys together.
NAMES_MAX = 200_000


class _Names:
    """Those of one key."""

    __slots__ = ("began_s", "fresh", "known")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.fresh = 0
        self.known: set[tuple[str | None, str | None]] = set()


class Newcomers:
    """One for a process."""

    def __init__(self, clock: Clock, *, names_max: int = NAMES_MAX) -> None:
        self._clock = clock
        self._names_max = names_max
        self._keys: OrderedDict[str, _Names] = OrderedDict()
        self._count = 0

    def check(self, key_id: str, user_id: str | None, agent_id: str | None, most: int) -> None:
        """Raises Refusal where a key has brought too many new users and agents within an hour."""
        names, name = self._keys.get(key_id), (user_id, agent_id)
        if names is not None and name in names.known:
            return
        now_s = self._clock.monotonic_s()
        if names is None:
            names = self._keys[key_id] = _Names(now_s)
        elif now_s - names.began_s >= HOUR_S:
            names.began_s, names.fresh = now_s, 0
        if names.fresh >= most:
            wait_s = max(1, -int(now_s - names.began_s - HOUR_S))
            raise Refusal(Code.TOO_MANY_SUBJECTS, hint=f"it may bring {most} in an hour", retry_after_s=wait_s)
        names.fresh += 1
        names.known.add(name)
        self._keys.move_to_end(key_id)
        self._count += 1
        while self._count > self._names_max:
            # Of whoever has brought none for longest; of this key itself, where it is alone.
            longest = next(iter(self._keys.values()))
            self._count -= len(longest.known)
            longest.known.clear()
            if longest is names:
                break
            del self._keys[next(iter(self._keys))]
