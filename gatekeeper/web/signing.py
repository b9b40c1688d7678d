"""The cookie of a session: set when somebody signs in, taken away when he signs out (RFC 6265bis)."""

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.ports.people import Login
from gatekeeper.web.gate import Gate, cookie_name
from gatekeeper.web.pages.desk import seen_other


async def signed_in(request: Request, gate: Gate, side: str, login: Login, answer: Response) -> Response:
    """The answer, with the cookie of a new session; the one that came ends. It has its line in the audit log."""
    facts = {"from": gate.address_of(request)}
    async with gate.deeds.doing(login.email, f"POST {side}/login", login.id, facts):
        cookie, _ = await gate.signins.begin(login, gate.cookie_of(request, side))
    secure = gate.is_secure(request)
    # Lax and not Strict: whoever comes by a link in a letter is signed in too. What changes something asks for more.
    # No Max-Age: the server knows when a session ends, and a browser that is closed forgets it.
    answer.set_cookie(cookie_name(side, secure=secure), cookie, path="/", secure=secure, httponly=True, samesite="lax")
    answer.headers["cache-control"] = "no-store"
    return answer


async def signed_out(request: Request, gate: Gate, side: str) -> Response:
    """To the sign-in page; the session is over."""
    cookie = gate.cookie_of(request, side)
    if cookie is not None:
        await gate.signins.end(cookie)
    secure = gate.is_secure(request)
    answer = seen_other(f"{side}/login")
    answer.delete_cookie(cookie_name(side, secure=secure), path="/", secure=secure, httponly=True, samesite="lax")
    return answer
