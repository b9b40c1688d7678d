"""Which price ids the plans have in the account, as it was read last.

The rule: reading an account takes a dozen requests, so it is done once in a while, when the files changed, and when a
price turns up that is not known.
"""

import asyncio
from collections.abc import Callable

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import Catalogue
from gatekeeper.rules.catalogue import Sold, wanted
from gatekeeper.rules.drift import sold

KEPT_S = 600.0
# A price of nobody's must not have the account read for each of its events.
FRESH_S = 30.0


class Shelf:
    """Raises what the catalogue raises."""

    def __init__(self, catalogue: Catalogue, gateway: Callable[[], Gateway], clock: Clock) -> None:
        self._catalogue = catalogue
        self._gateway = gateway
        self._clock = clock
        self._read: tuple[float, str, Sold] | None = None
        self._one = asyncio.Lock()

    async def sold(self, *, fresh: bool = False) -> Sold:
        """The ids; ``fresh`` where those that were read last do not explain what was found."""
        kept_s = FRESH_S if fresh else KEPT_S
        async with self._one:
            gateway, now_s = self._gateway(), self._clock.monotonic_s()
            if self._read is not None and self._read[1] == gateway.generation and now_s < self._read[0] + kept_s:
                return self._read[2]
            live = self._catalogue.live
            want = wanted(gateway.plans, gateway.stripe.meter, gateway.server.public_url, live=live)
            found = sold(want, await self._catalogue.read(want.names))
            self._read = now_s, gateway.generation, found
            return found
