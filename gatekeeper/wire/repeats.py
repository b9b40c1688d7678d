"""Events that repeat the one before them but for a few texts and numbers: nearly all of nearly every stream.

The rule: it changes nothing. An event is known only if its bytes are those of a learned event except in values at keys
which decide nothing (``pattern``); so its JSON has the same structure, and what usage and signals make of it follows
from the learned event and the lengths of its texts.
"""

import re
from typing import Literal

from gatekeeper.wire.events import Event
from gatekeeper.wire.pattern import COUNT, Hole, Pattern, decoded_size, is_ascii
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
_DIGITS = re.compile(rb"[0-9]+")
_KEY_BEFORE = re.compile(rb'"([^"]*)"\s*:\s*\Z')
# What is longer as JSON than as text: arguments of tool calls are counted as JSON.
_LONGER = b'x\\n\\"\\\\'
_LONGER_BYTES = 4


class Repeats:
    """Beside a UsageFold and the Signals of one response, which it feeds."""

    __slots__ = (
        "_bytes_max", "_fold", "_known", "_misses", "_plain", "_sample", "_signals", "_tries", "count", "unframed",
    )  # fmt: skip

    def __init__(self, fold: UsageFold, signals: Signals, event_bytes_max: int) -> None:
        self.count = 0  # events in what ``skim`` has taken last
        self.unframed = False  # events are known, but not yet as they come over the wire
        self._fold = fold
        self._signals = signals
        self._bytes_max = event_bytes_max
        self._known: Pattern | None = None
        self._plain: tuple[bytes, bytes, int, int] | None = None  # the same as it comes over the wire, if it is so
        self._sample: tuple[bytes, str, Row | Literal[False] | None] | None = None
        self._tries = _TRIES_MAX
        self._misses = -_EVENTS_BEFORE

    def skim(self, chunk: bytes) -> int:
        """Takes in the events at the beginning of a chunk that are known; how many bytes they are. Only between two
        events."""
        plain = self._plain
        if plain is not None:
            # One event with one text of ASCII: by far the commonest chunk, so it goes the shortest way.
            head, tail, fixed, text = plain
            rest = chunk.removeprefix(head).removesuffix(tail)
            size = len(rest)
            if size + fixed == len(chunk) <= self._bytes_max and is_ascii(rest) is not None:
                self.count = 1
                self._misses = 0
                self._signals.text_bytes += text + size
                return size + fixed
        pattern = self._known
        if pattern is None or not pattern.end_bytes:
            return 0
        size = len(chunk)
        if size > self._bytes_max:
            return self._skim_one_by_one(pattern, chunk)
        # Two events are never mistaken for one: there is a bare quote between them.
        text = pattern.one(chunk) if size < 2 * pattern.fixed_bytes else -1
        if text >= 0:
            self.count = 1
            last = b"" if pattern.row is None else chunk[pattern.before : size - pattern.end_bytes]
        else:
            self.count, text, size, last = pattern.many(chunk)
            if not size:
                return self._skim_one_by_one(pattern, chunk)
        self._misses = 0
        self._signals.text_bytes += text
        if pattern.row is not None:
            self._fold.pend(pattern.row, last)  # each replaces the one before it
        return size

    def _skim_one_by_one(self, pattern: Pattern, chunk: bytes) -> int:
        """The known events before one that is not."""
        at = self.count = 0
        while True:
            end, text = pattern.first(chunk, at)
            if end < 0 or end - at > self._bytes_max:
                return at
            self._misses = 0
            self._signals.text_bytes += text
            if pattern.row is not None:
                self._fold.pend(pattern.row, chunk[at + pattern.before : end - pattern.end_bytes])
            at = end
            self.count += 1

    def knows(self, event: Event) -> bool:
        """Whether this event was known and is taken in."""
        pattern = self._known
        if pattern is None or event.event != pattern.name:
            return False
        raw = event.raw
        text = pattern.bare(raw) if len(raw) <= self._bytes_max else -1
        if text < 0:
            return False
        self._misses = 0
        self._signals.text_bytes += text
        if pattern.row is not None:
            self._fold.pend(pattern.row, raw)
        return True

    # -- learning --------------------------------------------------------------------------------------------------

    def read(self, event: Event) -> bool:
        """Takes in an event that is not known, and learns from it. True: from now on events like this one are known."""
        fold, signals = self._fold, self._signals
        fold.feed(event)
        signals.feed(event)
        self._misses += 1
        # One odd event between known ones is no reason to learn anew.
        if self._misses < 2 or not self._tries or not signals.settled:
            return False
        raw = event.raw
        if len(raw) > _SAMPLE_BYTES_MAX or b"\\" in raw or fold.said is False:
            self._sample = None
            return False
        before, self._sample = self._sample, (raw, event.event, fold.said)
        if before is None or before[1:] != self._sample[1:]:
            return False
        self._tries -= 1
        learned = self._learned(before[0], raw, event.event, fold.said or None)
        if learned is None:
            return False
        self._known, self._plain, self._sample, self.unframed = learned, None, None, True
        return True

    def learn_framing(self, event: Event, wire: bytes, *, lines: bool = False) -> None:
        """An event that is known began this chunk: from now on events like it are skimmed, if they can be. With no
        bytes they are not, until others are learned: somebody has to see them. ``lines``: NDJSON, where a line is an
        event; among server-sent events it is a stray one."""
        self.unframed = False
        if not wire or self._known is None:
            return
        wire = wire[: 2 * _SAMPLE_BYTES_MAX]
        framed = _wired_line if lines else _wired
        found = framed(self._known, event.raw, wire, self._bytes_max)
        if found is not None:
            self._known, self._plain = found, found.plain

    def _learned(self, old: bytes, raw: bytes, name: str, row: Row | None) -> Pattern | None:
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
            # A number may be nothing, or have another length.
            others = [pieces[number] + _LONGER] if is_text else [b"0", b"1" * (1 + len(pieces[number]) % 9)]
            grown = {self._judged(name, parts, [*pieces[:number], one, *pieces[number + 1 :]]) for one in others}
            found = grown.pop()
            more = None if found is None or grown else found - plain
            if more not in (0, _LONGER_BYTES) or (more and not is_text):
                return None
            size = decoded_size(pieces[number]) if is_text else 0
            if size < 0:
                return None  # bytes that are no UTF-8
            text_bytes -= size if more else 0
            holes.append(Hole(is_text, bool(more), parts[number + 1] if number < len(cuts) - 1 else b""))
        return Pattern(name, parts[0], tuple(holes), parts[-1], text_bytes, row)

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
    return spans if all(COUNT.match(other, start - at) for start, _, _ in spans) else None


