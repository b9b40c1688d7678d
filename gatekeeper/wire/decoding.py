"""Content codings undone on the way, on a copy of the bytes that the client gets untouched (RFC 9110, 8.4).

The rule: never raises; what cannot be decoded, or decodes to far more than it should, ends in ``error`` and yields
nothing more. A body that stops before its coding ends is no error: what came counts.
"""

import re
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import brotli
import zstandard

# Prose packs 3-10 times, the most repetitive recorded streams about 40 times.
RATIO_MAX = 250
# Below this the ratio says nothing: a very regular body behind a few bytes of header.
_RATIO_FREE_BYTES = 4 * 1024 * 1024
# More than any model can answer: a meter that has read a gigabyte of text has lost its stream.
DECODED_BYTES_MAX = 1024 * 1024 * 1024
# Each coding multiplies the ratio of the others; nobody sends more than two.
_CODINGS_MAX = 3
# Each member costs a fresh inflater; real bodies have one, or one for each flush.
_MEMBERS_MAX = 100_000
# zstd has no output limit and can make 128 KiB of 4 bytes: small bites keep one call's output under 16 MiB.
_ZSTD_BITE = 512
# RFC 9659: the largest window that a server may use for Content-Encoding: zstd.
_ZSTD_WINDOW_MAX = 8 * 1024 * 1024
_PIECE_MAX = 1024 * 1024
_GZIP_START = b"\x1f\x8b"


class _Refused(Exception):
    """The bytes decode to more than they may."""


_BROKEN = (_Refused, zlib.error, brotli.error, zstandard.ZstdError, EOFError, MemoryError)


class Decoder:
    """Undoes a Content-Encoding, such as ``gzip`` or ``gzip, br``, piece by piece.

    ``error`` is None or says why nothing more comes: an unknown coding, broken bytes, or a bomb (more than
    ``ratio_max`` bytes out of one, or more than ``decoded_bytes_max`` in all).
    """

    __slots__ = ("_budget", "_stages", "error")

    def __init__(
        self, content_encoding: str, ratio_max: int = RATIO_MAX, *, decoded_bytes_max: int = DECODED_BYTES_MAX
    ) -> None:
        self.error: str | None = None
        self._budget = _Budget(ratio_max, decoded_bytes_max)
        self._stages: list[_Stage] = []
        names = [name for name in re.split(r"[,\s]+", content_encoding.lower()) if name not in ("", "identity")]
        if len(names) > _CODINGS_MAX:
            self.error = "too many content codings"
            return
        for name in reversed(names):
            stage = _STAGES.get(name)
            if stage is None:
                self.error = f"unknown content coding {name[:40]!r}"
                return
            self._stages.append(stage(self._budget))

    @property
    def identity(self) -> bool:
        """Whether nothing has to be undone."""
        return not self._stages and self.error is None

    def feed(self, chunk: bytes) -> bytes:
        """The decoded bytes that these complete; empty after an error."""
        if self.error is not None:
            return b""
        if not self._stages:
            return chunk
        self._budget.read += len(chunk)
        try:
            for stage in self._stages:
                chunk = stage.feed(chunk)
        except _BROKEN as error:
            self.error = f"broken content coding: {str(error)[:80]}"
            return b""
        return chunk

    def finish(self) -> bytes:
        """The end of the body. Every coding gives its bytes as they come, so nothing is left but a cut header."""
        return b""


class _Budget:
    """How much may come out: counts what went in, and judges what each stage has put out so far."""

    __slots__ = ("_bytes_max", "_ratio_max", "read")

    def __init__(self, ratio_max: int, bytes_max: int) -> None:
        self.read = 0
        self._ratio_max = ratio_max
        self._bytes_max = bytes_max

    def check(self, written: int) -> None:
        if written > self._bytes_max:
            raise _Refused("the decoded body is too large")
        if written > _RATIO_FREE_BYTES and written > self.read * self._ratio_max:
            raise _Refused("decompression bomb")


class _Stage(Protocol):
    def feed(self, chunk: bytes) -> bytes: ...


