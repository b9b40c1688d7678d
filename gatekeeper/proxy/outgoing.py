"""Headers and target on both legs: what is dropped, what is ours, what passes untouched.

The rules are RFC 9110 7.6.1 (hop-by-hop fields) and the product's own: the customer's key never goes upstream, the
upstream's key never comes back, the path is bytes and stays as it came.
"""

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from gatekeeper.config.gateway import AuthKind, Route, UpstreamConfig, Variable
from gatekeeper.errors import LimitState
from gatekeeper.money import amount_text, dollars_text
from gatekeeper.ports import Outgoing, RawHeaders
from gatekeeper.proxy.call import Admitted
from gatekeeper.proxy.views import SECRET_HEADERS
from gatekeeper.rules.limits import DOLLARS
from gatekeeper.rules.routing import rewritten

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
CALL_ENTROPY_BYTES = 10
_BASE32 = "0123456789abcdefghijklmnopqrstuv"
# What `quote` leaves as it is, in a path and in a value of ours.
_PRINTED = re.compile(rb"[A-Za-z0-9_.~/:@!$&'()*+,;=%-]*")
_PLAIN = re.compile(r"[A-Za-z0-9_.~:@+ -]*")
_PAIRS = [high + low for high in _BASE32 for low in _BASE32]
_SHIFTS = range(120, -1, -10)
# Never forwarded from a client: keys, sessions, what we set ourselves, and what the next hop frames anew.
_OURS = SECRET_HEADERS | {b"host", b"content-length", b"expect", b"x-user-id", b"x-agent-id", b"x-plan-id"}
# Names and values of parameters that a redirect may repeat.
_PLACES = frozenset({b"location", b"content-location"})
# What is shorter stands in headers by chance, and is no secret: a local server's placeholder.
_SECRET_BYTES_MIN = 8
_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip"})


def named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Every field that a Connection header names (all its lines joined; empty elements are legal)."""
    joined = b",".join(value for name, value in headers if name.lower() == b"connection")
    return frozenset(item for part in joined.split(b",") if (item := part.strip().lower()))


def build_outgoing(admitted: Admitted, upstream: UpstreamConfig, *, inject: bool) -> Outgoing:
    """The request for the upstream. ``inject`` False sends the body without our ``stream_options``."""
    call = admitted.call
    body = admitted.body
    if not inject and admitted.plain_body is not None:
        body = admitted.plain_body
    return Outgoing(
        upstream=upstream,
        method=call.method,
        target=_target(admitted, upstream),
        headers=_request_headers(admitted, upstream, identity=inject),
        body=body,
        content_length=admitted.content_length,
    )


def _request_headers(admitted: Admitted, upstream: UpstreamConfig, *, identity: bool) -> RawHeaders:
    call = admitted.call
    fixed = _fixed(call.route, upstream)
    # Computed before anything of ours is added: `Connection: authorization` must not delete the upstream's key.
    dropped = fixed.dropped
    if call.header(b"connection") is not None:
        dropped |= named_by_connection(call.headers)
    if identity:
        # The usage chunk is to be found and hidden in the bytes, so they must not be encoded.
        dropped |= {b"accept-encoding"}
    sent: RawHeaders = [fixed.host]
    sent += [(name, value) for name, value in call.headers if not _is_dropped(name.lower(), dropped)]
    if identity:
        sent.append((b"Accept-Encoding", b"identity"))
    sent += _forwarded(admitted)
    sent += [(name, value) for name, kind in fixed.varying if (value := _value(admitted, kind))]
    sent += fixed.sent
    return sent


class _Fixed:
    """What the headers of a route's calls have in common at one upstream: made for the first of them."""

    __slots__ = ("dropped", "host", "route", "sent", "upstream", "varying")

    def __init__(self, route: Route, upstream: UpstreamConfig) -> None:
        self.route = route
        self.upstream = upstream
        self.host = (b"Host", _host(upstream))
        self.varying = [(header.name.encode("latin-1"), header.value) for header in route.set_headers]
        ours = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in upstream.headers]
        ours += _auth_header(upstream)
        self.sent = [(name, value) for name, value in ours if value]
        self.dropped = HOP_BY_HOP | _OURS | _FORWARDED | {name.lower() for name, _ in (*self.varying, *ours)}
        self.dropped |= {name.lower().encode("latin-1") for name in route.remove_headers}


