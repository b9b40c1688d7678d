"""Where Stripe's events arrive. The rule: the body is taken as it came, bounded, and only kept; 200 means that it is on
the disk, and whatever else is answered has Stripe send it again."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.errors import Code, Refusal
from gatekeeper.web.answers import BODY_BYTES_MAX, json_answer
from gatekeeper.web.openapi import routes_of
from gatekeeper.web.openapi.billing import WEBHOOKS

# Keeps a body with its Stripe-Signature; False: it is known. Raises Refusal and Fault.
Receive = Callable[[bytes, str | None], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class StripeWebhooks:
    """``receive`` None: Stripe is not enabled."""

    receive: Receive | None = None

    def routes(self) -> list[BaseRoute]:
        """The table of URLs, for ``web.app``."""
        return routes_of(WEBHOOKS, self)

    async def take(self, request: Request) -> Response:
        """200 when it is kept, 400 for what is none, 5xx when it cannot be kept."""
        if self.receive is None:
            raise Refusal(Code.NOT_FOUND, "Stripe is not enabled here.")
        size, pieces = 0, []
        async for piece in request.stream():
            size += len(piece)
            if size > BODY_BYTES_MAX:
                raise Refusal(Code.BODY_TOO_LARGE)
            pieces.append(piece)
        new = await self.receive(b"".join(pieces), request.headers.get("stripe-signature"))
        return json_answer({"received": True, "new": new})
