"""What every page of the portal reads and writes with."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.ports import Customer
from gatekeeper.ports.mail import Mail
from gatekeeper.web.gate import actor_of
from gatekeeper.web.pages.desk import Desk

# What a page says after a change. Only these: a text in a URL is not ours to show.
DONE = {
    "revoked": "The key is revoked: it is refused everywhere within a second.",
    "alert": "You will be told.",
    "dropped": "The alert is gone.",
    "password": "The new password holds from now on. Other browsers are signed out.",
    "changed": "The change of plan is on its way: a larger plan holds at once, a smaller one from the next period.",
    "ends": "The subscription ends with its period. Until then nothing changes.",
    "stays": "The subscription goes on.",
}


@dataclass(frozen=True, slots=True)
class PortalDesk:
    """One for a process."""

    desk: Desk
    mail: Mail

    def answer(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """A page of the portal, with what was done before it."""
        done = DONE.get(request.query_params.get("done", ""))
        return self.desk.pages.answer(request, f"portal/{template}", status, **{"done": done, **context})

    async def customer(self, request: Request) -> Customer:
        """Whose page it is: that of whoever is signed in. Raises Refusal."""
        customer_id = actor_of(request).customer_id
        assert customer_id is not None, "customer_page lets nobody else in"
        return await self.desk.accounts.customer(customer_id)

    @property
    def sends_links(self) -> bool:
        """Whether somebody can sign in by mail. The link's host is what is configured, never what a request says."""
        return self.mail.is_there and self.desk.gateway().server.public_url is not None
