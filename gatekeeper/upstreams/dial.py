"""From a host name to a connected socket: addresses raced as in RFC 8305, and the TLS context of an origin.

The rule: whoever is cancelled or loses the race leaves no socket open. (uvloop has no happy eyeballs of its own, and
a host whose first address is a black hole would spend the whole connect timeout on it.)
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

# RFC 8305 section 5: the recommended delay between two attempts.
ATTEMPT_DELAY_S = 0.25
# RFC 8305 sets no bound; a name with more addresses than this is not served better by trying all.
ADDRESSES_MAX = 8

Address = tuple[int, int, int, tuple[object, ...]]


def tls_context(*, verify: bool, ca_file: Path | None) -> ssl.SSLContext:
    """Verified against the system's authorities, or against ``ca_file`` alone; not at all with ``verify`` False.

    Reads files: once for an origin, never for a call. Raises OSError (ssl.SSLError is one).
    """
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def dial(host: str, port: int) -> socket.socket:
    """A connected, non-blocking TCP socket. Raises OSError (of the last address that failed), UnicodeError for a name
    that cannot be looked up; the caller sets the time limit by cancelling."""
    addresses = await _addresses(host, port)
    if len(addresses) == 1:
        return await _connect(addresses[0])
    return await race(addresses)


async def _addresses(host: str, port: int) -> Sequence[Address]:
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return interleaved([(family, kind, proto, address) for family, kind, proto, _, address in found])
    family = socket.AF_INET if literal.version == 4 else socket.AF_INET6
    address = (host, port) if literal.version == 4 else (host, port, 0, 0)
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, address)]


def interleaved(addresses: Sequence[Address]) -> Sequence[Address]:
    """Families in turn, beginning with the resolver's first (RFC 8305 section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    turns = chain.from_iterable(zip_longest(first, other))
    return [address for address in turns if address is not None][:ADDRESSES_MAX]


async def _connect(address: Address) -> socket.socket:
    family, kind, proto, place = address
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, place)
    except BaseException:
        sock.close()
        raise
    return sock


async def race(addresses: Sequence[Address]) -> socket.socket:
    """The first socket that connects, attempts begun ``ATTEMPT_DELAY_S`` apart. Raises the last OSError."""
    attempts: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException | None = None
    waiting = list(addresses)
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_connect(waiting.pop(0))))
            delay_s = ATTEMPT_DELAY_S if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                failure = attempt.exception()
                if failure is None:
                    attempts.discard(attempt)
                    return attempt.result()
                attempts.discard(attempt)
    finally:
        await _end(attempts)
    assert failure is not None
    raise failure


async def _end(attempts: set[asyncio.Task[socket.socket]]) -> None:
    """Cancel the losers and close what one of them still connected."""
    for attempt in attempts:
        attempt.add_done_callback(_close_result)
        attempt.cancel()
    if attempts:
        await asyncio.wait(attempts)


def _close_result(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
