"""The pages under ``/playground``: an expression beside what it reads, and the dry-run over recorded calls.

The rule: the server answers everything; the browser only sends what was typed. Without JavaScript a button does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as Url

from gatekeeper.config.gateway import Gateway, Route
from gatekeeper.errors import Code, Refusal
from gatekeeper.meters import Context, Meter, Outcome
from gatekeeper.web.forms import form_of
from gatekeeper.web.gate import Endpoint
from gatekeeper.web.pages.rendering import Pages
from gatekeeper.web.playground.answers import tried_json
from gatekeeper.web.playground.api import Bench, wish_of
from gatekeeper.web.playground.checking import CONTEXTS as OFFERED
from gatekeeper.web.playground.replaying import LAST_MAX, dry_run, told_json
from gatekeeper.web.playground.samples import samples
from gatekeeper.web.playground.wishes import TRIAL_FIELDS, trial_of_form

# What stands in the editor at first: right for every provider that is known.
FIRST = {Context.METER: "usage().total", Context.LIVE: "sum(events, len(.data)) / 4"}
FIRST_SAMPLE = "openai-chat.sse"
# A person compares a few hundred calls at a time and asks for more.
DRY_RUN_LAST = 500
# What the templates look for; a field that did not come is empty.
_FIELDS = dict.fromkeys((*TRIAL_FIELDS, "last", "before"), "")
_CONTEXT_WORDS = {
    Context.METER: "meter: units, at the end",
    Context.ESTIMATE: "estimate: units, before the call",
    Context.LIVE: "live: units so far, after each event",
    Context.COST: "cost: dollars, at the end",
    Context.WHEN: "when: true or false, before the call",
}


@dataclass(frozen=True, slots=True)
class Playground:
    """Endpoints of pages. ``guard`` lets operators in, from the role viewer up."""

    bench: Bench
    pages: Pages
    guard: Callable[[Endpoint], Endpoint]

    def routes(self) -> list[BaseRoute]:
        """The table of URLs, for ``web.app``."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/playground", self.show),
            ("POST", "/playground", self.attempt),
            ("GET", "/playground/dry-run", self.show_dry_run),
            ("POST", "/playground/dry-run", self.dry_run),
        ]
        return [Url(path, self.guard(endpoint), methods=[method]) for method, path, endpoint in table]

    async def show(self, request: Request) -> Response:
        """``?route=&part=&sample=``: the page, with a route's expression to start from."""
        query = request.query_params
        context, text, route = _start(self.bench.gateway(), query.get("route"), query.get("part"))
        sample = query.get("sample", FIRST_SAMPLE)
        form = {"context": context, "expression": text, "route": route, "sample": sample}
        return await self._page(request, {name: value for name, value in form.items() if value})

    async def attempt(self, request: Request) -> Response:
        """The form as it stands: the whole page, or for htmx only what is below the code."""
        form = await form_of(request)
        if request.headers.get("hx-request") != "true":
            return await self._page(request, form)
        return self.pages.answer(request, "playground/answer.html", **await self._tried(form))

    async def _page(self, request: Request, form: Mapping[str, str]) -> Response:
        gateway = self.bench.gateway()
        found = await self._tried(form)
        return self.pages.answer(
            request,
            "playground/page.html",
            400 if found["said"] else 200,
            form={**_FIELDS, **form},
            contexts=[(each, _CONTEXT_WORDS[each]) for each in OFFERED],
            samples=[(each.name, each.title) for each in samples().values()],
            outcomes=[str(each) for each in Outcome],
            starts=_starts(gateway),
            **found,
        )

    async def _tried(self, form: Mapping[str, str]) -> dict[str, Any]:
        """What came of it. What is refused is said in the page: whoever types has not finished typing."""
        try:
            trial = trial_of_form(form, self.bench.gateway())
            found = tried_json(trial, await self.bench.attempt(trial))
        except Refusal as refusal:
            said = {"said": refusal.public, "hint": refusal.hint}
            return {"found": None, "context": "", "used": "", "groups": [], **said}
        return {
            "found": found,
            "said": None,
            "hint": None,
            "context": str(trial.context),
            "used": form.get("used", "").strip(),
            "groups": _groups(found["events"]),
        }

    async def show_dry_run(self, request: Request) -> Response:
        """``?route=&part=``: the form for recorded calls."""
        query = request.query_params
        _, text, route = _start(self.bench.gateway(), query.get("route"), query.get("part"))
        form = {"expression": text, "route": route, "last": str(DRY_RUN_LAST)}
        return self._dry_page(request, form)

    async def dry_run(self, request: Request) -> Response:
        """What the last calls of a route would have been charged."""
        form = await form_of(request)
        gateway = self.bench.gateway()
        try:
            last = form.get("last", "").strip() or str(DRY_RUN_LAST)
            if not (last.isascii() and last.isdigit() and len(last) <= 6):
                raise Refusal(Code.BAD_REQUEST, f"last is a number from 1 to {LAST_MAX}.")
            text = form.get("expression", "").replace("\r\n", "\n")
            body = {"route": form.get("route"), "expression": text, "last": int(last), "before": form.get("before")}
            wish, _, mistakes = await wish_of(body, self.bench, gateway)
            told = None
            if wish is not None:
                read = await dry_run(wish, self.bench.audit, self.bench.turns, gateway)
                told = told_json(wish, read, text)
        except Refusal as refusal:
            return self._dry_page(request, form, said=refusal.public, hint=refusal.hint)
        return self._dry_page(request, form, mistakes=mistakes, told=told)

    def _dry_page(
        self,
        request: Request,
        form: Mapping[str, str],
        *,
        said: str | None = None,
        hint: str | None = None,
        mistakes: list[dict[str, Any]] | None = None,
        told: dict[str, Any] | None = None,
    ) -> Response:
        routes = [route.name for route in self.bench.gateway().router.routes]
        return self.pages.answer(
            request,
            "playground/dry_run.html",
            200 if said is None else 400,
            form={**_FIELDS, **form},
            routes=routes,
            last_max=LAST_MAX,
            said=said,
            hint=hint,
            mistakes=mistakes or [],
            told=told,
        )


