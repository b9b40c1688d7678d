"""The URLs of the portal, for ``web.app``."""

from starlette.routing import BaseRoute, Route

from gatekeeper.ports.mail import Mail
from gatekeeper.web.gate import PORTAL, Endpoint
from gatekeeper.web.pages.desk import Desk
from gatekeeper.web.portal.alerts import Alerts
from gatekeeper.web.portal.desk import PortalDesk
from gatekeeper.web.portal.home import Home
from gatekeeper.web.portal.keys import Keys
from gatekeeper.web.portal.plan import PlanPages
from gatekeeper.web.portal.signin import SignIn


class Portal:
    """The room of customers' people."""

    def __init__(self, desk: Desk, mail: Mail) -> None:
        self._portal = PortalDesk(desk, mail)
        self.signin = SignIn(self._portal)

    def routes(self) -> list[BaseRoute]:
        """All URLs, each behind its guard."""
        return _routes(self._portal, self.signin)


def _routes(portal: PortalDesk, signin: SignIn) -> list[BaseRoute]:
    gate = portal.desk.gate
    home, keys, plan, alerts = Home(portal), Keys(portal), PlanPages(portal), Alerts(portal)
    outside: list[tuple[str, str, Endpoint]] = [
        ("GET", "/login", signin.page),
        ("POST", "/login", signin.by_password),
        ("POST", "/login/link", signin.ask_for_link),
        ("GET", "/link", signin.link),
        ("POST", "/link", signin.use_link),
    ]
    inside: list[tuple[str, str, Endpoint]] = [
        ("POST", "/logout", signin.out),
        ("GET", "/password", signin.password_page),
        ("POST", "/password", signin.set_password),
        ("GET", "", home.overview),
        ("GET", "/usage", home.usage),
        ("GET", "/usage.csv", home.as_csv),
        ("GET", "/keys", keys.page),
        ("POST", "/keys", keys.create),
        ("POST", "/keys/{key_id}/rotate", keys.rotate),
        ("POST", "/keys/{key_id}/revoke", keys.revoke),
        ("GET", "/plan", plan.page),
        ("POST", "/plan", plan.choose),
        ("POST", "/plan/end", plan.end),
        ("POST", "/plan/resume", plan.resume),
        ("POST", "/billing", plan.billing),
        ("GET", "/invoices", plan.invoices),
        ("GET", "/alerts", alerts.page),
        ("POST", "/alerts", alerts.create),
        ("POST", "/alerts/{alert_id}/drop", alerts.drop),
    ]
    return [
        *(Route(PORTAL + path, gate.from_here(endpoint), methods=[method]) for method, path, endpoint in outside),
        *(Route(PORTAL + path, gate.customer_page(endpoint), methods=[method]) for method, path, endpoint in inside),
    ]
