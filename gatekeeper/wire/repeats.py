"""Events that repeat the one before them but for a few texts and numbers: nearly all of nearly every stream.

The rule: it changes nothing. An event is known only if its bytes are those of a learned event except inside string
values (that stay strings, not empty) and whole numbers (that stay such), at keys which decide nothing; so its JSON has
the same structure, and what usage and signals make of it follows from the learned event and the lengths of its texts.
"""

import re
from typing import Literal, NamedTuple

import orjson

from gatekeeper.wire.events import Event
from gatekeeper.wire.record import Row
from gatekeeper.wire.signals import Signals
from gatekeeper.wire.sse import SseParser
from gatekeeper.wire.usage import UsageFold

# Learning takes as long as reading some ten events; a stream that never repeats must not pay for it often.
_TRIES_MAX = 12
_EVENTS_BEFORE = 4
_SAMPLE_BYTES_MAX = 2048
_HOLES_MAX = 8
# Keys whose value decides what an event means.
_DECIDE = frozenset({b"type", b"event_type", b"object", b"error", b"finish_reason", b"finishReason", b"done"})
# The inside of a JSON string, and a number that is a count.
_TEXT = re.compile(rb'[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*')
_ASCII = re.compile(rb"[ !#-\[\]-~]+")  # nearly every text: as many bytes as it has letters
_COUNT = re.compile(rb"(?:0|[1-9][0-9]{0,16})(?![0-9.eE])")
_DIGITS = re.compile(rb"[0-9]+")
_KEY_BEFORE = re.compile(rb'"([^"]*)"\s*:\s*\Z')
_LONGER = b"xxxxxxx"


class _Hole(NamedTuple):
    """What may change, the bytes that follow it, and whether it counts as text."""

    is_text: bool
    counts: bool
    after: bytes


class _Pattern(NamedTuple):
    """A learned event: ``head``, then the holes. ``before`` and ``behind`` are the framing around its payload."""

    name: str
    head: bytes
    holes: tuple[_Hole, ...]
    text_bytes: int  # without what stands in the holes
    row: Row | None  # the shape of usage that it speaks in, if it does
    before: int
    behind: int


class Repeats:
    """Beside a UsageFold and the Signals of one response, which it feeds."""

    __slots__ = ("_bare", "_bytes_max", "_fold", "_misses", "_sample", "_signals", "_tries", "_wired", "count")

    def __init__(self, fold: UsageFold, signals: Signals, event_bytes_max: int) -> None:
        self.count = 0  # events in what ``skim`` has taken last
        self._fold = fold
        self._signals = signals
        self._bytes_max = event_bytes_max
        self._wired: _Pattern | None = None  # as it comes over the wire
        self._bare: _Pattern | None = None  # its payload alone
        self._sample: tuple[bytes, str, Row | Literal[False] | None] | None = None
        self._tries = _TRIES_MAX
        self._misses = -_EVENTS_BEFORE

    def skim(self, chunk: bytes) -> int:
        """Takes in the events at the beginning of a chunk that are known; how many bytes they are. Only between two
        events."""
        self.count = 0
        pattern = self._wired
        if pattern is None:
            return 0
        at, size = 0, len(chunk)
        while at < size:
            end = self._matched(pattern, chunk, at)
            if end < 0:
                break
            at = end
            self.count += 1
        return at

    def knows(self, event: Event) -> bool:
        """Whether this event was known and is taken in."""
        pattern = self._bare
        if pattern is None or event.event != pattern.name:
            return False
        return self._matched(pattern, event.raw, 0) == len(event.raw)

    def _matched(self, pattern: _Pattern, raw: bytes, start: int) -> int:
        """Where the event that starts here ends, once it is taken in; -1 if it is another one."""
        _, head, holes, text, row, before, behind = pattern
        if not raw.startswith(head, start):
            return -1
        at = start + len(head)
        for is_text, counts, after in holes:
            found = (_ASCII if is_text else _COUNT).match(raw, at)
            end = found.end() if found is not None else at
            if found is not None and raw.startswith(after, end):
                if counts:
                    text += end - at
            else:
                size, end = _text_at(raw, at) if is_text else (-1, at)
                if size < 0 or not raw.startswith(after, end):
                    return -1
                if counts:
                    text += size
            at = end + len(after)
        if at - start > self._bytes_max:
            return -1
        self._misses = 0
        self._signals.text_bytes += text
        if row is not None:
            self._fold.pend(row, raw[start + before : at - behind])
        return at

    # -- learning --------------------------------------------------------------------------------------------------

    def read(self, event: Event, wire: bytes | None = None) -> None:
        """Takes in an event that is not known, and learns from it. ``wire``, where events are skimmed: the chunk that
        begins with it, empty if none does."""
        fold, signals = self._fold, self._signals
        fold.feed(event)
        signals.feed(event)
        self._misses += 1
        # One odd event between known ones is no reason to learn anew.
        if self._misses < 2 or not self._tries or not signals.settled:
            return
        raw = event.raw
        if len(raw) > _SAMPLE_BYTES_MAX or b"\\" in raw or fold.said is False:
            self._sample = None
            return
        before, self._sample = self._sample, (raw, event.event, fold.said)
        if before is None or before[1:] != self._sample[1:] or wire == b"":
            return
        self._tries -= 1
        learned = self._learned(before[0], raw, event.event, fold.said or None)
        if learned is not None:
            self._bare, self._sample = learned, None
            if wire is not None:
                self._bare, self._wired = None, _wired(learned, raw, wire[: 2 * _SAMPLE_BYTES_MAX], self._bytes_max)

    def _learned(self, old: bytes, raw: bytes, name: str, row: Row | None) -> _Pattern | None:
        cuts = _cuts(old, raw, self._fold.deciding)
        if cuts is None:
            return None
        ends = [0, *(end for _, end, _ in cuts)]
        starts = [*(start for start, _, _ in cuts), len(raw)]
        parts = [raw[end:start] for end, start in zip(ends, starts, strict=True)]
        pieces = [raw[start:end] for start, end, _ in cuts]
        plain = self._judged(name, parts, pieces)
        if plain is None:
            return None
        holes, text_bytes = [], plain
        for number, (_, _, is_text) in enumerate(cuts):
            longer = pieces[number] + _LONGER if is_text else b"1" * (1 + len(pieces[number]) % 9)
            grown = self._judged(name, parts, [*pieces[:number], longer, *pieces[number + 1 :]])
            more = None if grown is None else grown - plain
            if more not in (0, len(_LONGER)) or (more and not is_text):
                return None
            text_bytes -= _decoded_size(pieces[number]) if more else 0
            holes.append(_Hole(is_text, bool(more), parts[number + 1]))
        return _Pattern(name, parts[0], tuple(holes), text_bytes, row, 0, 0)

    def _judged(self, name: str, parts: list[bytes], pieces: list[bytes]) -> int | None:
        """The text of the event with these pieces in its holes; None if it says anything else."""
        raw = parts[0] + b"".join(piece + part for piece, part in zip(pieces, parts[1:], strict=True))
        signals = Signals()
        event = Event(0, name, "", raw)
        if type(event.json) is not dict:
            return None
        signals.feed(event)
        if signals.terminal or signals.error or (signals.finished and not self._signals.finished):
            return None
        return signals.text_bytes