def _groups(events: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps as the page lists them: what changed a slot by itself, runs of what did not as one."""
    groups: list[dict[str, Any]] = []
    for part in ("first", "last") if events is not None else ():
        assert events is not None
        if part == "last" and events["omitted"]:
            groups.append({"silent": False, "omitted": events["omitted"], "steps": []})
        run: list[dict[str, Any]] = []
        for step in events[part]:
            if not step["changes"]:
                run.append(step)
                if len(run) == 1:
                    groups.append({"silent": True, "omitted": 0, "steps": run})
                continue
            run = []
            groups.append({"silent": False, "omitted": 0, "steps": [step]})
    return groups


def _parts(route: Route) -> list[tuple[str, Context, Meter]]:
    """The expressions of a route by the names of their keys."""
    alone = {"estimate": route.estimate, "live": route.live, "cost": route.cost, "when": route.when}
    found = [("meter", Context.METER, route.meter)]
    found += [(f"meters.{name}", Context.METER, meter) for name, meter in route.meters.items()]
    return found + [(name, Context(name), meter) for name, meter in alone.items() if meter is not None]


def _starts(gateway: Gateway) -> list[dict[str, str]]:
    """Every expression of every route, to start from."""
    return [
        {"route": route.name, "part": part, "text": meter.text}
        for route in gateway.router.routes
        for part, _, meter in _parts(route)
    ]


def _start(gateway: Gateway, name: str | None, part: str | None) -> tuple[Context, str, str]:
    """(context, expression, route) to start from; the usual meter where nothing that exists is named."""
    for route in gateway.router.routes:
        if route.name == name:
            for key, context, meter in _parts(route):
                if key == (part or "meter"):
                    return context, meter.text, route.name
    return Context.METER, FIRST[Context.METER], ""
