"""What an expression may see of a request."""

from collections.abc import Iterator, Mapping

from gatekeeper.meters import RequestView
from gatekeeper.ports import Holder, RawHeaders
from gatekeeper.proxy.call import Call
from gatekeeper.rules.requests import Ask

# What can carry a key or a session is not for expressions: evidence is stored.
SECRET_HEADERS = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"x-goog-api-key",
        b"api-key",
        b"x-admin-key",
        b"cookie",
    }
)


class _Readable(Mapping[str, str]):
    """Headers as an expression reads them, made when one does: few do."""

    __slots__ = ("_made", "_raw")

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw
        self._made: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._made is None:
            self._made = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in self._raw
                if name.lower() not in SECRET_HEADERS
            }
        return self._made

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def request_view(
    call: Call,
    holder: Holder,
    ask: Ask,
    body: bytes | None,
    user_id: str | None,
    agent_id: str | None,
    request_bytes: int,
) -> RequestView:
    """What an expression may see of the request. Headers that can carry a key or a session are left out."""
    return RequestView(
        method=call.method,
        path=call.path.decode("latin-1"),
        query=call.credentials.query.decode("latin-1"),
        headers=_Readable(call.headers),
        body=body,
        request_bytes=request_bytes,
        model=ask.model,
        customer_id=holder.customer.id,
        user_id=user_id,
        agent_id=agent_id,
        plan_id=holder.customer.plan_id,
        key_id=holder.key.id or None,
        started_at_ms=call.started_ms,
    )
