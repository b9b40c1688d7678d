"""A trial as ``[[routes.example]]``: what was seen to be right is written down, and ``gatekeeper check`` keeps it so.

The rule: what is written reads back to the same bytes and the same units.
"""

import json

from gatekeeper.meters import Mark, Reading
from gatekeeper.money import plain
from gatekeeper.web.playground.trying import Trial

# A longer answer belongs into a file of its own.
INLINE_BYTES_MAX = 16 * 1024
_SUFFIXES = {
    "text/event-stream": ".sse",
    "application/x-ndjson": ".ndjson",
    "application/json": ".json",
    "application/vnd.amazon.eventstream": ".bin",
}
_DONE = "\n\n"


def example_toml(trial: Trial, reading: Reading, content_type: str) -> str:
    """A table for gateway.toml, to stand behind its route."""
    lines = ["[[routes.example]]", 'name = "from the playground"']
    events, text = _events(trial, content_type), _text(trial.body)
    if events is not None:
        lines += ["events = [", *(f"    {toml_text(event)}," for event in events), "]"]
    elif text is not None and not trial.content_encoding and len(trial.body) <= INLINE_BYTES_MAX:
        lines += [f"body = {toml_text(text)}", f"content_type = {toml_text(content_type)}"]
    else:
        kind = content_type.partition(";")[0].strip().lower()
        lines += ["# save the answer beside gateway.toml", f'file = "recorded{_SUFFIXES.get(kind, ".bin")}"']
        lines += [f"content_type = {toml_text(content_type)}"]
        if trial.content_encoding:
            lines.append(f"content_encoding = {toml_text(trial.content_encoding)}")
    if trial.status != 200:
        lines.append(f"status = {trial.status}")
    if trial.method != "POST":
        lines.append(f"method = {toml_text(trial.method)}")
    request = None if trial.request is None else _text(trial.request)
    if request is not None:
        lines.append(f"request = {toml_text(request)}")
    lines.append("unmeasured = true" if reading.units is None else f"units = {plain(reading.units)}")
    if reading.source is not Mark.MEASURED:
        lines.append(f'source = "{reading.source}"')
    return "\n".join(lines) + "\n"


def toml_text(text: str) -> str:
    """A TOML string of one line: a literal one where the text may stand in it, else with escapes (TOML 1.0)."""
    if "'" not in text and all(letter >= " " and letter != "\x7f" for letter in text):
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _events(trial: Trial, content_type: str) -> list[str] | None:
    """The data of the events, where the stream is made of nothing else: then it is easier to read."""
    text = _text(trial.body)
    plain_stream = content_type.partition(";")[0].strip().lower() == "text/event-stream" and not trial.content_encoding
    if text is None or not text or not plain_stream or len(trial.body) > INLINE_BYTES_MAX:
        return None
    blocks = text.removesuffix(_DONE).split(_DONE)
    if not all(block.startswith("data: ") and "\n" not in block and "\r" not in block for block in blocks):
        return None
    events = [block.removeprefix("data: ") for block in blocks]
    return events if "".join(f"data: {event}{_DONE}" for event in events) == text else None


def _text(body: bytes) -> str | None:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None
