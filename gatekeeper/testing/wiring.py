"""From a script to the bytes on the wire: framing, line ends, comments, where it breaks off, and the content coding.

The rule: a step has arrived when the last byte of its JSON has; everything that is drawn here changes no truth, except
the cut, whose truth is that of the last step that has arrived.
"""

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.meters import Outcome
from gatekeeper.testing.encoding import CODINGS, encoded
from gatekeeper.testing.frames import frame_of
from gatekeeper.testing.script import Framing, Script, Step, Switches, Usage
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.writing import as_json, rarely

_BOM = "\ufeff"
_CUT_ONE_IN = 4
_CHUNKS_MAX = 4


def chunkings() -> SearchStrategy[tuple[int, ...]]:
    """Sizes of pieces for ``ProviderStream.pieces``: whole, one size, or a few that repeat."""
    sizes = st.integers(1, 16) | st.integers(1, 4_096)
    several = st.lists(sizes, min_size=2, max_size=_CHUNKS_MAX)
    return st.one_of(st.just(()), sizes.map(lambda size: (size,)), several.map(tuple))


@dataclass(frozen=True, slots=True)
class _Part:
    """A step's bytes; ``arrived`` is how many of them make its JSON complete."""

    raw: bytes
    arrived: int


@dataclass(frozen=True, slots=True)
class _Style:
    newline: str
    space: str
    spaced: bool
    ascii_only: bool
    data_first: bool
    tail: str


def draw_stream(draw: DrawFn, script: Script, switches: Switches) -> ProviderStream:
    """The script as a response."""
    notes = list(script.notes)
    first, parts, last = _body(draw, script, switches, notes)
    pieces = [first, *(part.raw for part in parts), last]
    plain = b"".join(pieces)
    usage, outcome = script.steps[-1].usage, Outcome.COMPLETE
    if switches.cuts and script.status == 200 and rarely(draw, _CUT_ONE_IN):
        at = draw(st.integers(0, len(plain)) | st.sampled_from(_edges(parts, len(first))))
        known = _known(script.steps, parts, len(first), at)
        if switches.allow(known, script.says):
            usage, outcome, plain = known, Outcome.CUT, plain[:at]
            notes.append("cut")
    coding = draw(st.sampled_from(("", "", "", *CODINGS))) if switches.encodings else ""
    flushed = _upto(pieces, len(plain)) if coding and draw(st.booleans()) else [plain]
    return ProviderStream(
        dialect=script.dialect,
        vendor=script.vendor,
        bytes=encoded(flushed, coding, whole=outcome is Outcome.COMPLETE),
        plain=plain,
        content_type=script.content_type,
        content_encoding=coding,
        usage=usage,
        streamed=script.framing is not Framing.JSON,
        note=", ".join(notes),
        status=script.status,
        outcome=outcome,
        says=script.says,
    )


def _edges(parts: list[_Part], start: int) -> list[int]:
    """Where a cut is most telling: a byte before a step has arrived, and when it just has."""
    edges: list[int] = []
    for part in parts:
        edges += (start + part.arrived - 1, start + part.arrived)
        start += len(part.raw)
    return edges


def _known(steps: tuple[Step, ...], parts: list[_Part], start: int, cut: int) -> Usage | None:
    """The truth of the first ``cut`` bytes."""
    usage = None
    for step, part in zip(steps, parts, strict=True):
        if start + part.arrived > cut:
            break
        usage = step.usage
        start += len(part.raw)
    return usage


def _upto(pieces: list[bytes], length: int) -> list[bytes]:
    kept = []
    for piece in pieces:
        kept.append(piece[:length])
        length -= len(kept[-1])
    return kept


