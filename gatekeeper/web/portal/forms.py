"""What was typed, with and without its secrets."""

from starlette.requests import Request

from gatekeeper.web.forms import form_of
from gatekeeper.web.pages.forms import Form

_SECRETS = frozenset({"csrf", "password", "old", "new", "t"})


async def typed(request: Request) -> tuple[dict[str, str], Form]:
    """(all fields, what may be shown again). Raises Refusal."""
    fields = await form_of(request)
    return fields, Form({name: value.strip() for name, value in fields.items() if name not in _SECRETS})
