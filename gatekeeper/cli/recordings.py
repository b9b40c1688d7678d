"""Recorded responses in files, for ``meter`` and ``try``: the content type follows from the name."""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from gatekeeper.cli.output import STATUS
from gatekeeper.meters import Meter, Metering, Outcome, Reading, RequestView
from gatekeeper.wire.shapes import Shape

_TYPES = {
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
    ".bin": "application/vnd.amazon.eventstream",
    ".html": "text/html",
    ".txt": "text/plain",
}


@dataclass(frozen=True, slots=True)
class Recording:
    """A response as it came over the wire."""

    name: str
    body: bytes
    content_type: str
    content_encoding: str
    status: int = 200


def add_recording_flags(parser: argparse.ArgumentParser) -> None:
    """How a recorded response is to be read, and what was asked."""
    parser.add_argument("--content-type", metavar="T", help="default: from FILE's name")
    parser.add_argument("--content-encoding", metavar="E", help="default: gzip for .gz")
    parser.add_argument("--status", type=STATUS, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--request", type=Path, metavar="FILE", help="the body of the request")


def request_view(body: bytes | None, method: str = "POST") -> RequestView:
    """The request as expressions see it; ``model`` is what its JSON names."""
    try:
        asked = json.loads(body) if body is not None else None
    except (ValueError, RecursionError):
        asked = None
    model = asked.get("model") if isinstance(asked, dict) else None
    return RequestView(
        method=method,
        body=body,
        request_bytes=len(body or b""),
        model=model if isinstance(model, str) else None,
    )


def read_recording(name: str, content_type: str | None, content_encoding: str | None, status: int) -> Recording:
    """Reads FILE, or ``-`` for stdin. ``.sse``, ``.ndjson``, ``.json`` (each also with ``.gz``) name their type.
    Raises OSError."""
    body = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    suffixes = Path(name).suffixes
    encoding = content_encoding
    if encoding is None:
        encoding = "gzip" if suffixes[-1:] == [".gz"] else ""
    plain = [suffix for suffix in suffixes if suffix != ".gz"]
    guessed = _TYPES.get(plain[-1], "") if plain else ""
    return Recording(name, body, guessed if content_type is None else content_type, encoding, status)


def read_with(
    meters: dict[str, Meter],
    recording: Recording,
    request: RequestView,
    outcome: Outcome,
    chunk_bytes: int,
    shapes: tuple[Shape, ...] = (),
) -> dict[str, Reading]:
    """What meters say of a recording that arrives in pieces of ``chunk_bytes``; ``shapes`` are those of a Gateway."""
    return feed(Metering(meters, request, shapes=shapes), recording, outcome, chunk_bytes)


def feed(metering: Metering, recording: Recording, outcome: Outcome, chunk_bytes: int) -> dict[str, Reading]:
    """The readings of a metering after a recording that arrives in pieces."""
    headers = {"content-type": recording.content_type}
    metering.begin(recording.status, recording.content_type, recording.content_encoding, headers)
    for start in range(0, len(recording.body), chunk_bytes):
        metering.feed(recording.body[start : start + chunk_bytes])
    return metering.finish(outcome)
