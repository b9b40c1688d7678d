"""The dashboard's table of URLs: each page with the least role that may open it."""

from starlette.routing import BaseRoute, Route

from gatekeeper.people.operators import Operators
from gatekeeper.ports.people import Role
from gatekeeper.web.gate import Endpoint
from gatekeeper.web.health import Health
from gatekeeper.web.pages.customer import CustomerPage
from gatekeeper.web.pages.customers import CustomerPages
from gatekeeper.web.pages.declared import DeclaredPages
from gatekeeper.web.pages.desk import Desk
from gatekeeper.web.pages.limits import LimitPages
from gatekeeper.web.pages.operators import OperatorPages
from gatekeeper.web.pages.overview import OverviewPages
from gatekeeper.web.pages.requests import RequestPages
from gatekeeper.web.pages.sending import OutboxPages
from gatekeeper.web.pages.watching import WatchPages

# (method, path below /dashboard, endpoint, least role)
Line = tuple[str, str, Endpoint, Role]
LOOK, CHANGE, OWN = Role.VIEWER, Role.ADMIN, Role.OWNER


class Dashboard:
    """All pages of operators but those for signing in."""

    def __init__(self, desk: Desk, operators: Operators, health: Health) -> None:
        self._desk = desk
        self._overview = OverviewPages(desk)
        self._customers = CustomerPages(desk)
        self._customer = CustomerPage(desk)
        self._limits = LimitPages(desk)
        self._requests = RequestPages(desk)
        self._outbox = OutboxPages(desk)
        self._declared = DeclaredPages(desk)
        self._watch = WatchPages(desk, health)
        self._operators = OperatorPages(desk, operators)

    async def run(self) -> None:
        """Feed those who look on, for ever; cancelled, it ends their streams."""
        await self._overview.hub.run()

    def stop(self) -> None:
        """At the beginning of a shutdown: every stream ends, so that the server need not wait for it."""
        self._overview.hub.close()

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        table = [*self._looked_at(), *self._changed()]
        # The doctor only reads: its button leaves no deed.
        quiet = {self._watch.examine}
        found: list[BaseRoute] = [*self._desk.pages.assets.routes()]
        for method, path, endpoint, least in table:
            guarded = self._desk.gate.page(endpoint, least, changes=endpoint not in quiet)
            found.append(Route(f"/dashboard{path}", guarded, methods=[method]))
        return found

    def _looked_at(self) -> list[Line]:
        one = "/customers/{customer_id}"
        return [
            ("GET", "", self._overview.show, LOOK),
            ("GET", "/", self._overview.show, LOOK),
            ("GET", "/live", self._overview.live, LOOK),
            ("GET", "/customers", self._customers.listing, LOOK),
            ("GET", "/customers/new", self._customers.new, CHANGE),
            ("GET", one, self._customer.overview, LOOK),
            ("GET", f"{one}/usage", self._customer.usage, LOOK),
            ("GET", f"{one}/keys", self._customer.keys, LOOK),
            ("GET", f"{one}/billing", self._customer.billing, LOOK),
            ("GET", f"{one}/settings", self._customers.settings, LOOK),
            ("GET", "/budgets", self._limits.listing, LOOK),
            ("GET", "/budgets/new", self._limits.new, CHANGE),
            ("GET", "/budgets/{limit_id}", self._limits.show, LOOK),
            ("GET", "/requests", self._requests.listing, LOOK),
            ("GET", "/requests/{call_id}", self._requests.show, LOOK),
            ("GET", "/spikes", self._watch.spikes, LOOK),
            ("GET", "/outbox", self._outbox.batches, LOOK),
            ("GET", "/outbox/events", self._outbox.deliveries, LOOK),
            ("GET", "/outbox/received", self._outbox.letters, LOOK),
            ("GET", "/plans", self._declared.plans, LOOK),
            ("GET", "/plans/routes", self._declared.routes, LOOK),
            ("GET", "/health", self._watch.health, LOOK),
            ("POST", "/health", self._watch.examine, LOOK),
            ("GET", "/audit", self._watch.audit, LOOK),
            ("GET", "/operators", self._operators.listing, OWN),
        ]

    def _changed(self) -> list[Line]:
        one, key = "/customers/{customer_id}", "/customers/{customer_id}/keys/{key_id}"
        return [
            ("POST", "/customers/new", self._customers.create, CHANGE),
            ("POST", f"{one}/settings", self._customers.change, CHANGE),
            ("POST", f"{one}/plan", self._customers.set_plan, CHANGE),
            ("POST", f"{one}/disable", self._customers.disable, CHANGE),
            ("POST", f"{one}/enable", self._customers.enable, CHANGE),
            ("POST", f"{one}/keys", self._customer.create_key, CHANGE),
            ("POST", f"{key}/rotate", self._customer.rotate_key, CHANGE),
            ("POST", f"{key}/revoke", self._customer.revoke_key, CHANGE),
            ("POST", "/budgets/new", self._limits.create, CHANGE),
            ("POST", "/budgets/{limit_id}", self._limits.change, CHANGE),
            ("POST", "/budgets/{limit_id}/remove", self._limits.remove, CHANGE),
            ("POST", "/budgets/{limit_id}/reset", self._limits.reset, CHANGE),
            ("POST", "/outbox/{batch_id}/retry", self._outbox.retry_batch, CHANGE),
            ("POST", "/outbox/events/{event_id}/retry", self._outbox.retry_delivery, CHANGE),
            ("POST", "/outbox/received/{event_id}/retry", self._outbox.retry_letter, CHANGE),
            ("POST", "/operators", self._operators.add, OWN),
            ("POST", "/operators/{login_id}", self._operators.change, OWN),
            ("POST", "/operators/{login_id}/link", self._operators.link, OWN),
            ("POST", "/operators/{login_id}/disable", self._operators.disable, OWN),
            ("POST", "/operators/{login_id}/enable", self._operators.enable, OWN),
        ]