def _body(draw: DrawFn, script: Script, switches: Switches, notes: list[str]) -> tuple[bytes, list[_Part], bytes]:
    """What stands before the steps, the steps, and what follows them."""
    style = _style(draw, script, switches, notes)
    if script.framing is Framing.SSE:
        return _sse(draw, script, switches, style, notes)
    if script.framing is Framing.FRAMES:
        return b"", [_frame(draw, step, script, style, switches) for step in script.steps], b""
    texts = [_text(step, script, style) for step in script.steps]
    if script.framing is Framing.LINES:
        parts = [_part("", text, style.newline) for text in texts]
        parts[-1] = _part("", texts[-1], "" if style.tail == "open" else style.newline)
        return b"", parts, b""
    if script.framing is Framing.ARRAY:
        between = f"{style.newline},{style.newline}"
        parts = [_part("" if at == 0 else between, text, "") for at, text in enumerate(texts)]
        return b"[", parts, b"" if style.tail == "open" else f"{style.newline}]".encode()
    before = "\n" * draw(st.integers(1, 3)) if script.habits.blank_lines_first and draw(st.booleans()) else ""
    part = _part("", texts[0], draw(st.sampled_from(("", "\n"))))
    if isinstance(script.steps[0].value, list):
        # Its only item has arrived before the bracket has.
        part = _Part(part.raw, len(texts[0].removesuffix("]").rstrip().encode()))
    return before.encode(), [part], b""


def _style(draw: DrawFn, script: Script, switches: Switches, notes: list[str]) -> _Style:
    habits = script.habits
    if not switches.noise:
        return _Style(habits.newline, "" if habits.close else " ", habits.spaced, False, habits.data_first, "whole")
    ends = ("\n", "\r\n", "\r") if script.framing is Framing.SSE else ("\n", "\r\n")
    newline = draw(st.sampled_from((habits.newline, *(end for end in ends if end != habits.newline))))
    tail = draw(st.sampled_from(("whole", "whole", "line", "open")))
    if script.framing is Framing.ARRAY and tail == "open":
        tail = "whole"
    if newline != habits.newline:
        notes.append(f"line ends {newline!r}")
    if tail != "whole" and script.framing in (Framing.SSE, Framing.LINES):
        notes.append("no blank line at the end" if tail == "line" else "no line end at the end")
    return _Style(
        newline=newline,
        space=draw(st.sampled_from((" ", " ", ""))),
        spaced=habits.spaced != draw(st.booleans()),
        ascii_only=draw(st.booleans()),
        data_first=habits.data_first,
        tail=tail,
    )


def _text(step: Step, script: Script, style: _Style) -> str:
    if isinstance(step.value, str):
        return step.value
    indented = script.habits.indented and script.framing is not Framing.SSE
    return as_json(step.value, spaced=style.spaced, ascii_only=style.ascii_only, indented=indented)


def _frame(draw: DrawFn, step: Step, script: Script, style: _Style, switches: Switches) -> _Part:
    """A binary frame: it has arrived with the last byte of its checksum."""
    raw = frame_of(step.event, _text(step, script, style).encode(), odd=switches.noise and rarely(draw, 8))
    return _Part(raw, len(raw))


def _part(before: str, payload: str, after: str) -> _Part:
    start = (before + payload).encode()
    return _Part(start + after.encode(), len(start))


def _sse(
    draw: DrawFn, script: Script, switches: Switches, style: _Style, notes: list[str]
) -> tuple[bytes, list[_Part], bytes]:
    n, habits, count = style.newline, script.habits, len(script.steps)
    before = [""] * count
    first = last = ""
    if switches.noise:
        if rarely(draw, 6):
            first = _BOM
            notes.append("BOM")
        for at in draw(st.lists(st.integers(0, count), max_size=3)):
            blank = draw(st.sampled_from((n, "")))
            comment = f": {habits.comment}{n}{blank}" if draw(st.booleans()) else f":{n}{blank}"
            if at < count:
                before[at] += comment
            elif style.tail == "whole":
                last += comment
    parts = []
    for at, (step, comments) in enumerate(zip(script.steps, before, strict=True)):
        end = n + n if at < count - 1 or style.tail == "whole" else n if style.tail == "line" else ""
        text = _text(step, script, style)
        if step.outside:
            parts.append(_part(comments, text.replace("\n", n), end))
            continue
        name = f"event: {step.event}{n}" if step.event else ""
        if habits.ids:
            name = f"id: {habits.ids.format(at=at)}{n}{name}"
        # Text that is no JSON may have several lines.
        text = text.replace("\n", f"{n}data:{style.space}")
        padded = " " * draw(st.integers(0, 15)) if habits.padded else ""
        if style.data_first and name and end == n + n:
            parts.append(_part(f"{comments}data:{style.space}", text, padded + n + name + n))
        else:
            parts.append(_part(f"{comments}{name}data:{style.space}", text, padded + end))
    return first.encode(), parts, last.encode()
