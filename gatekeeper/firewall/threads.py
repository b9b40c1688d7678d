"""The firewall for programs without asyncio: the same, in an event loop on a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.firewall.asking import AsyncFirewall, AsyncVerdict
from gatekeeper.firewall.verdict import Answered, Charged

T = TypeVar("T")


class Firewall:
    """``Firewall("gateway.toml").request(agent_id=..., model=..., tokens=...)``. Any thread may use it; ``close`` it,
    or use it in a ``with`` block. Not to be carried over a fork: make one in each process."""

    def __init__(self, config: str | Path | Gateway, *, clock: Clock | None = None) -> None:
        """Opens the ledger. Raises Mistakes for wrong files and Fault when the ledger cannot be opened."""
        self._inner = AsyncFirewall(config, clock=clock)
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gatekeeper firewall", daemon=True)
        self._thread.start()
        try:
            self._run(self._inner.__aenter__())
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Settle what is under way and close; closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._inner.__aexit__(None, None, None), self._loop).result()
        finally:
            self._stop()

    def request(
        self,
        *,
        agent_id: str | None = None,
        user_id: str | None = None,
        model: str | None = None,
        tokens: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        endpoint: str | None = None,
        customer_id: str | None = None,
    ) -> "Verdict":
        """See ``AsyncFirewall.request``."""
        asking = self._inner.request(
            agent_id=agent_id,
            user_id=user_id,
            model=model,
            tokens=tokens,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            endpoint=endpoint,
            customer_id=customer_id,
        )
        return Verdict(self, self._run(asking))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise RuntimeError("the firewall is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Verdict(Answered):
    """The answer to one question; see ``AsyncVerdict``."""

    def __init__(self, firewall: Firewall, inner: AsyncVerdict) -> None:
        super().__init__(inner._answer, inner.call_id)
        self._firewall = firewall
        self._inner = inner

    @property
    def lost(self) -> bool:
        """Whether the hold was closed by somebody else: stop, and settle."""
        return self._inner.lost

    def report(self, tokens: int) -> None:
        """See ``AsyncVerdict.report``."""
        self._inner.report(tokens)

    def settle(
        self,
        *,
        tokens: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        response: bytes | str | Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Charged:
        """See ``AsyncVerdict.settle``."""
        return self._firewall._run(
            self._inner.settle(
                tokens=tokens,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                response=response,
                content_type=content_type,
            )
        )

    def release(self) -> Charged:
        """See ``AsyncVerdict.release``."""
        return self._firewall._run(self._inner.release())
