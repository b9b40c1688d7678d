"""``[[routes.example]]`` -> RouteExample: an answer of the provider, and what the route's meter must make of it.

The rule: exactly one of ``events`` (data of each event of a stream), ``body`` (a JSON answer) and ``file``.
"""

from pathlib import Path

from gatekeeper.config.gateway import RouteExample
from gatekeeper.config.kinds import choice, figure, flag, many, text, whole
from gatekeeper.config.reading import Table
from gatekeeper.meters.reading import Mark

_TYPES = {".sse": "text/event-stream", ".json": "application/json", ".ndjson": "application/x-ndjson"}


def read_examples(route: Table, directory: Path) -> tuple[RouteExample, ...]:
    """All examples of one route; files are relative to ``directory`` and are not opened here."""
    return tuple(_example(table, directory) for table in route.tables("example"))


def _example(table: Table, directory: Path) -> RouteExample:
    events = table.take("events", many(text), ())
    body = table.take("body", text, None)
    file = table.take("file", text, None)
    written = [key for key in ("events", "body", "file") if key in table.values]
    if len(written) != 1:
        hint = 'events = [\'{"usage": {"total_tokens": 87}}\', "[DONE]"]'
        table.file.complain(table.path, "an example has one of 'events', 'body' and 'file'", hint, at_key=True)
    nothing = table.take("unmeasured", flag, False)
    units = table.take("units", figure("a number of units"), None)
    if nothing == ("units" in table.values):
        hint = "units = 87, or unmeasured = true"
        table.file.complain(table.path, "an example says how many units it is worth", hint, at_key=True)
    key = "units" if "units" in table.values else "unmeasured"
    example = RouteExample(
        name=table.take("name", text, ""),
        units=None if nothing else units,
        mark=table.take("source", choice(Mark), None),
        body=_stream(events) if events else body.encode() if body is not None else None,
        file=directory / file if file is not None else None,
        content_type=table.take("content_type", text, _content_type(file, "events" in written)),
        content_encoding=table.take("content_encoding", text, "gzip" if (file or "").endswith(".gz") else None),
        status=table.take("status", whole(100, 599), 200),
        method=table.take("method", text, "POST"),
        request=table.take("request", lambda cell: text(cell).encode(), None),
        source=table.file.source,
        span=table.file.places.value((*table.path, key)),
    )
    table.finish()
    return example


def _stream(events: tuple[str, ...]) -> bytes:
    lines = ("".join(f"data: {line}\n" for line in event.split("\n")) for event in events)
    return "".join(f"{event}\n" for event in lines).encode()


def _content_type(file: str | None, is_stream: bool) -> str:
    if file is None:
        return _TYPES[".sse" if is_stream else ".json"]
    return _TYPES.get(Path(file.removesuffix(".gz")).suffix, "text/event-stream")
