"""A response that a provider could have sent, together with what it costs.

The rule: the truth comes from how the response was made up, never from reading it back.
"""

import builtins
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatekeeper.meters import Outcome

# What `gatekeeper meter --stream` takes from a file's name.
_SUFFIXES = {
    "text/event-stream": ".sse",
    "application/x-ndjson": ".ndjson",
    "application/stream+json": ".ndjson",
    "application/json": ".json",
    "application/vnd.amazon.eventstream": ".bin",
    "text/plain": ".txt",
    "audio/mpeg": ".mp3",
}
_NAMED = {".sse": "text/event-stream", ".ndjson": "application/x-ndjson", ".json": "application/json"}
# A terminal shows this much; the file holds all of it.
_SHOWN_CHARACTERS_MAX = 4_000


@dataclass(frozen=True)
class ProviderStream:
    """One response, streamed or not.

    ``bytes`` is the body as it crosses the wire (with its content coding), ``plain`` the same decoded. ``usage`` is
    the truth, in the shape of the language's ``usage()``: ``input``, ``output`` and ``total`` are always in it (None:
    the response does not say), other counts where the provider wrote them; None where nothing speaks of usage.
    ``outcome`` is ``cut`` where the connection broke: then the truth is that of the part which arrived. ``note`` says
    what is special about it. ``says`` is the count that such an answer tells at most: mostly ``total``, but ``output``,
    ``seconds`` or ``requests`` where its endpoint never tells a total, and "" where it tells nothing at all.
    """

    dialect: str
    vendor: str
    bytes: builtins.bytes = field(repr=False)
    plain: builtins.bytes = field(repr=False)
    content_type: str
    content_encoding: str
    usage: Mapping[str, Any] | None
    streamed: bool
    note: str = ""
    status: int = 200
    outcome: Outcome = Outcome.COMPLETE
    says: str = "total"

    @property
    def says_total(self) -> bool:
        """Whether the truth holds a total."""
        return self.usage is not None and self.usage["total"] is not None

    @property
    def says_usage(self) -> bool:
        """Whether the truth holds the count that such an answer tells at most."""
        return self.usage is not None and self.usage.get(self.says) is not None

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers, as far as they matter here."""
        coded = {"content-encoding": self.content_encoding} if self.content_encoding else {}
        return {"content-type": self.content_type, **coded}

    def pieces(self, sizes: Sequence[int] = ()) -> list[builtins.bytes]:
        """The body cut into pieces of these sizes, over and over; without sizes it stays whole."""
        if not sizes:
            return [self.bytes] if self.bytes else []
        made: list[builtins.bytes] = []
        at = 0
        while at < len(self.bytes):
            size = max(1, sizes[len(made) % len(sizes)])
            made.append(self.bytes[at : at + size])
            at += size
        return made

    @property
    def text(self) -> str:
        """The decoded body for people: carriage returns, a BOM and other unseen characters are spelled out."""
        shown = self.plain.decode("utf-8", "backslashreplace")
        if len(shown) > _SHOWN_CHARACTERS_MAX:
            half = _SHOWN_CHARACTERS_MAX // 2
            shown = f"{shown[:half]}\n... {len(shown) - 2 * half} characters ...\n{shown[-half:]}"
        return re.sub(r"[^\S \n]|[\x00-\x08\x0e-\x1f\x7f\ufeff]", lambda found: ascii(found.group())[1:-1], shown)

    def describe(self) -> str:
        """One line: dialect, head, how it ended, and what is special."""
        coding = f", {self.content_encoding}" if self.content_encoding else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.dialect}/{self.vendor}: {self.status} {self.content_type}{coding}, {self.outcome}{note}"

    # -- as a file -------------------------------------------------------------------------------------------------

    @property
    def suffix(self) -> str:
        """How the name of a file with this body ends, so that ``gatekeeper meter --stream`` knows what is in it."""
        kind = self.content_type.partition(";")[0].strip()
        return _SUFFIXES.get(kind, ".bin") + (".gz" if self.content_encoding == "gzip" else "")

    def save(self, path: Path) -> Path:
        """Writes the body; the suffix is added unless the name has it. Gives the file's path. Raises OSError."""
        if not path.name.endswith(self.suffix):
            path = path.with_name(path.name + self.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.bytes)
        return path

    def replay_command(self, expression: str, file: str, chunk_bytes: int | None = None) -> str:
        """The command line that reads ``file`` again as this response was read."""
        words = ["gatekeeper", "meter", expression, "--stream", file]
        if _NAMED.get(self.suffix.removesuffix(".gz")) != self.content_type:
            words += ["--content-type", self.content_type]
        if self.content_encoding not in ("", "gzip"):
            words += ["--content-encoding", self.content_encoding]
        if self.status != 200:
            words += ["--status", str(self.status)]
        if self.outcome is not Outcome.COMPLETE:
            words += ["--outcome", str(self.outcome)]
        if chunk_bytes is not None:
            words += ["--chunk", str(chunk_bytes)]
        return shlex.join(words)