# By identity: a reload makes new routes and upstreams. An entry keeps its own two alive.
_FIXED: dict[tuple[int, int], _Fixed] = {}
_FIXED_MAX = 1_024


def _fixed(route: Route, upstream: UpstreamConfig) -> _Fixed:
    found = _FIXED.get((id(route), id(upstream)))
    if found is None:
        if len(_FIXED) >= _FIXED_MAX:
            _FIXED.clear()
        found = _FIXED[id(route), id(upstream)] = _Fixed(route, upstream)
    return found


def _is_dropped(name: bytes, dropped: frozenset[bytes]) -> bool:
    """Also in the spelling that servers behind CGI and WSGI cannot tell apart: ``X_User_ID``."""
    if b"_" in name and name.replace(b"_", b"-") in dropped:
        return True
    return name in dropped or name.startswith(b"x-gatekeeper-")


def _value(admitted: Admitted, value: str | Variable) -> bytes:
    if not isinstance(value, Variable):
        return value.encode("latin-1")
    holder = admitted.holder
    # One after the other: a look-up hashes a member of an enum, which is done in Python.
    if value is Variable.USER_ID:
        # Without a named user the customer is the user: the upstream can always tell its callers apart.
        found = admitted.user_id or holder.customer.id
    elif value is Variable.CUSTOMER_ID:
        found = holder.customer.id
    elif value is Variable.PLAN_ID:
        found = holder.customer.plan_id
    elif value is Variable.KEY_ID:
        found = holder.key.id
    elif value is Variable.AGENT_ID:
        found = admitted.agent_id or ""
    else:
        assert value is Variable.CALL_ID, value
        found = admitted.call.id
    return (found if _PLAIN.fullmatch(found) else quote(found, safe="._:@-+ ")).encode("ascii")


def _auth_header(upstream: UpstreamConfig) -> RawHeaders:
    auth = upstream.auth
    if auth.secret is None or not auth.secret.reveal():
        return []
    secret = auth.secret.reveal().encode("latin-1")
    if auth.kind is AuthKind.BEARER:
        return [(b"Authorization", b"Bearer " + secret)]
    if auth.kind is AuthKind.HEADER:
        return [(auth.name.encode("latin-1"), secret)]
    return []


def _host(upstream: UpstreamConfig) -> bytes:
    usual = {"http": 80, "https": 443}[upstream.scheme]
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    return (host if upstream.port == usual else f"{host}:{upstream.port}").encode("ascii")


def _forwarded(admitted: Admitted) -> RawHeaders:
    call = admitted.call
    trusted = call.gateway.server.trusts(call.client_host)
    before = [value for name, value in call.headers if name.lower() == b"x-forwarded-for"] if trusted else []
    chain = b", ".join([*before, (call.client_host or "unknown").encode("ascii", "replace")])
    scheme = (call.header(b"x-forwarded-proto") if trusted else None) or call.scheme.encode("ascii")
    host = (call.header(b"x-forwarded-host") if trusted else None) or call.header(b"host")
    sent = [(b"X-Forwarded-For", chain), (b"X-Forwarded-Proto", scheme)]
    return [*sent, (b"X-Forwarded-Host", host)] if host else sent


