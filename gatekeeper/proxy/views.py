"""What an expression may see of a request."""

from gatekeeper.meters import RequestView
from gatekeeper.ports import Holder
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
        headers={
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in call.headers
            if name.lower() not in SECRET_HEADERS
        },
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
