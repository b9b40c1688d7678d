"""One learned event, and whether other bytes say the same: all of it fixed, but for a few texts and numbers.

The rule: bytes match only if they are those of the learned event except inside string values (that stay strings, not
empty) and whole numbers (that stay such). Fixed parts are compared whole, so one event costs a few calls into C.
"""

import re
from typing import NamedTuple

import orjson

from gatekeeper.wire.record import Row

# Nearly every text: as many bytes as it has letters, and no escape.
is_ascii = re.compile(rb"[ !#-\[\]-~]+").fullmatch
# The inside of a JSON string, and a number that is a count.
_TEXT = re.compile(rb'[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*')
COUNT = re.compile(rb"(?:0|[1-9][0-9]{0,16})(?![0-9.eE])")
_COUNT_DIGITS_MAX = 17
_ZERO = 48
_COUNTS = re.compile(rb"(?:0|[1-9][0-9]{0,16})(?:,(?:0|[1-9][0-9]{0,16}))*")


class Hole(NamedTuple):
    """What may change, whether it counts as text, and the bytes between it and the next one (none after the last)."""

    is_text: bool
    counts: bool
    after: bytes


class Pattern:
    """A learned event: ``head``, then the holes, then ``tail``, the last ``end_bytes`` of which are its framing;
    ``before`` is how much of ``head`` stands before the payload. ``text_bytes``: its text outside of the holes;
    ``row``: the shape of usage that it speaks in, if it does."""

    __slots__ = ("before", "end_bytes", "fixed_bytes", "head", "holes", "name", "row", "tail", "text_bytes")

    def __init__(
        self, name: str, head: bytes, holes: tuple[Hole, ...], tail: bytes, text_bytes: int, row: Row | None,
        before: int = 0, end_bytes: int = 0,
    ) -> None:  # fmt: skip
        self.name = name
        self.head = head
        self.holes = holes
        self.tail = tail
        self.text_bytes = text_bytes
        self.row = row
        self.before = before
        self.end_bytes = end_bytes
        self.fixed_bytes = len(head) + len(tail) + sum(len(hole.after) for hole in holes)

    @property
    def plain(self) -> tuple[bytes, bytes, int, int] | None:
        """(what stands before the text, behind it, the size of both, the text outside of it), where there is but one
        text, and it counts: the commonest event of all."""
        one = len(self.holes) == 1 and self.holes[0].is_text and self.holes[0].counts and self.row is None
        return (self.head, self.tail, self.fixed_bytes, self.text_bytes) if one else None

    def framed(self, before: bytes, end: bytes) -> "Pattern":
        """The same event with its framing around it."""
        return Pattern(
            self.name, before + self.head, self.holes, self.tail + end, self.text_bytes, self.row, len(before), len(end)
        )  # fmt: skip

    def bare(self, payload: bytes) -> int:
        """``one`` of a payload alone."""
        if self.end_bytes:
            payload = self.head[: self.before] + payload + self.tail[-self.end_bytes :]
        return self.one(payload)

    def one(self, raw: bytes) -> int:
        """The text in these bytes if they are one such event and nothing else; else -1."""
        rest = raw.removeprefix(self.head).removesuffix(self.tail)
        left = len(raw) - self.fixed_bytes
        if len(rest) < left:
            return -1
        text = self.text_bytes
        for is_text, counts, after in self.holes:
            # A string that is one to its end holds no bare quote, so the first place of what follows is the only one.
            if after:
                piece, _, rest = rest.partition(after)
            else:
                piece = rest
            size = len(piece)
            left -= size
            if is_text:
                if is_ascii(piece) is None:
                    size = decoded_size(piece)
                    if size <= 0:
                        return -1
                if counts:
                    text += size
            elif not piece.isdigit() or size > _COUNT_DIGITS_MAX or (size > 1 and piece[0] == _ZERO):
                return -1
        return -1 if left else text

    def many(self, raw: bytes) -> tuple[int, int, int, bytes]:
        """(how many, their text, their bytes, the last one's payload) if all events of these bytes are such ones, but
        for an unfinished one behind them; else none."""
        size = len(self.tail) - self.end_bytes
        head, tail, end = self.head, self.tail[:size], self.tail[size:]
        # From the end it is a third faster (measured); where it would cut elsewhere, no event is one of these.
        events = raw.rsplit(end)
        rest = events.pop()
        count = len(events)
        size = len(raw) - len(rest)
        if not count:
            return _NONE
        rests = [event.removeprefix(head).removesuffix(tail) for event in events]
        text = self.text_bytes * count
        left = size - self.fixed_bytes * count
        for is_text, counts, after in self.holes:
            column = rests
            if after:
                parted = [each.partition(after) for each in rests]
                column, rests = [piece for piece, _, _ in parted], [more for _, _, more in parted]
            joined = b"".join(column)
            left -= len(joined)
            found = _texts(column, joined) if is_text else _counts(column, joined)
            if found < 0:
                return _NONE
            if counts:
                text += found
        # Each step takes away at most its fixed part: none is left only if all of them were there.
        return _NONE if left else (count, text, size, events[-1][self.before :])

    def first(self, raw: bytes, start: int) -> tuple[int, int]:
        """(where the event ends that starts here, its text), whatever follows; -1 if it is another one."""
        if not raw.startswith(self.head, start):
            return -1, 0
        at = start + len(self.head)
        text = self.text_bytes
        for is_text, counts, after in self.holes:
            found = (_TEXT if is_text else COUNT).match(raw, at)
            behind = after or self.tail
            if found is None or not raw.startswith(behind, found.end()):
                return -1, 0
            size = decoded_size(found[0]) if is_text else 0
            if is_text and size <= 0:
                return -1, 0
            if counts:
                text += size
            at = found.end() + len(behind)
        return at, text


_NONE = (0, 0, 0, b"")


def _texts(column: list[bytes], joined: bytes) -> int:
    """UTF-8 bytes of the strings whose insides these are; -1 if one is none, or empty."""
    if b"" in column:
        return -1
    if is_ascii(joined) is not None:
        return len(joined)
    # No escape, and no letter of several bytes, goes across a space: what is one string with them is a string each.
    found = decoded_size(b" ".join(column))
    return found if found < 0 else found - (len(column) - 1)


def _counts(column: list[bytes], joined: bytes) -> int:
    """0 if all of these are counts, else -1."""
    # No comma may stand in one of them: it would make two of it.
    return 0 if joined.isdigit() and _COUNTS.fullmatch(b",".join(column)) is not None else -1


def decoded_size(piece: bytes) -> int:
    """UTF-8 bytes of the inside of a JSON string; -1 if it is none."""
    try:
        return len(orjson.loads(b'"' + piece + b'"').encode())
    except ValueError:
        return -1