def _target(admitted: Admitted, upstream: UpstreamConfig) -> bytes:
    call = admitted.call
    route = call.route
    path = upstream.base_path.encode("latin-1") + rewritten(
        route.rewrite, route.pattern, admitted.candidate.path, admitted.candidate.names
    )
    query = call.credentials.query
    auth = upstream.auth
    if auth.kind is AuthKind.QUERY and auth.secret is not None and auth.secret.reveal():
        ours = quote(auth.name, safe="").encode("ascii") + b"=" + quote(auth.secret.reveal(), safe="").encode("ascii")
        query = without_parameter(query, auth.name.encode("utf-8"))
        query = query + b"&" + ours if query else ours
    return path + b"?" + query if query else path


def without_parameter(query: bytes, name: bytes) -> bytes:
    """The query without every parameter of that name; the others stay byte for byte."""
    if not query:
        return query
    parts = query.split(b"&")
    return b"&".join(part for part in parts if unquote_to_bytes(part.partition(b"=")[0]) != name)


def response_headers(admitted: Admitted, headers: RawHeaders, *, keep_length: bool) -> RawHeaders:
    """The upstream's head without what belongs to its hop, then ours: call id, limits, what was changed."""
    dropped = set(HOP_BY_HOP)
    lowered = [(name.lower(), (name, value)) for name, value in headers]
    if any(name == b"connection" for name, _ in lowered):
        dropped |= named_by_connection(headers)
    if not keep_length:
        dropped.add(b"content-length")
    ours = [(b"X-Gatekeeper-Call-Id", admitted.call.id.encode("ascii"))]
    if admitted.call.route.show_upstream:
        ours.append((b"X-Gatekeeper-Upstream", admitted.candidate.upstream.encode("ascii")))
    if admitted.model_requested is not None:
        ours.append((b"X-Gatekeeper-Model-Requested", _shown(admitted.model_requested)))
        ours.append((b"X-Gatekeeper-Model-Used", _shown(admitted.ask.model or "")))
    if admitted.clamped_output_tokens is not None:
        ours.append((b"X-Gatekeeper-Output-Clamped", str(admitted.clamped_output_tokens).encode("ascii")))
    if admitted.cost_estimate_nano is not None and any(state.dimension == DOLLARS for state in admitted.granted.stock):
        # Only where a budget applies: elsewhere the provider's price is the operator's own business.
        ours.append((b"X-Cost-Estimated", dollars_text(admitted.cost_estimate_nano).encode("ascii")))
    ours += limit_headers(admitted.granted.stock, admitted.granted.rates, admitted.call.started_ms)
    dropped |= {name.lower() for name, _ in ours}
    sent = [field for name, field in lowered if name not in dropped and not name.startswith(b"x-gatekeeper-")]
    upstream = admitted.call.gateway.upstreams.get(admitted.candidate.upstream)
    return (sent if upstream is None else _without_secret(sent, upstream)) + ours


def _shown(model: str) -> bytes:
    """A name that may hold any printable letter."""
    return quote(model, safe="._:@-+/ ").encode("ascii")


def _without_secret(headers: RawHeaders, upstream: UpstreamConfig) -> RawHeaders:
    """The upstream's key never comes back: out of a redirect its parameter is cut, and any other field that repeats the
    key, as it is or percent-encoded, is dropped."""
    auth = upstream.auth
    secret = b"" if auth.secret is None else auth.secret.reveal().encode("latin-1", "replace")
    if not secret:
        return headers
    found: RawHeaders = []
    for name, value in headers:
        place = name.lower() in _PLACES
        if place and auth.kind is AuthKind.QUERY:
            value = _without_key(value, auth.name.encode("latin-1"), secret)
        long = len(secret) >= _SECRET_BYTES_MIN and name.lower() != b"content-length"
        if not ((place or long) and _repeats(value, secret)):
            found.append((name, value))
    return found


def _without_key(url: bytes, name: bytes, secret: bytes) -> bytes:
    """The URL without the parameter of that name and value, in any spelling; the rest stays byte for byte."""
    before, mark, fragment = url.partition(b"#")
    path, asks, query = before.partition(b"?")
    parts = query.split(b"&")
    kept = [part for part in parts if tuple(unquote_to_bytes(half) for half in part.split(b"=", 1)) != (name, secret)]
    if len(kept) == len(parts):
        return url
    return path + (asks + b"&".join(kept) if kept else b"") + mark + fragment


