"""Content codings as servers apply them: one member, flushed as they go, and left open where the body is cut.

The rule: decoding gives back exactly the bytes that went in.
"""

import zlib
from collections.abc import Callable, Sequence

import brotli
import zstandard

CODINGS = ("gzip", "br", "zstd", "deflate")
# compress, flush in the middle, finish
_Coder = tuple[Callable[[bytes], bytes], Callable[[], bytes], Callable[[], bytes]]


def encoded(pieces: Sequence[bytes], coding: str, *, whole: bool) -> bytes:
    """The pieces in this coding, with a flush after each. Not ``whole``: the end of the coding is missing."""
    if coding == "":
        return b"".join(pieces)
    compress, flush, finish = _coder(coding)
    out = [part for piece in pieces for part in (compress(piece), flush())]
    return b"".join([*out, finish()] if whole else out)


def _coder(coding: str) -> _Coder:
    if coding == "br":
        br = brotli.Compressor(quality=3)
        return br.process, br.flush, br.finish
    if coding == "zstd":
        zstd = zstandard.ZstdCompressor(level=1).compressobj()
        return zstd.compress, lambda: bytes(zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)), zstd.flush
    packer = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    return packer.compress, lambda: packer.flush(zlib.Z_SYNC_FLUSH), packer.flush
