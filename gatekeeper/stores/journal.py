"""Where records wait while the ledger is away: a folder of append-only files, one for each process, every line fsynced.

The rule: a line that was written is settled sooner or later, by its process or, when that is dead, by another one.
Settling counts once by call id, so a line that is replayed twice is harmless. A process holds a lock on its own file
for life; whoever gets the lock of another file knows that its owner is gone.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.money import plain
from gatekeeper.ports import Attempt, Journaled, Settlement, UsageRecord
from gatekeeper.rules.limits import BucketKey, CounterKey, Mode, RateLine, StockLine

log = logging.getLogger("gatekeeper.journal")

_SUFFIX = ".jsonl"
_FIELDS = tuple(field.name for field in fields(UsageRecord))


class FileJournal:
    """See ``ports.Journal``. The folder and the file are made when they are first needed."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self._path = folder / (owner.replace("/", "_").replace(":", "-") + _SUFFIX)
        self._file: int | None = None
        self._open: set[str] = set()
        self._lock = asyncio.Lock()
        # Files of dead processes that we hold, each with what is still to be settled of it.
        self._claimed: dict[Path, tuple[int, set[str]]] = {}

    @property
    def waiting(self) -> int:
        """How many records of ours, and of dead processes that we have claimed, the ledger does not have yet."""
        return len(self._open) + sum(len(left) for _, left in self._claimed.values())

    async def append(self, settlement: Settlement) -> None:
        """Durable when it returns. Raises Fault (world ``journal``)."""
        line = _line(settlement)
        async with self._lock:
            try:
                await asyncio.to_thread(self._write, line)
            except OSError as cause:
                raise _fault(cause) from cause
            self._open.add(settlement.record.call_id)

    async def done(self, call_id: str) -> None:
        """The ledger has it. A file of which nothing is open any more is emptied, or removed if its owner is dead."""
        async with self._lock:
            try:
                if call_id in self._open:
                    self._open.discard(call_id)
                    if not self._open and self._file is not None:
                        await asyncio.to_thread(os.ftruncate, self._file, 0)
                for path, (file, left) in list(self._claimed.items()):
                    left.discard(call_id)
                    if not left:
                        del self._claimed[path]
                        await asyncio.to_thread(_remove, path, file)
            except OSError as cause:
                log.warning("the journal could not be tidied: %s", cause)

    async def orphans(self) -> Sequence[Journaled]:
        """What dead processes left behind and nobody has claimed. Raises Fault."""
        async with self._lock:
            try:
                claimed = await asyncio.to_thread(self._claim)
            except OSError as cause:
                raise _fault(cause) from cause
            found: list[Journaled] = []
            for path, file, lines in claimed:
                # Of a call that was opened without a hold and has ended, the end counts: it was written last.
                read = [one for line in lines if (one := _from_line(line, path)) is not None]
                waiting = list({one.record.call_id: one for one in read}.values())
                if waiting:
                    self._claimed[path] = (file, {one.record.call_id for one in waiting})
                    found += waiting
                else:
                    await asyncio.to_thread(_remove, path, file)
            return found

    async def close(self) -> None:
        """Gives up the files; one with nothing in it is removed."""
        async with self._lock:
            for file, _ in self._claimed.values():
                os.close(file)
            self._claimed.clear()
            if self._file is not None:
                if self._open:
                    os.close(self._file)
                else:
                    _remove(self._path, self._file)
                self._file = None

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._made()
            _sync_folder(self._folder)
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError("the journal's disk is full")
            os.fsync(self._file)
        except OSError:
            # Half a line would spoil the next one.
            os.ftruncate(self._file, size)
            raise

    def _made(self) -> int:
        """Our own file, locked. Between making and locking it somebody may take it for a dead one's and remove it."""
        while True:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file).st_nlink:
                    return file
            except OSError:
                os.close(file)
                raise
            os.close(file)

    def _claim(self) -> list[tuple[Path, int, list[bytes]]]:
        claimed = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")) if self._folder.is_dir() else ():
            if path == self._path or path in self._claimed:
                continue
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            claimed.append((path, file, path.read_bytes().splitlines()))
        return claimed


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove(path: Path, file: int) -> None:
    path.unlink(missing_ok=True)
    os.close(file)


def _to_json(settlement: Settlement) -> dict[str, Any]:
    record = settlement.record
    return {
        "record": {name: getattr(record, name) for name in _FIELDS},
        "actual": dict(settlement.actual),
        "now_ms": settlement.now_ms,
        "once_per_response": settlement.once_per_response,
        "stock": settlement.stock,
        "rates": settlement.rates,
        "attempts": settlement.attempts,
    }


def _line(settlement: Settlement) -> bytes:
    """One line of the file, whatever a meter saw: a call that cannot be written would be a call that is not billed."""
    told = _to_json(settlement)
    try:
        text = orjson.dumps(told, default=_plain)
    except TypeError:  # orjson.JSONEncodeError: an integer above 64 bits, a lone surrogate
        text = json.dumps(told, default=_plain).encode()
    return text + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else plain(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):  # a named one
        return list(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return str(value)


def _from_line(line: bytes, path: Path) -> Journaled | None:
    try:
        found = _read(line)
        told = found["record"]
        told |= {"outcome": Outcome(told["outcome"]), "source": Mark(told["source"])}
        once = found.get("once_per_response", False)
        attempts = tuple(Attempt(**attempt) for attempt in found.get("attempts", ()))
        stock, rates = _lines(found)
        return Journaled(UsageRecord(**told), found["actual"], found["now_ms"], once, stock, rates, attempts)
    except (KeyError, TypeError, ValueError) as cause:
        # A line that a crash cut short was never promised to anybody.
        log.error("a line of %s cannot be read and is passed over: %s", path.name, cause)
        return None


def _read(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # a lone surrogate
        return json.loads(line)


def _lines(found: Mapping[str, Any]) -> tuple[tuple[StockLine, ...] | None, tuple[RateLine, ...]]:
    """What the call was to be held on; lines of before that was kept have none."""
    stock, rates = found.get("stock"), found.get("rates") or ()
    return (
        None
        if stock is None
        else tuple([StockLine(**{**one, "key": CounterKey(*one["key"]), "mode": Mode(one["mode"])}) for one in stock]),
        tuple([RateLine(**{**one, "key": BucketKey(*one["key"])}) for one in rates]),
    )


def _fault(cause: OSError) -> Fault:
    return Fault("journal", FaultKind.STORE, f"{cause.strerror or cause}")
