"""A connection that could not be made is tried again on the same upstream; nothing else is."""

from dataclasses import replace

import pytest
from upstreams_server import Play, answer, fault_of, fetch, forever, outgoing, serving

from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.upstreams.client import HttpUpstream
from gatekeeper.upstreams.connection import Connection
from gatekeeper.upstreams.pool import Pool


class Weather:
    """A pool before which the network fails so often."""

    def __init__(self, pool: Pool, faults: list[FaultKind]) -> None:
        self._pool = pool
        self._faults = faults

    async def acquire(self, *, connect_timeout_s: float, wait_timeout_s: float, fresh: bool = False) -> Connection:
        if self._faults:
            raise Fault("upstream", self._faults.pop(0), "bad weather", retryable=True)
        return await self._pool.acquire(connect_timeout_s=connect_timeout_s, wait_timeout_s=wait_timeout_s, fresh=fresh)


class Outdoors(HttpUpstream):
    """The client, with the weather of a test."""

    def __init__(self, *faults: FaultKind) -> None:
        super().__init__()
        self.faults = list(faults)

    def pool(self, config: UpstreamConfig) -> Weather:  # type: ignore[override]
        return Weather(super().pool(config), self.faults)


@pytest.mark.parametrize(("retries", "failures", "served"), [(0, 1, False), (1, 1, True), (1, 2, False), (3, 3, True)])
def test_a_connection_is_tried_so_many_times_again(play: Play, retries: int, failures: int, served: bool) -> None:
    async def main() -> None:
        async with serving(forever(answer())) as server:
            upstream = Outdoors(*[FaultKind.CONNECT] * failures)
            config = replace(server.config(), connect_retries=retries)
            try:
                if served:
                    assert (await fetch(upstream, outgoing(config, "POST", body=b"{}")))[2] == b"ok"
                    assert len(upstream.faults) == 0
                else:
                    fault = await fault_of(fetch(upstream, outgoing(config, "POST", body=b"{}")))
                    assert (fault.kind, len(upstream.faults)) == (FaultKind.CONNECT, failures - 1 - retries)
            finally:
                await upstream.close()

    play(main)


@pytest.mark.parametrize("kind", [FaultKind.CONNECT_TIMEOUT, FaultKind.TLS, FaultKind.POOL_FULL])
def test_who_was_silent_or_is_not_trusted_is_not_asked_again(play: Play, kind: FaultKind) -> None:
    async def main() -> None:
        async with serving(forever(answer())) as server:
            upstream = Outdoors(kind)
            try:
                assert (await fault_of(fetch(upstream, outgoing(server.config())))).kind is kind
            finally:
                await upstream.close()

    play(main)
