"""The operators, for owners: who may look, change, and change who may. The rule: a link that lets somebody in is shown
once, in the answer that makes it; there is always an owner."""

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.errors import Code, Refusal
from gatekeeper.people.operators import Operators
from gatekeeper.ports.people import Role
from gatekeeper.web.gate import actor_of, note
from gatekeeper.web.pages.desk import Desk, is_asked_wrongly, seen_other
from gatekeeper.web.pages.forms import NO_FORM, Form, read_form
from gatekeeper.web.people import link_url

HERE = "/dashboard/operators"
SHOWN_MAX = 200
_FIELDS = (("email", r"email"), ("role", r"role"))


class OperatorPages:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, desk: Desk, operators: Operators) -> None:
        self._desk = desk
        self._operators = operators

    async def listing(self, request: Request) -> Response:
        """All of them, and the form for one more."""
        return await self._page(request, NO_FORM)

    async def add(self, request: Request) -> Response:
        """One more; the answer shows the link that lets him in."""
        form = await read_form(request)
        try:
            made = await self._operators.add(form.get("email"), _role(form))
            secret = await self._operators.link(made)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return await self._page(request, form.blamed(refusal, _FIELDS), refusal.status)
        note(request, subject=made.id, email=made.email, role=made.role)
        return await self._page(request, NO_FORM, link=secret, linked=made.email)

    async def change(self, request: Request) -> Response:
        """Another role."""
        form, before = await read_form(request), await self._operators.operator(request.path_params["login_id"])
        after = await self._operators.change(before, role=_role(form))
        note(request, before={"role": before.role}, after={"role": after.role})
        return seen_other(HERE, done="operator")

    async def link(self, request: Request) -> Response:
        """A new link, for whoever has forgotten the password."""
        found = await self._operators.operator(request.path_params["login_id"])
        secret = await self._operators.link(found)
        return await self._page(request, NO_FORM, link=secret, linked=found.email)

    async def disable(self, request: Request) -> Response:
        """He is signed out everywhere, and signs in no more."""
        before = await self._operators.operator(request.path_params["login_id"])
        if before.id == actor_of(request).id:
            raise Refusal(Code.CONFLICT, "That is you.", hint="another owner can do it")
        await self._operators.remove(before)
        return seen_other(HERE, done="operator")

    async def enable(self, request: Request) -> Response:
        """He may sign in again."""
        before = await self._operators.operator(request.path_params["login_id"])
        await self._operators.change(before, disabled=False)
        return seen_other(HERE, done="operator")

    async def _page(
        self, request: Request, form: Form, status: int = 200, link: str | None = None, linked: str | None = None
    ) -> Response:
        return self._desk.answer(
            request,
            "operators.html",
            status,
            rows=await self._operators.listed(limit=SHOWN_MAX),
            form=form,
            roles=[
                (Role.VIEWER.value, "viewer: may look"),
                (Role.ADMIN.value, "admin: may change"),
                (Role.OWNER.value, "owner: may also change who may"),
            ],
            link=None if link is None else link_url(self._desk.gate.home(request), link),
            linked=linked,
        )


def _role(form: Form) -> Role:
    try:
        return Role(form.get("role"))
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, f"role is one of {', '.join(Role)}.") from cause