def _is_free(before: bytes, is_text: bool, deciding: frozenset[str]) -> bool:
    """Whether the value that begins here stands at a key that decides nothing."""
    found = _KEY_BEFORE.search(before[:-1] if is_text else before)
    return found is not None and found[1] not in _DECIDE and found[1].decode("utf-8", "replace") not in deciding


def _wired(bare: Pattern, raw: bytes, wire: bytes, event_bytes_max: int) -> Pattern | None:
    """The pattern with its framing around it: for server-sent events of one data line."""
    before = wire.find(raw)
    after = wire[before + len(raw) :]
    end = b"\r\n\r\n" if after.startswith(b"\r\n\r\n") else b"\n\n" if after.startswith(b"\n\n") else b""
    if before < 0 or not end:
        return None
    parser = SseParser(event_bytes_max)
    parser.feed(b":\n\n")
    found = parser.feed(wire[: before + len(raw) + len(end)])
    if len(found) != 1 or found[0].raw != raw or found[0].event != bare.name or not parser.idle:
        return None
    # What stands outside of all events is kept by who reads it: the last of it may say that the answer failed.
    return None if parser.tail else bare.framed(wire[:before], end)


def _wired_line(bare: Pattern, raw: bytes, wire: bytes, event_bytes_max: int) -> Pattern | None:
    """The same for NDJSON."""
    end = b"\r\n" if wire.startswith(b"\r\n", len(raw)) else b"\n"
    fits = bare.name == "message" and len(raw) + len(end) <= event_bytes_max and wire.startswith(raw + end)
    return bare.framed(b"", end) if fits else None