def _repeats(value: bytes, secret: bytes) -> bool:
    if secret in value:
        return True
    # Twice: a redirect to a login page carries the first URL encoded within its own.
    once = unquote_to_bytes(value) if b"%" in value else value
    return secret in once or (b"%" in once and secret in unquote_to_bytes(once))


def limit_headers(stock: tuple[LimitState, ...], rates: tuple[LimitState, ...], now_ms: int) -> RawHeaders:
    """``X-Quota-*`` for the first stock limit that is not in dollars, ``X-Budget-*`` for the dollar limit with the
    least left (and what is left by scope), ``X-RateLimit-*`` for the first rate; resets in whole seconds."""
    budgets = [state for state in stock if state.dimension == DOLLARS and state.cap is not None]
    quota = next((state for state in stock if state.dimension != DOLLARS), None)
    budget = min(budgets, key=lambda state: state.remaining or 0) if budgets else None
    sent: RawHeaders = []
    for names, state in ((_QUOTA, quota), (_BUDGET, budget), (_RATE, rates[0] if rates else None)):
        if state is not None:
            sent += _limit_headers(names, state, now_ms)
    return sent + _by_scope(budgets)


def _by_scope(budgets: list[LimitState]) -> RawHeaders:
    """``X-Budget-Remaining-Agent`` and so on: of each scope that has limits in dollars the least that is left."""
    if not budgets:
        return []
    left: dict[str, int] = {}
    for state in budgets:
        mine = state.remaining or 0
        left[state.scope] = min(mine, left.get(state.scope, mine))
    return [
        (f"X-Budget-Remaining-{scope.replace(',', '-').title()}".encode("ascii"), dollars_text(nano).encode("ascii"))
        for scope, nano in left.items()
    ]


def _names(prefix: str) -> tuple[bytes, ...]:
    return tuple([f"{prefix}-{name}".encode("ascii") for name in ("Limit", "Used", "Remaining", "Reset")])


_QUOTA, _BUDGET, _RATE = _names("X-Quota"), _names("X-Budget"), _names("X-RateLimit")


def _limit_headers(names: tuple[bytes, ...], state: LimitState, now_ms: int) -> RawHeaders:
    dimension, cap, taken = state.dimension, state.cap, state.used + state.held
    limit = left = b"unlimited"
    if cap is not None:
        limit = amount_text(dimension, cap).encode("ascii")
        left = amount_text(dimension, max(0, cap - taken)).encode("ascii")
    used = amount_text(dimension, taken).encode("ascii")
    sent = [(names[0], limit), (names[1], used), (names[2], left)]
    if state.resets_ms is not None:
        sent.append((names[3], b"%d" % max(0, -(-(state.resets_ms - now_ms) // 1000))))
    return sent


def quoted(path: bytes) -> str:
    """A raw path for records and logs: printable, without the query, which may carry a key."""
    # Nearly every path is plain: quoting letter by letter takes 20 times as long.
    return path.decode("ascii") if _PRINTED.fullmatch(path) else quote_from_bytes(path, safe="/:@!$&'()*+,;=~%-._")


def new_call_id(now_ms: int, entropy: bytes) -> str:
    """``call_`` and 26 letters of base 32: 48 bits of time, then 80 random ones.

    Ids sort by time, so that records are appended to the database's indexes instead of scattered over them.
    """
    assert len(entropy) == CALL_ENTROPY_BYTES
    # 128 bits and two of padding, ten bits at a time: `base64.b32hexencode` takes five times as long.
    bits = (now_ms << 82) | (int.from_bytes(entropy, "big") << 2)
    return "call_" + "".join([_PAIRS[(bits >> shift) & 1023] for shift in _SHIFTS])
