"""The configuration that holds: shown, checked and read again by ``/admin/config``. The rule: one with mistakes changes
nothing; a secret is never shown; a reload reaches every worker of this host, and the answer says which have it.

Other hosts have files of their own and are asked on their own.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.config.read import load_gateway
from gatekeeper.diagnostics import Mistake, Mistakes
from gatekeeper.errors import Code, Refusal
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import only, take
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.operating import CONFIGURATION
from gatekeeper.web.siblings import Siblings

log = logging.getLogger("gatekeeper.config")

# A worker reads the files within a fraction of a second of the signal, and says so within a second.
WAIT_S = 5.0
_LOOK_EVERY_S = 0.1
_PLANS_MAX = 200


class Holding(Protocol):
    """Where the configuration that holds stands."""

    # As it was configured: operators' limits are laid over it.
    declared: Gateway

    @property
    def gateway(self) -> Gateway:
        """The one that calls meet."""
        ...

    @gateway.setter
    def gateway(self, declared: Gateway) -> None: ...


class Reloader:
    """Reads the file again and swaps what holds. ``file`` None: there is none (an example, a test). ``pass_on`` tells
    the parent of several workers, which tells all of them, this one too."""

    def __init__(
        self, live: Holding, clock: Clock, file: Path | None = None, env: Mapping[str, str] = os.environ
    ) -> None:
        self._live = live
        self._clock = clock
        self._env = env
        self.file = file
        self.pass_on: Callable[[], None] | None = None
        self.loaded_ms = clock.now_ms()

    def read(self, text: str | None = None, plans: Mapping[str, str] | None = None) -> Gateway:
        """What the file says now; with ``text`` or ``plans`` in the place of what is on the disk. Raises Mistakes, and
        Refusal where there is no file."""
        if self.file is None:
            raise Refusal(Code.CONFLICT, "This gateway was started without a file.")
        return load_gateway(self.file, self._env, text=text, plans=plans)

    def swap(self, fresh: Gateway) -> None:
        """From now on this holds; a call keeps the one that it started with. Address and database stay as they were."""
        old = self._live.declared
        if fresh.database_url != old.database_url:
            log.warning("a new database needs a restart; the old one stays")
        server = replace(fresh.server, host=old.server.host, port=old.server.port)
        self._live.gateway = replace(fresh, server=server, database_url=old.database_url)
        self.loaded_ms = self._clock.now_ms()
        routes, plans = len(fresh.router.routes), len(fresh.plans)
        log.info("reloaded: generation %s, %d routes, %d plans", fresh.generation, routes, plans)

    def told(self) -> dict[str, Any]:
        """What this worker says of itself."""
        return {"generation": self._live.declared.generation, "loaded_ms": self.loaded_ms}


class Configuration:
    """Endpoints; each raises Refusal."""

    def __init__(self, reloader: Reloader, live: Holding, siblings: Siblings, clock: Clock, guard: Guard) -> None:
        self._reloader = reloader
        self._live = live
        self._siblings = siblings
        self._clock = clock
        self._guard = guard
        self._reloading = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(CONFIGURATION, self, self._guard)

    async def get_config(self, request: Request) -> Response:
        """Counts and names; what the routes and plans are stands at their own URLs."""
        gateway = self._live.gateway
        return json_answer(
            {
                "generation": gateway.generation,
                "loaded_ms": self._reloader.loaded_ms,
                "file": None if self._reloader.file is None else self._reloader.file.name,
                "routes": len(gateway.router.routes),
                "plans": len(gateway.plans),
                "upstreams": sorted(gateway.upstreams),
                "limits": len(gateway.limits) + len(gateway.rates),
                "warnings": mistakes_json(gateway.warnings),
                "workers": self._workers(),
            }
        )

    async def validate_config(self, request: Request) -> Response:
        """``{"text"?, "plans"?}``: these texts, each beside what is on the disk; without any, what is on the disk."""
        body = only(await json_body(request), "text", "plans")
        text, plans = take(body, "text", str), take(body, "plans", dict)
        if plans is not None:
            _check_plans(plans)
        try:
            # Seconds of work for a large one: the calls go on beside it.
            found = await asyncio.to_thread(self._reloader.read, text, plans)
        except Mistakes as wrong:
            mistakes = mistakes_json(wrong.mistakes)
            return json_answer({"ok": False, "mistakes": mistakes, "generation": None, "routes": None, "plans": None})
        return json_answer(
            {
                "ok": True,
                "mistakes": mistakes_json(found.warnings),
                "generation": found.generation,
                "routes": len(found.router.routes),
                "plans": len(found.plans),
            }
        )

    async def reload_config(self, request: Request) -> Response:
        """Read the file again; with several workers each reads it. One with mistakes changes nothing."""
        only(await json_body(request))
        async with self._reloading:
            before = self._live.declared.generation
            try:
                fresh = await asyncio.to_thread(self._reloader.read)
            except Mistakes as wrong:
                errors = [each for each in wrong.mistakes if each.severity == "error"] or list(wrong.mistakes)
                place = f"{errors[0].source.name}:{errors[0].line}:{errors[0].column}"
                count = "1 mistake" if len(errors) == 1 else f"{len(errors)} mistakes"
                raise Refusal(
                    Code.CONFLICT,
                    f"{count} in the new configuration, so the old one stays. {place}: {errors[0].message}.",
                    hint="POST /admin/config/validate tells all of them",
                ) from None
            if self._reloader.pass_on is None:
                self._reloader.swap(fresh)
            else:
                self._reloader.pass_on()
                await self._until_all_have(fresh.generation)
        workers = self._workers()
        return json_answer(
            {
                "generation": fresh.generation,
                "before": before,
                "complete": all(each["generation"] == fresh.generation for each in workers),
                "workers": workers,
                "warnings": mistakes_json(fresh.warnings),
            }
        )

    async def _until_all_have(self, generation: str) -> None:
        until_s = self._clock.monotonic_s() + WAIT_S
        while any(each["generation"] != generation for each in self._workers()):
            if self._clock.monotonic_s() >= until_s:
                return
            await self._clock.sleep(_LOOK_EVERY_S)

    def _workers(self) -> list[dict[str, Any]]:
        alive = [each for each in self._siblings.all() if each["alive"]]
        return [
            {"pid": each["pid"], "generation": each["generation"], "loaded_ms": each["loaded_ms"], "this": number == 0}
            for number, each in enumerate(alive)
        ]


def mistakes_json(mistakes: Iterable[Mistake]) -> list[dict[str, Any]]:
    """Mistakes for machines, each with its place, and for people beside it."""
    return [
        {
            "severity": one.severity,
            "message": one.message,
            "file": one.source.name,
            "line": one.line,
            "column": one.column,
            "hint": one.hint,
            "shown": one.render(),
        }
        for one in mistakes
    ]


def _check_plans(plans: dict[str, Any]) -> None:
    if len(plans) > _PLANS_MAX or not all(
        isinstance(text, str) and name.endswith(".toml") for name, text in plans.items()
    ):
        raise Refusal(Code.BAD_REQUEST, f"plans are at most {_PLANS_MAX} texts by their files' names, as in free.toml.")
