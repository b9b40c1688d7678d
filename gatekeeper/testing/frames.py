"""Frames of Amazon's binary event stream (``application/vnd.amazon.eventstream``), as Bedrock sends them.

A frame: total length, headers' length, CRC of both (4 bytes each), headers, payload, CRC of all; source: the Smithy
specification of the format. The rule: it is written from the format's description, and shares no code with the reader.
"""

import struct
import zlib

_STRING = 7
# One header of every other kind that the format knows; real frames have strings only, and a reader must pass over all.
_ODD_HEADERS = (
    (0, b""), (1, b""), (2, b"\x01"), (3, b"\x01\x02"), (4, b"\x00\x00\x00\x07"), (5, b"\x07" * 8),
    (6, b"\x00\x02ab"), (8, b"\x00" * 8), (9, b"\x05" * 16),
)  # fmt: skip


def frame_of(event: str, payload: bytes, *, odd: bool = False) -> bytes:
    """One frame. ``event`` is its ``:event-type``; a name that ends in ``Exception`` makes it an exception. ``odd``:
    with headers of every type before those that count."""
    failed = event.endswith("Exception")
    strings = {
        ":exception-type" if failed else ":event-type": event,
        ":content-type": "application/json",
        ":message-type": "exception" if failed else "event",
    }
    headers = [_header(f"odd-{kind}", kind, value) for kind, value in _ODD_HEADERS] if odd else []
    headers += [_header(name, _STRING, struct.pack(">H", len(text)) + text.encode()) for name, text in strings.items()]
    block = b"".join(headers)
    prelude = struct.pack(">II", 4 + 4 + 4 + len(block) + len(payload) + 4, len(block))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return head + struct.pack(">I", zlib.crc32(head))


def _header(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack(">B", len(name)) + name.encode() + struct.pack(">B", kind) + value
