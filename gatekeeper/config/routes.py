"""``[defaults]`` and ``[[routes]]`` -> Route. What one route says is read here; what they say together as well.

The rule: two routes that could both take a call differ in something that decides, or the author is told.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from gatekeeper.config.failover import with_failover
from gatekeeper.config.gateway import Dialect, HoldKind, InjectUsage, OnDisconnect, Route, Unmeasured, UpstreamConfig
from gatekeeper.config.headers import header_name, removed, set_headers
from gatekeeper.config.kinds import choice, figure, flag, many, seconds, text, whole, word
from gatekeeper.config.reading import Cell, Kind, Reported, Table, TomlFile, Wrong, read_cell
from gatekeeper.config.reserved import shadowed
from gatekeeper.config.route_examples import read_examples
from gatekeeper.config.variables import Variables
from gatekeeper.diagnostics import Severity, suggest
from gatekeeper.meters import Context, Meter, check_expression
from gatekeeper.rules.routing import Pattern, PatternKind

# Right for every provider shape that is known.
DEFAULT_METER = "usage().total"
# What `[defaults]` may hold: all of a route but what makes it this one.
DEFAULTABLE = (
    "buffer_bytes_max",
    "charge_errors",
    "cost",
    "dialect",
    "drain_s",
    "drain_tokens_max",
    "downgrade",
    "estimate",
    "failover_status",
    "fallback",
    "free",
    "hold",
    "hold_slice_tokens",
    "host",
    "inject_usage",
    "input_tokens_max",
    "live",
    "meter",
    "meter_methods",
    "meters",
    "methods",
    "on_disconnect",
    "once_per_response",
    "output_tokens_max",
    "priority",
    "rate_output_estimate",
    "remove_headers",
    "request_bytes_max",
    "retry",
    "set_headers",
    "show_upstream",
    "unmeasured",
    "unmeasured_default",
    "upstream",
)

# Stands for a path that is missing or wrong.
_NOWHERE = Pattern.parse("/")
_NAME = word(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, '.', '_' or '-'")
_METER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_HOST = word(r"[a-z0-9]([a-z0-9.-]{0,252})", "a host in lower case, without scheme or port: llm.example.com")
_TOKENS = whole(0, 100_000_000)


@dataclass(slots=True)
class Around:
    """What the routes of one gateway.toml refer to."""

    upstreams: Mapping[str, UpstreamConfig | None]
    variables: Variables
    directory: Path
    # One compiled meter per text, context and buffer: most routes share theirs.
    meters: dict[tuple[str, Context, int, str], Meter] = field(default_factory=dict)


class Claim(NamedTuple):
    """What of the URLs a route claims. ``place`` is its number in the file; ``when`` the hash of its condition, empty
    for one that is wrong."""

    place: int
    name: str
    pattern: Pattern
    methods: frozenset[str] | None
    host: str | None
    priority: int
    when: str | None


def read_routes(top: Table, around: Around) -> list[Route]:
    """Every route; to be used only if nothing in the file is wrong."""
    defaults = top.table("defaults")
    Table(top.file, defaults.path, defaults.values).finish(*DEFAULTABLE)
    entries = top.tables("routes")
    if not entries and "routes" not in top.values:
        hint = '[[routes]] with name = "chat", path = "/v1/chat/completions" and upstream = "openai"'
        top.file.complain((), "there is no route, so nothing can be called", hint)
    claims: list[Claim] = []
    routes = []
    for number, entry in enumerate(entries):
        routes.append(_route(Table(entry.file, entry.path, entry.values, defaults), number, around, claims))
    _distinct(claims, top.file)
    return routes


def _route(table: Table, number: int, around: Around, claims: list[Claim]) -> Route:
    """One route. What is wrong is complained about and stands as a placeholder, so that the rest is read too."""
    name = table.need("name", _NAME, "", 'name = "chat"')
    pattern = table.need("path", _pattern, _NOWHERE, 'path = "/v1/chat/completions"')
    methods = table.take("methods", _methods, None)
    host = table.take("host", _HOST, None)
    priority = table.take("priority", whole(-1_000, 1_000), 0)
    when = table.take("when", _expression(around, Context.WHEN, 0), None)
    if pattern is not _NOWHERE:
        condition = when.hash if when is not None else "" if "when" in table.values else None
        claims.append(Claim(number, name, pattern, methods, host, priority, condition))
    known = ", ".join(sorted(around.upstreams)) or "none; write [upstreams.openai]"
    rewrite = table.take("rewrite", lambda cell: _rewrite(cell, pattern), None)
    buffer_bytes_max = table.take("buffer_bytes_max", whole(0, 256 << 20), 0)
    headers = set_headers(table, around.variables)
    dialect = table.take("dialect", choice(Dialect), inferred_dialect(rewrite or pattern.text))
    upstream = table.need("upstream", lambda cell: _upstream(cell, around), "", f"known upstreams: {known}")
    spoken = _spoken(dialect, rewrite or pattern.text, around.upstreams.get(upstream))
    route = Route(
        name=name,
        pattern=pattern,
        upstream=upstream,
        dialect=dialect,
        meter=_meter(table, around, buffer_bytes_max, spoken),
        methods=methods,
        host=host,
        priority=priority,
        rewrite=rewrite,
        set_headers=headers,
        remove_headers=removed(_levels(table, "remove_headers", many(header_name)), headers, table),
        meters=_named_meters(table, around, buffer_bytes_max, spoken),
        estimate=table.take("estimate", _expression(around, Context.ESTIMATE, 0), None),
        live=table.take("live", _expression(around, Context.LIVE, 0, spoken), None),
        cost=table.take("cost", _expression(around, Context.COST, buffer_bytes_max, spoken), None),
        when=when,
        meter_methods=table.take("meter_methods", _methods, frozenset({"POST"})),
        free=table.take("free", flag, False),
        charge_errors=table.take("charge_errors", flag, False),
        once_per_response=table.take("once_per_response", flag, True),
        inject_usage=table.take("inject_usage", choice(InjectUsage), InjectUsage.AUTO),
        unmeasured=table.take("unmeasured", choice(Unmeasured), Unmeasured.ESTIMATE),
        unmeasured_default=table.take("unmeasured_default", figure("a number of units"), Decimal(1)),
        on_disconnect=table.take("on_disconnect", choice(OnDisconnect), OnDisconnect.CANCEL),
        drain_s=table.take("drain_s", seconds, 60.0),
        drain_tokens_max=table.take("drain_tokens_max", _TOKENS, 4_096),
        hold=table.take("hold", choice(HoldKind), HoldKind.INCREMENTAL),
        # Below 16 tokens a fast stream would wait for the ledger at every other event.
        hold_slice_tokens=table.take("hold_slice_tokens", whole(16, 1_000_000), 512),
        request_bytes_max=table.take("request_bytes_max", whole(1, 1 << 30), 32 << 20),
        output_tokens_max=table.take("output_tokens_max", whole(1, 100_000_000), 4_096),
        input_tokens_max=table.take("input_tokens_max", _TOKENS, None),
        rate_output_estimate=table.take("rate_output_estimate", _TOKENS, 256),
        buffer_bytes_max=buffer_bytes_max,
        models=tuple(dict.fromkeys(table.take("models", many(text), ()))),
        examples=read_examples(table, around.directory),
    )
    route = with_failover(route, table, around.upstreams)
    table.finish("example", "name", "path", "rewrite", *DEFAULTABLE)
    _warn_of_doubled_path(table, route, around.upstreams.get(route.upstream))
    return route


def inferred_dialect(path: str) -> Dialect:
    """Whose SDK calls such a path (the upstream's, where it is rewritten)."""
    if re.search(r"/v1/messages(?:/|\*|$)", path):
        return Dialect.ANTHROPIC
    if "/v1beta/" in path or re.search(r":(?:stream)?[gG]enerateContent$", path):
        return Dialect.GEMINI
    return Dialect.OPENAI


def _spoken(dialect: Dialect, path: str, upstream: UpstreamConfig | None) -> str:
    """Whose usage an expression reads here, as far as warnings go: xAI and watsonx have habits of their own."""
    host = upstream.host if upstream is not None else ""
    if host == "x.ai" or host.endswith(".x.ai"):
        return "xai"
    return "watsonx" if re.search(r"/text/generation(_stream)?$", path) else dialect.value


def _pattern(cell: Cell) -> Pattern:
    written = text(cell)
    try:
        pattern = Pattern.parse(written)
    except ValueError as error:
        raise Wrong(str(error), 'as in "/v1/messages", "/v1/*" or "/v1beta/models/{model}:generateContent"') from None
    own = shadowed(pattern)
    if own is not None:
        raise Wrong(f"gatekeeper answers {own} itself, so this route would never be reached", "give it another prefix")
    return pattern


def _methods(cell: Cell) -> frozenset[str]:
    def method(cell: Cell) -> str:
        written = text(cell)
        if not _METHOD.fullmatch(written):
            upper = written.upper()
            raise Wrong(f"{written!r} is no method", f'write "{upper}"' if _METHOD.fullmatch(upper) else None)
        return written

    found = frozenset(many(method)(cell))
    if not cell.value:
        raise Wrong("this list is empty, so no method is taken", "take it away to take every method")
    return found


def _upstream(cell: Cell, around: Around) -> str:
    name = text(cell)
    if name not in around.upstreams:
        known = ", ".join(sorted(around.upstreams)) or "none; write [upstreams.openai]"
        hint = suggest(name, around.upstreams) or f"known upstreams: {known}"
        raise Wrong(f"there is no upstream {name!r}", hint)
    return name


def _rewrite(cell: Cell, pattern: Pattern) -> str:
    written = text(cell)
    if not re.fullmatch(r"/[\x21-\x7e]*", written) or "?" in written or "#" in written:
        raise Wrong("a path begins with '/' and holds no blank, '?' or '#'", 'as in "/v1/chat/completions" or "/v1/*"')
    if pattern is _NOWHERE:
        return written
    at = written.find("*")
    if at >= 0 and pattern.kind is not PatternKind.PREFIX:
        raise Wrong(f"the path {pattern.text} leaves no rest for '*'", start=at, end=at + 1)
    if 0 <= at < len(written) - 1:
        raise Wrong("'*' may only stand at the end", start=at, end=at + 1)
    if at >= 0 and pattern.names:
        raise Wrong("a path with names leaves no rest for '*'", "name each segment", start=at, end=at + 1)
    for found in re.finditer(r"\{([^{}]*)\}|[{}]", written):
        if found[1] not in pattern.names:
            listed = ", ".join(f"{{{name}}}" for name in pattern.names) or "none"
            hint = f"names in the path: {listed}"
            raise Wrong(f"the path has no name {found[0]}", hint, start=found.start(), end=found.end())
    return written


def _meter(table: Table, around: Around, buffer_bytes_max: int, spoken: str) -> Meter:
    default, mistakes = check_expression(DEFAULT_METER)
    assert default is not None, mistakes
    return table.take("meter", _expression(around, Context.METER, buffer_bytes_max, spoken), default)


def _named_meters(table: Table, around: Around, buffer_bytes_max: int, spoken: str) -> dict[str, Meter]:
    found: dict[str, Meter] = {}
    for level in (table.fallback, table):
        if level is None or not level.has("meters"):
            continue
        for name, cell in level.table("meters").named():
            if not _METER_NAME.fullmatch(name):
                hint = "a letter, then letters, digits, '_' or '-'"
                table.file.complain(cell.path, f"{name!r} cannot be the name of a meter", hint, at_key=True)
            meter = read_cell(cell, _expression(around, Context.METER, buffer_bytes_max, spoken), None)
            if meter is not None:
                found[name] = meter
    return found


def _expression(
    around: Around, context: Context, buffer_bytes_max: int, spoken: str = Dialect.OPENAI.value
) -> Kind[Meter]:
    """An expression; its mistakes are moved to where it is written in the TOML. Some are only wrong for a provider."""

    def read(cell: Cell) -> Meter:
        written = text(cell)
        known = around.meters.get((written, context, buffer_bytes_max, spoken))
        if known is not None:
            return known
        meter, mistakes = check_expression(written, context=context, buffer_bytes_max=buffer_bytes_max, dialect=spoken)
        for mistake in mistakes:
            place = cell.file.places.inside(cell.path, mistake.span.start, mistake.span.end)
            cell.file.note(mistake.message, place, mistake.hint, mistake.severity)
        if meter is None:
            assert mistakes, written
            raise Reported
        around.meters[written, context, buffer_bytes_max, spoken] = meter
        return meter

    return read


def _levels(table: Table, key: str, kind: Kind[tuple[str, ...]]) -> tuple[str, ...]:
    """A list of the defaults and of the route together."""
    found: tuple[str, ...] = ()
    for level in (table.fallback, table):
        if level is not None and level.has(key):
            found += level.take(key, kind, ())
    return found


def _distinct(claims: list[Claim], file: TomlFile) -> None:
    """No two routes of one name, and none that claim the same URLs with the same rank."""
    for number, claim in enumerate(claims):
        for other in claims[:number]:
            path = ("routes", claim.place)
            line = file.line(("routes", other.place, "path"))
            if claim.name and claim.name == other.name:
                hint = "names stand in keys, records and limits: give each route its own"
                message = f"the route on line {line} has the name {claim.name!r} already"
                file.complain((*path, "name"), message, hint)
            if _clash(claim, other):
                hint = "different methods, hosts, priorities or conditions ('when') would say which one is meant"
                message = f"the route {other.name!r} on line {line} takes the same calls"
                file.complain((*path, "path"), message, hint)


def _clash(one: Claim, other: Claim) -> bool:
    methods_meet = one.methods is None or other.methods is None or bool(one.methods & other.methods)
    same_rank = one.host == other.host and one.priority == other.priority
    # Two conditions may hold at once: then the first that is written takes the call. A wrong one is told of already.
    same_condition = one.when == other.when and one.when != ""
    return same_rank and methods_meet and same_condition and one.pattern.shape == other.pattern.shape


def _warn_of_doubled_path(table: Table, route: Route, upstream: UpstreamConfig | None) -> None:
    """An SDK's base URL ends in /v1, and so does the path of a route: written together that is /v1/v1."""
    if upstream is None or not upstream.base_path:
        return
    last = upstream.base_path.rsplit("/", 1)[1]
    target = route.rewrite or route.pattern.text
    if target.startswith(f"/{last}/"):
        message = f"this goes to {upstream.base_path}{target}: is /{last} meant twice?"
        hint = f"take /{last} off the url of upstream {upstream.name!r}, or write a rewrite"
        key = "rewrite" if route.rewrite else "path"
        table.file.complain((*table.path, key), message, hint, severity=Severity.WARNING)
