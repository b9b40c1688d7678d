"""Every kind of caller, as the headers that it sends: operators and customers' people with tokens and cookies, and
those who should not get in."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

import jwt
from fakes.stand import ADMIN_KEY, Stand

from gatekeeper.people.signins import csrf_of_cookie
from gatekeeper.ports.people import Login, Role
from gatekeeper.web.gate import DASHBOARD, PORTAL, cookie_name

Headers = Mapping[str, str]


class Callers:
    """Makes them on a stand."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.logins: dict[str, Login] = {}
        for role in Role:
            self.logins[role] = stand.run(stand.house.operators.add(f"{role}@example.org", role))
        for customer in ("acme", "beta"):
            if stand.run(stand.house.store.customer(customer)) is None:
                stand.run(stand.house.accounts.create_customer(customer, customer_id=customer))
            login = stand.run(stand.house.operators.add_person(customer, f"{customer}@example.org"))
            self.logins[customer] = login

    def token(self, who: str) -> Headers:
        """A token of an operator, by role, or of somebody of a customer, by its id."""

        async def made() -> str:
            token, _ = self.stand.house.signins.token(self.logins[who])
            return token

        return {"Authorization": f"Bearer {self.stand.run(made())}"}

    def cookie(self, who: str, *, side: str | None = None, csrf: str | None = "") -> Headers:
        """A new session. ``csrf`` None: without it; empty: the right one."""
        cookie, _ = self.stand.run(self.stand.house.signins.begin(self.logins[who]))
        side = side or (PORTAL if self.logins[who].role is None else DASHBOARD)
        headers = {"Cookie": f"{cookie_name(side, secure=False)}={cookie}"}
        if csrf is not None:
            headers["X-CSRF-Token"] = csrf or csrf_of_cookie(cookie)
        return headers

    def ended(self, who: str) -> Headers:
        """A cookie whose session is over."""
        headers = self.cookie(who)
        cookie = headers["Cookie"].partition("=")[2]
        self.stand.run(self.stand.house.signins.end(cookie))
        return headers

    def forged(self, how: str) -> Headers:
        """An owner's token as somebody else would write it."""

        async def made() -> str:
            token, _ = self.stand.house.signins.token(self.logins["owner"])
            return token

        real = self.stand.run(made())
        claims = jwt.decode(real, options={"verify_signature": False})
        if how == "none":
            return {"Authorization": f"Bearer {jwt.encode(claims, None, 'none')}"}
        return {"Authorization": f"Bearer {jwt.encode(claims, 'w' * 32, 'HS256')}"}

    def expired(self) -> Headers:
        """An owner's token of yesterday."""
        house = self.stand.house

        async def made() -> str:
            tokens = house.signins._tokens
            return tokens.make(self.logins["owner"], house._clock.now_ms() - 86_400_000)[0]

        return {"Authorization": f"Bearer {self.stand.run(made())}"}

    def disabled(self) -> Headers:
        """Somebody's token who was disabled since."""

        async def made() -> str:
            house = self.stand.house
            login = await house.operators.add(f"gone-{secrets.token_hex(4)}@example.org", Role.OWNER)
            token, _ = house.signins.token(login)
            assert await house.store.update_login(replace(login, disabled_ms=1))
            return token

        return {"Authorization": f"Bearer {self.stand.run(made())}"}

    def kinds(self) -> dict[str, Callable[[], Headers]]:
        """Each kind of caller by name; made anew whenever it is asked for: what one call ends does not end the next."""
        elsewhere = {"Origin": "https://evil.example"}
        return {
            "nobody": dict,
            "admin key": lambda: {"X-Admin-Key": ADMIN_KEY},
            "wrong admin key": lambda: {"X-Admin-Key": ADMIN_KEY + "x"},
            "wrong admin key, owner's token": lambda: {"X-Admin-Key": "x", **self.token("owner")},
            "customer's key": lambda: {"Authorization": f"Bearer {self.stand.key}"},
            "viewer": lambda: self.token("viewer"),
            "admin": lambda: self.token("admin"),
            "owner": lambda: self.token("owner"),
            "person": lambda: self.token("acme"),
            "viewer's page": lambda: self.cookie("viewer"),
            "admin's page": lambda: self.cookie("admin"),
            "owner's page": lambda: self.cookie("owner"),
            "person's page": lambda: self.cookie("acme"),
            "person at the dashboard": lambda: self.cookie("acme", side=DASHBOARD),
            "owner at the portal": lambda: self.cookie("owner", side=PORTAL),
            "ended session": lambda: self.ended("owner"),
            "made-up session": lambda: {"Cookie": f"{cookie_name(DASHBOARD, secure=False)}={'A' * 43}"},
            "token without a signature": lambda: self.forged("none"),
            "token of another secret": lambda: self.forged("secret"),
            "expired token": self.expired,
            "disabled owner": self.disabled,
            "person, no csrf": lambda: self.cookie("acme", csrf=None),
            "person from another site": lambda: {**self.cookie("acme"), **elsewhere},
            "no csrf": lambda: self.cookie("owner", csrf=None),
            "wrong csrf": lambda: self.cookie("owner", csrf="0" * 64),
            "from another site": lambda: {**self.cookie("owner"), **elsewhere},
            "fetched by another site": lambda: {**self.cookie("owner"), "Sec-Fetch-Site": "cross-site"},
        }