def _cuts(old: bytes, raw: bytes, deciding: frozenset[str]) -> list[tuple[int, int, bool]] | None:
    """Where two events differ: (start, end, is a string) in the second one. None if they differ in more than values."""
    before, after = old.split(b'"'), raw.split(b'"')
    if len(before) != len(after) or b"\\" in old:
        return None
    cuts: list[tuple[int, int, bool]] = []
    at = 0
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        if one != other:
            found = _text_cut(one, other, at) if place % 2 else _count_cuts(one, other, at)
            if found is None or not all(_is_free(raw[:start], is_text, deciding) for start, _, is_text in found):
                return None
            cuts += found
        at += len(other) + 1
    return cuts if 0 < len(cuts) <= _HOLES_MAX else None


def _text_cut(one: bytes, other: bytes, at: int) -> list[tuple[int, int, bool]] | None:
    return [(at, at + len(other), True)] if one and other else None


def _count_cuts(one: bytes, other: bytes, at: int) -> list[tuple[int, int, bool]] | None:
    """Outside of strings only whole numbers may differ."""
    if _DIGITS.sub(b"0", one) != _DIGITS.sub(b"0", other):
        return None
    pairs = zip(_DIGITS.finditer(one), _DIGITS.finditer(other), strict=True)
    spans = [(at + new.start(), at + new.end(), False) for old, new in pairs if old.group() != new.group()]
    return spans if all(_COUNT.match(other, start - at) for start, _, _ in spans) else None


def _is_free(before: bytes, is_text: bool, deciding: frozenset[str]) -> bool:
    """Whether the value that begins here stands at a key that decides nothing."""
    found = _KEY_BEFORE.search(before[:-1] if is_text else before)
    return found is not None and found[1] not in _DECIDE and found[1].decode("utf-8", "replace") not in deciding


def _wired(bare: _Pattern, raw: bytes, wire: bytes, event_bytes_max: int) -> _Pattern | None:
    """The pattern with its framing around it: for server-sent events of one data line, and for NDJSON."""
    before = wire.find(raw)
    if before < 0:
        return None
    after = wire[before + len(raw) :]
    end = b"\r\n\r\n" if after.startswith(b"\r\n\r\n") else b"\n\n" if after.startswith(b"\n\n") else b""
    if end:
        parser = SseParser(event_bytes_max)
        parser.feed(b":\n\n")
        found = parser.feed(wire[: before + len(raw) + len(end)])
        if len(found) != 1 or found[0].raw != raw or found[0].event != bare.name or not parser.idle:
            return None
    elif before == 0 and bare.name == "message" and after.startswith((b"\n", b"\r\n")):
        end = after[: after.index(b"\n") + 1]
    else:
        return None
    *holes, last = bare.holes
    return bare._replace(
        head=wire[:before] + bare.head,
        holes=(*holes, last._replace(after=last.after + end)),
        before=before,
        behind=len(end),
    )


def _text_at(raw: bytes, at: int) -> tuple[int, int]:
    """(UTF-8 bytes of the JSON string whose inside begins here, where it ends); -1 if it is none, or empty."""
    found = _TEXT.match(raw, at)
    end = at if found is None else found.end()
    return (_decoded_size(raw[at:end]) if end > at else -1), end


def _decoded_size(piece: bytes) -> int:
    """UTF-8 bytes of the inside of a JSON string; -1 if it is none."""
    try:
        return len(orjson.loads(b'"' + piece + b'"').encode())
    except ValueError:
        return -1
