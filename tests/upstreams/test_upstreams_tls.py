"""TLS: verified unless switched off, with the server's name. The certificates are of these tests only (until 2120)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from upstreams_server import Play, Wire, answer, fault_of, fetch, forever, outgoing, server_tls, serving, until

from gatekeeper.errors import FaultKind
from gatekeeper.upstreams.client import HttpUpstream

CERTS = Path(__file__).parent / "certs"
AUTHORITY = CERTS / "authority.pem"


async def through_tls(
    settings: dict[str, Any], script: Any = None, names: list[Any] | None = None, listens_on: str = "127.0.0.1"
) -> Any:
    """One call over TLS twice; the bodies, or the Fault."""
    context = server_tls(str(CERTS / "localhost.pem"))
    if names is not None:
        context.sni_callback = lambda _, name, __: names.append(name)
    upstream = HttpUpstream()
    async with serving(script or forever(answer(b"secret")), host=listens_on, ssl=context) as server:
        config = server.config(scheme="https", **settings)
        try:
            first = await fetch(upstream, outgoing(config))
            second = await fetch(upstream, outgoing(config))
            assert server.accepted == 1
            return first[2] + second[2]
        finally:
            await upstream.close()
            await until(lambda: server.live == 0)


def test_a_trusted_server_is_spoken_to_and_told_its_name(play: Play) -> None:
    names: list[Any] = []
    settings = {"host": "localhost", "ca_file": AUTHORITY}
    assert play(lambda: through_tls(settings, names=names)) == b"secretsecret"
    assert names == ["localhost"]


def test_an_address_is_verified_too(play: Play) -> None:
    assert play(lambda: through_tls({"ca_file": AUTHORITY})) == b"secretsecret"


def test_an_unknown_authority_is_refused_by_default(play: Play) -> None:
    fault = play(lambda: fault_of(through_tls({})))
    assert (fault.kind, fault.retryable) == (FaultKind.TLS, True)


def test_another_name_is_refused(play: Play) -> None:
    settings = {"host": "127.0.0.2", "ca_file": AUTHORITY}
    try:
        fault = play(lambda: fault_of(through_tls(settings, listens_on="127.0.0.2")))
    except OSError:
        pytest.skip("this machine has no 127.0.0.2")
    assert fault.kind is FaultKind.TLS


def test_verification_can_be_switched_off(play: Play) -> None:
    assert play(lambda: through_tls({"tls_verify": False})) == b"secretsecret"


@pytest.mark.parametrize("path", [CERTS / "missing.pem", Path(__file__)])
def test_a_ca_file_that_cannot_be_used_is_a_fault(play: Play, path: Path) -> None:
    fault = play(lambda: fault_of(through_tls({"ca_file": path})))
    assert fault.kind is FaultKind.TLS


def test_a_large_body_crosses_tls_unchanged(play: Play) -> None:
    body = bytes(range(256)) * 20_000
    assert play(lambda: through_tls({"ca_file": AUTHORITY}, forever(answer(body)))) == body * 2


def test_a_server_that_does_not_speak_tls_is_a_fault(play: Play) -> None:
    async def main() -> None:
        upstream = HttpUpstream()

        async def plain(wire: Wire) -> None:
            await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with serving(plain) as server:
            config = server.config(scheme="https")
            fault = await fault_of(fetch(upstream, outgoing(config)))
            assert fault.kind in (FaultKind.TLS, FaultKind.CONNECT)
            assert fault.retryable
            assert upstream.pool(config).counts == (0, 0, 0)
        await upstream.close()

    play(main)


def test_cancelling_a_handshake_at_any_moment_leaves_nothing(play: Play) -> None:
    async def main() -> None:
        upstream = HttpUpstream()
        async with serving(forever(answer()), ssl=server_tls(str(CERTS / "localhost.pem"))) as server:
            config = server.config(scheme="https", ca_file=AUTHORITY, connections_max=1)
            cancelled = 0
            for turns in range(40):
                call = asyncio.create_task(fetch(upstream, outgoing(config)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait([call])
                cancelled += call.cancelled()
            assert cancelled > 5
            assert (await fetch(upstream, outgoing(config)))[2] == b"ok"
            await upstream.close()
            await until(lambda: server.live == 0)

    play(main)
