"""What a route does when its upstream does not serve, when an upstream is left alone, and which models are cheaper.

The rule: one way to write each. ``fallback`` is a list of tables, ``downgrade`` a list of chains (one chain may stand
without the outer list), ``breaker`` a table, or false for none.
"""

from collections.abc import Collection
from dataclasses import replace

from gatekeeper.config.gateway import Fallback, Route
from gatekeeper.config.kinds import choice, flag, many, seconds, text, whole
from gatekeeper.config.reading import Cell, Table, Wrong, read_cell
from gatekeeper.diagnostics import suggest
from gatekeeper.rules.breaker import BreakerConfig
from gatekeeper.rules.failover import FAILOVER_STATUSES, Retry

# What is an answer and no redirect; a 2xx that is not relayed would be paid for and thrown away.
_STATUS = whole(400, 599)


def with_failover(route: Route, table: Table, upstreams: Collection[str]) -> Route:
    """The route with what it says of failing over and of cheaper models, also in the defaults."""
    fallback = table.take("fallback", lambda cell: _fallbacks(cell, upstreams), ())
    first = Fallback(route.upstream)
    if first in fallback and route.upstream:
        # In the defaults a list may serve routes of several upstreams.
        if table.has("fallback"):
            message = f"the upstream {route.upstream!r} is tried first already"
            table.file.complain((*table.path, "fallback"), message, "name another one, or another model")
        fallback = tuple(each for each in fallback if each != first)
    return replace(
        route,
        fallback=fallback,
        failover_status=frozenset(table.take("failover_status", many(_STATUS), tuple(FAILOVER_STATUSES))),
        retry=table.take("retry", choice(Retry), Retry.IDEMPOTENT),
        show_upstream=table.take("show_upstream", flag, False),
        downgrade=table.take("downgrade", chains, ()),
    )


def _fallbacks(cell: Cell, upstreams: Collection[str]) -> tuple[Fallback, ...]:
    found = many(lambda entry: _fallback(entry, upstreams))(cell)
    if len(set(found)) < len(found):
        raise Wrong("an upstream stands twice with the same model", "each is tried once")
    return found


def _fallback(cell: Cell, upstreams: Collection[str]) -> Fallback:
    if not isinstance(cell.value, dict):
        raise Wrong("a fallback is a table", 'fallback = [{ upstream = "azure" }]')
    table = cell.table()
    name = table.need("upstream", lambda cell: _known(cell, upstreams), "", 'fallback = [{ upstream = "azure" }]')
    model = table.take("model", text, None)
    table.finish()
    return Fallback(name, model)


def _known(cell: Cell, upstreams: Collection[str]) -> str:
    name = text(cell)
    if name not in upstreams:
        known = ", ".join(sorted(upstreams)) or "none; write [upstreams.openai]"
        raise Wrong(f"there is no upstream {name!r}", suggest(name, upstreams) or f"known upstreams: {known}")
    return name


def chains(cell: Cell) -> tuple[tuple[str, ...], ...]:
    """``["gpt-4o", "gpt-4o-mini"]``, or a list of such lists. Models are named whole, the dearest first."""
    entries = list(cell.entries())
    if any(isinstance(entry.value, list) for entry in entries):
        found = tuple(read_cell(entry, _chain, ()) for entry in entries)
    else:
        found = (_chain(cell),)
    firsts = [model for chain in found for model in chain[:-1]]
    twice = next((model for model in firsts if firsts.count(model) > 1), None)
    if twice is not None:
        raise Wrong(f"what is cheaper than {twice!r} is said twice", "a model stands in one chain, but as its last")
    return found


def _chain(cell: Cell) -> tuple[str, ...]:
    models = many(text)(cell)
    if len(models) < 2:
        raise Wrong("a chain names a model and a cheaper one", 'downgrade = ["gpt-4o", "gpt-4o-mini"]')
    if len(set(models)) < len(models):
        raise Wrong("a model stands twice in this chain", "from the dearest to the cheapest")
    return models


def read_breaker(cell: Cell) -> BreakerConfig | None:
    """``{ failures = 5, window_s = 30, pause_s = 10 }``; ``false`` for none."""
    if cell.value is False:
        return None
    if not isinstance(cell.value, dict):
        raise Wrong("a breaker is a table, or false", "breaker = { failures = 10, percent = 50 }")
    table, usual = cell.table(), BreakerConfig()
    found = BreakerConfig(
        failures=table.take("failures", whole(1, 1_000_000), usual.failures),
        percent=table.take("percent", whole(1, 100), usual.percent),
        window_s=table.take("window_s", seconds, usual.window_s),
        pause_s=table.take("pause_s", seconds, usual.pause_s),
    )
    table.finish()
    return found
