"""``gatekeeper`` itself before a ledger that grants at once and records nothing: what is left without admission's hold
and without settle.

``python -m bench.granting serve ...``: when it stops it prints {"held": how many, "settled": how many}. The rule: only
the ledger's calls are exchanged. Customers and keys are still the real store's.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any, cast

from gatekeeper.assembly import House
from gatekeeper.cli import serve
from gatekeeper.cli.main import main
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import Extension, HoldOrder, Progress, Settled, Settlement, Store
from gatekeeper.rules.budgets import rate_states, stock_states
from gatekeeper.rules.limits import Granted
from gatekeeper.stores import open_store
from gatekeeper.upstreams.chosen import Upstreams


class Granting:
    """A Store whose ledger never waits. Everything else is asked of the store behind it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Made once for each key: what the states of limits cost is a part of the hold, too.
        self._granted: dict[str | None, Granted] = {}
        self.held = self.settled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def hold(self, order: HoldOrder) -> Granted:
        """All that is wanted, with the limits as they stand before anybody has called."""
        self.held += 1
        granted = self._granted.get(order.key_id)
        if granted is None:
            states = stock_states(order.stock, {}), rate_states(order.rates, {}, order.now_ms)
            granted = self._granted[order.key_id] = Granted(order.output_tokens, *states)
        return (
            granted
            if granted.output_tokens == order.output_tokens
            else granted._replace(output_tokens=order.output_tokens)
        )

    async def extend(self, extension: Extension) -> Granted:
        """All that is wanted."""
        return Granted(extension.output_tokens)

    async def settle(self, settlement: Settlement) -> Settled:
        """As if it were stored."""
        self.settled += 1
        return Settled(True, settlement.record)

    async def renew(self, progress: Sequence[Progress], expires_ms: int) -> Sequence[str]:
        """All are open still."""
        return []


_MADE: list[Granting] = []


async def build_house(gateway: Gateway, **others: Any) -> House:
    """As assembly builds it, around the other ledger."""
    made = Granting(await open_store(gateway.database_url.reveal(), clock=SystemClock()))
    _MADE.append(made)
    return House(gateway, cast(Store, made), Upstreams(), **others)


if __name__ == "__main__":
    serve.build_house = build_house  # type: ignore[attr-defined]
    code = main(sys.argv[1:])
    print(json.dumps({"held": sum(made.held for made in _MADE), "settled": sum(made.settled for made in _MADE)}))
    sys.exit(code)
