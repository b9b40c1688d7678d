"""Which of several routes of one URL takes a call: the first whose condition (``when``) is true of the request.

The rule: who calls is known before a byte of the body is read, and a condition that cannot be evaluated is not true.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from gatekeeper.config.gateway import Route
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.meters import Mark
from gatekeeper.ports import Holder
from gatekeeper.proxy import access
from gatekeeper.proxy.bodies import Body, look_into
from gatekeeper.proxy.call import Call, Rereadable
from gatekeeper.proxy.outage import Outage
from gatekeeper.proxy.views import request_view
from gatekeeper.rules.requests import Ask, model_of
from gatekeeper.rules.routing import Match

log = logging.getLogger("gatekeeper.proxy")


class Chooser:
    """One for the process. Remembers which conditions it has warned of."""

    def __init__(self, directory: access.Directory, outage: Outage) -> None:
        self._directory = directory
        self._outage = outage
        self._warned: set[tuple[str, str]] = set()

    async def choose(self, call: Call, caller: Rereadable, candidates: Sequence[Match[Route]]) -> Call:
        """The call on the route that takes it; what was read of the body is given back to the caller. Raises Refusal
        (a key that is wrong, a body larger than any of the routes allows, no route that takes it) and CallerGone."""
        try:
            holder = await self._outage.trial(call.gateway.ledger).holder(self._directory, call)
        except Fault as fault:
            raise Refusal(Code.LEDGER_UNAVAILABLE, private=str(fault)) from fault
        access.check_valid(holder, call.started_ms)
        body = await look_into(call, caller, max(match.route.request_bytes_max for match in candidates))
        for match in candidates:
            if self._takes(match, call, holder, body):
                return replace(call, route=match.route, names=match.names)
        raise Refusal(Code.UNKNOWN_ROUTE, hint="the routes of this path take a request only under conditions ('when')")

    def _takes(self, match: Match[Route], call: Call, holder: Holder, body: Body) -> bool:
        condition = match.route.when
        if condition is None:
            return True
        size = len(body.whole) if body.whole is not None else body.content_length or 0
        ask = Ask(model=model_of(match.names, body.parsed or {}))
        user_id, agent_id = access.subjects(holder, call.credentials)
        reading = condition.evaluate_request(request_view(call, holder, ask, body.whole, user_id, agent_id, size))
        if reading.source is Mark.ERROR:
            self._warn(match.route, condition.hash, reading.note)
            return False
        return reading.units == 1

    def _warn(self, route: Route, mark: str, note: str | None) -> None:
        """Once for each condition: a request can bring the same about at any rate."""
        if (route.name, mark) not in self._warned:
            self._warned.add((route.name, mark))
            log.warning("route %s does not take a call: its 'when' cannot be evaluated: %s", route.name, note)
