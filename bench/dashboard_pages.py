"""The URLs that ``bench.dashboard`` measures: every GET of operators and customers that there is, asked in process.

The rule: whatever the application lists is asked, with names that exist in place of those in its paths. A stream of
events never ends, and static files ask no database: neither is asked.
"""

import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from starlette.routing import Mount, Route

from gatekeeper.assembly import House, build_house
from gatekeeper.config import parse_gateway
from gatekeeper.ports.people import Login, Role
from gatekeeper.web.gate import DASHBOARD, PORTAL, cookie_name

_KEY = "bench"
_PREFIXES = ("/admin", "/dashboard", "/portal")
_NOT_ASKED = re.compile(
    r"/(static|live|events?/stream|stream)\b|\.csv$|/logout|/login|/link|/health$|/doctor$|/first$|/subscription$|^/admin/openapi"
)
_PLAN = """
name = "Pro"
monthly_price = 29
[quota]
units = 1_000_000_000
window = "month"
when_used = "overage"
[overage]
price = "0.002"
per = "1000 tokens"
"""
_GATEWAY = """
plans = "plans"
[database]
url = "{url}"
[admin]
key = "bench"
[ledger]
journal = "{journal}"
[upstreams.openai]
url = "http://127.0.0.1:9"
[defaults]
meter = "usage().total"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "openai"
"""


@asynccontextmanager
async def pages(url: str, now_ms: int) -> AsyncIterator[dict[str, Callable[[], Awaitable[Any]]]]:
    """A way to ask for each URL, by its path. Nothing runs in the background."""
    with tempfile.TemporaryDirectory(prefix="gk-pages-") as folder:
        house = await _house(Path(folder), url)
        try:
            found = await house.store.records(customer_id="c0000", limit=1)
            call_id = found[0].call_id if found else "none"
            cookies = {**await _cookie(house, DASHBOARD, now_ms), **await _cookie(house, PORTAL, now_ms)}
            # It raises what the application does: a mistake in a page ends the bench.
            transport = httpx.ASGITransport(app=house.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", cookies=cookies) as client:
                yield {path: partial(_ask, client, path) for path in _paths(house, call_id)}
        finally:
            await house.store.close()
            await house.journal.close()
            await house.upstream.close()


async def _house(folder: Path, url: str) -> House:
    text = _GATEWAY.format(url=url, journal=folder / "journal")
    return await build_house(
        parse_gateway(text, "gateway.toml", {"free.toml": _PLAN, "pro.toml": _PLAN}, {}, directory=folder)
    )


async def _cookie(house: House, side: str, now_ms: int) -> dict[str, str]:
    """Somebody who is signed in there."""
    operator = side == DASHBOARD
    login = Login(
        f"bench{side.replace('/', '_')}",
        f"{side[1:]}@example.com",
        now_ms,
        role=Role.OWNER if operator else None,
        customer_id=None if operator else "c0000",
    )
    await house.store.create_login(login)
    cookie, _ = await house.signins.begin(login)
    return {cookie_name(side, secure=False): cookie}


def _paths(house: House, call_id: str) -> list[str]:
    """Those that can be asked with what is known here, in order."""
    names = {"customer_id": "c0000", "key_id": "k0000-0", "call_id": call_id, "plan_id": "pro", "route": "chat"}
    paths = set()
    for route in house.app.routes:
        assert not isinstance(route, Mount), route
        if not isinstance(route, Route) or "GET" not in (route.methods or ()) or not route.path.startswith(_PREFIXES):
            continue
        path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: names.get(found[1], found[0]), route.path)
        if "{" not in path and not _NOT_ASKED.search(path):
            paths.add(path)
    more = {
        "/dashboard": ("?range=24h", "?range=7d", "?range=30d"),
        "/admin/requests": ("?customer_id=c0000", "?outcome=timed_out", "?source=error", "?model=gpt-2"),
        "/admin/spend": ("?group_by=customer", "?group_by=key&period=last_30_days"),
        "/admin/revenue": ("?by=plan&period=last_30_days",),
        "/dashboard/requests": ("?customer_id=c0000", "?outcome=timed_out", "?status=502"),
    }
    return sorted([*paths, *(path + query for path in more if path in paths for query in more[path])])


async def _ask(client: httpx.AsyncClient, path: str) -> httpx.Response:
    headers = {"x-admin-key": _KEY} if path.startswith("/admin") else {}
    return await client.get(path, headers=headers)