class _Inflate:
    """zlib's format, in the wrapper that ``wbits`` says. ``written`` goes on from the members before."""

    __slots__ = ("_budget", "_zlib", "written")

    def __init__(self, budget: _Budget, wbits: int, written: int = 0) -> None:
        self._budget = budget
        self._zlib = zlib.decompressobj(wbits)
        self.written = written

    def feed(self, chunk: bytes) -> bytes:
        pieces: list[bytes] = []
        while not self._zlib.eof:
            piece = self._zlib.decompress(chunk, _PIECE_MAX)
            pieces.append(piece)
            self.written += len(piece)
            self._budget.check(self.written)
            chunk = self._zlib.unconsumed_tail
            if not chunk and len(piece) < _PIECE_MAX:
                break
        return b"".join(pieces)

    @property
    def rest(self) -> bytes | None:
        """What followed the end of the coding; None before the end."""
        return self._zlib.unused_data if self._zlib.eof else None


class _Gzip:
    """One or more gzip members. What follows the last one and is no member is ignored, as browsers do."""

    __slots__ = ("_between", "_budget", "_member", "_members", "_over", "_written")

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self._member: _Inflate | None = _Inflate(budget, 31)
        self._members = 1
        self._written = 0
        self._between = b""  # after a member: the first byte of what may be another
        self._over = False

    def feed(self, chunk: bytes) -> bytes:
        out: list[bytes] = []
        while not self._over:
            if self._member is None:
                self._between += chunk
                if len(self._between) < len(_GZIP_START):
                    break
                self._over = not self._between.startswith(_GZIP_START)
                chunk, self._between = self._between, b""
                if not self._over:
                    self._open()
                continue
            out.append(self._member.feed(chunk))
            rest = self._member.rest
            if rest is None:
                break
            self._written, self._member, chunk = self._member.written, None, rest
        return b"".join(out)

    def _open(self) -> None:
        self._members += 1
        if self._members > _MEMBERS_MAX:
            raise _Refused("too many gzip members")
        self._member = _Inflate(self._budget, 31, self._written)


class _Deflate:
    """``deflate`` is zlib's format by the letter, and raw deflate by the habit of some servers."""

    __slots__ = ("_budget", "_held", "_inflate")

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self._held = b""
        self._inflate: _Inflate | None = None

    def feed(self, chunk: bytes) -> bytes:
        if self._inflate is None:
            chunk = self._held + chunk
            if len(chunk) < 2:
                self._held = chunk
                return b""
            wrapped = chunk[0] & 0x0F == 8 and int.from_bytes(chunk[:2]) % 31 == 0
            self._inflate = _Inflate(self._budget, 15 if wrapped else -15)
        return self._inflate.feed(chunk)


class _Brotli:
    __slots__ = ("_brotli", "_budget", "_written")

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self._written = 0
        self._brotli: Any = brotli.Decompressor()

    def feed(self, chunk: bytes) -> bytes:
        pieces: list[bytes] = []
        if chunk and self._brotli.is_finished():
            raise _Refused("bytes after the end")
        while not self._brotli.is_finished():
            piece = self._brotli.process(chunk, output_buffer_limit=_PIECE_MAX)
            pieces.append(piece)
            self._written += len(piece)
            self._budget.check(self._written)
            chunk = b""
            # It says that it can take more while it still holds output, after every 32 KiB: ask until nothing comes.
            if not piece and self._brotli.can_accept_more_data():
                break
        return b"".join(pieces)


class _Zstd:
    __slots__ = ("_budget", "_written", "_zstd")

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self._written = 0
        maker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
        self._zstd: Any = maker.decompressobj(read_across_frames=True)

    def feed(self, chunk: bytes) -> bytes:
        pieces: list[bytes] = []
        for at in range(0, len(chunk), _ZSTD_BITE):
            piece = self._zstd.decompress(chunk[at : at + _ZSTD_BITE])
            pieces.append(piece)
            self._written += len(piece)
            self._budget.check(self._written)
        return b"".join(pieces)


_STAGES: dict[str, Callable[[_Budget], _Stage]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
