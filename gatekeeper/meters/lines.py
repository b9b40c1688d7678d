"""The lines of a body, as it comes: for ``lines(allData)``.

The rule: a line ends at LF, one CR before it goes too; what follows the last LF is a line if it is not empty.
"""

from gatekeeper.wire.memory import PROCESS, EventMemory, Share


class LineCutter:
    """Cuts bytes into lines. A line over ``line_bytes_max``, or one that ``memory`` has no room for, is dropped and
    counted."""

    __slots__ = ("_held", "_max", "_over", "_share", "dropped")

    def __init__(self, line_bytes_max: int, *, memory: EventMemory = PROCESS) -> None:
        self.dropped = 0
        self._share = Share(memory)
        self._held = bytearray()
        self._max = line_bytes_max
        self._over = False

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that these bytes complete."""
        first, *more = chunk.split(b"\n")
        self._keep(first)
        made: list[str] = []
        for piece in more:
            self._end(made)
            self._keep(piece)
        if not self._share.fits(len(self._held)):
            self._drop()
        return made

    def finish(self) -> list[str]:
        """The last line, if it has no end."""
        made: list[str] = []
        if self._held or self._over:
            self._end(made)
        self._share.fits(0)
        return made

    def _keep(self, piece: bytes) -> None:
        if not self._over:
            self._held += piece
            if len(self._held) > self._max:
                self._drop()

    def _drop(self) -> None:
        self._held.clear()
        self._over = True
        self.dropped += 1

    def _end(self, made: list[str]) -> None:
        if not self._over:
            made.append(bytes(self._held).removesuffix(b"\r").decode("utf-8", "replace"))
        self._held.clear()
        self._over = False
