"""How these tests read a response: one expression, one body, in pieces of any size."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gatekeeper.meters import Context, Meter, Metering, Outcome, Reading, RequestView, compile_meter

SSE = "text/event-stream"
FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"


def sse(*payloads: str) -> bytes:
    """A stream of events with these data."""
    return "".join(f"data: {payload}\n\n" for payload in payloads).encode()


def pieces(body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The body cut into pieces of these sizes, again and again; an empty list cuts nothing."""
    if not sizes:
        return [body]
    made, at, turn = [], 0, 0
    while at < len(body):
        size = max(1, sizes[turn % len(sizes)])
        made.append(body[at : at + size])
        at, turn = at + size, turn + 1
    return made


@lru_cache(maxsize=64)
def compiled(expression: str, context: Context, buffer_bytes_max: int) -> Meter:
    """Most tests read with one expression several times."""
    return compile_meter(expression, context=context, buffer_bytes_max=buffer_bytes_max)


def read(
    expression: str,
    body: bytes = b"",
    content_type: str = SSE,
    *,
    sizes: Sequence[int] = (),
    request: RequestView | None = None,
    context: Context = Context.TRIAL,
    status: int = 200,
    encoding: str = "",
    headers: Mapping[str, str] | None = None,
    outcome: Outcome = Outcome.COMPLETE,
    buffer_bytes_max: int = 0,
    **how: Any,
) -> Reading:
    """What the expression says of a response."""
    meter = compiled(expression, context, buffer_bytes_max)
    metering = Metering({"m": meter}, request or RequestView(), **how)
    metering.begin(status, content_type, encoding, headers or {"content-type": content_type})
    for piece in pieces(body, sizes):
        metering.feed(piece)
    return metering.finish(outcome, duration_ms=1200, first_byte_ms=300)["m"]


def result(reading: Reading) -> Any:
    """The plain result: a number as int or string of its digits, else the value that is shown."""
    from gatekeeper.meters.evidence import plain_json

    if reading.value is not None and set(reading.value) == {"value"}:
        return reading.value["value"]
    return plain_json(reading.units) if reading.value is None else dict(reading.value)
