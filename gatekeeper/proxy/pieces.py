"""A request body that streams up and may have to go to another upstream: that is possible until its first piece is
taken."""

from collections.abc import AsyncIterator


class Pieces:
    """The body, which knows whether it was begun."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.begun = False

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> bytes:
        self.begun = True
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """End what was begun."""
        close = getattr(self._pieces, "aclose", None)
        if self.begun and close is not None:
            await close()
