"""The biller that writes down what it would send: one JSON object a line, in a file.

The rule: a line is on the disk before it is reported, and no identifier stands there twice, whoever writes. Anything
may read the file while it grows; a last line without its end was never reported, and goes when the next is written.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.rules.billing import Batch, Reported

T = TypeVar("T")

# Two days of 300 customers who use something every five minutes, in some 30 MB. An identifier comes again within a day:
# after that the file's sums are asked (see ``rules.billing.next_step``).
IDENTIFIERS_MAX = 200_000
_CHUNK_BYTES = 1 << 20


class PaperBiller:
    """See ``ports.Biller``. Several processes may share a file; who writes holds its lock."""

    name = "paper"

    def __init__(self, path: Path, identifiers_max: int = IDENTIFIERS_MAX) -> None:
        self._path = path
        self._identifiers_max = identifiers_max
        # How far the file was read, and whose lines were met last.
        self._read_bytes = 0
        self._identifiers: dict[str, None] = {}
        self._one = asyncio.Lock()

    async def report(self, batch: Batch) -> Reported:
        """Append it, unless its identifier is there. Raises Fault when the file cannot be written."""
        async with self._one:
            return await _on_disk(lambda: self._append(batch))

    async def summary(self, batch: Batch, start_ms: int, end_ms: int) -> int:
        """The units of the file for that customer and meter, with instants in [start, end). It reads the whole file."""
        return await _on_disk(lambda: self._sum(batch, start_ms, end_ms))

    async def close(self) -> None:
        """Nothing is open between two calls."""

    def _append(self, batch: Batch) -> Reported:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._catch_up(descriptor)
            if batch.identifier in self._identifiers:
                return Reported.DUPLICATE
            line = json.dumps(paper_line(batch)).encode() + b"\n"
            os.ftruncate(descriptor, self._read_bytes)
            _write(descriptor, line, self._read_bytes)
            os.fsync(descriptor)
            self._catch_up(descriptor)
            return Reported.ACCEPTED
        finally:
            os.close(descriptor)

    def _catch_up(self, descriptor: int) -> None:
        """Read what was appended."""
        if os.fstat(descriptor).st_size < self._read_bytes:
            # Somebody began a new file.
            self._read_bytes, self._identifiers = 0, {}
        for line, end in _lines(descriptor, self._read_bytes):
            self._identifiers[line["identifier"]] = None
            if len(self._identifiers) > self._identifiers_max:
                del self._identifiers[next(iter(self._identifiers))]
            self._read_bytes = end

    def _sum(self, batch: Batch, start_ms: int, end_ms: int) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            # Against a last line that is being taken away.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return sum(
                int(line["units"])
                for line, _ in _lines(descriptor, 0)
                if (line["customer_id"], line["meter"]) == (batch.customer_id, batch.meter)
                and start_ms <= line["ts_ms"] < end_ms
            )
        finally:
            os.close(descriptor)


def paper_line(batch: Batch) -> dict[str, Any]:
    """What is written of a batch."""
    return {
        "identifier": batch.identifier,
        "customer_id": batch.customer_id,
        "meter": batch.meter,
        "units": str(batch.value),
        "ts_ms": batch.ts_ms,
        "period_start_ms": batch.period_start_ms,
        "late": batch.late,
    }


def _lines(descriptor: int, at: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The lines from there on that have an end, each with the place after it."""
    rest = b""
    while chunk := os.pread(descriptor, _CHUNK_BYTES, at + len(rest)):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            at += len(line) + 1
            yield json.loads(line), at


def _write(descriptor: int, line: bytes, at: int) -> None:
    written = 0
    while written < len(line):
        written += os.pwrite(descriptor, line[written:], at + written)


async def _on_disk(job: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(job)
    except (OSError, ValueError, LookupError) as cause:
        raise Fault("biller", FaultKind.STORE, f"the paper cannot be written: {cause}") from cause
