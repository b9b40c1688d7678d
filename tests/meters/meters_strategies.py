"""Random expressions and random answers, for the law tests.

Expressions are built from pieces that fit together often; what the checker refuses is thrown away by the test.
"""

import json

from hypothesis import strategies as st

from gatekeeper.meters import RequestView

KEYS = ("usage", "n", "message", "total_tokens", "a/b", "ü", "x")
LITERALS = (
    "0",
    "1",
    "2.5",
    "0.1",
    "-3",
    "null",
    "true",
    "false",
    "'a'",
    "'usage'",
    "''",
    "[]",
    "[1, null, 2]",
    "{a: 1}",
)
PATHS = (
    ".json.usage.total_tokens", ".json.n", ".json.usage", ".json.message.usage.n", ".json", ".data", ".event", ".index",
    ".json['a/b']", ".json['ü']", ".json.x[0].n", ".json[0].n", ".json.usage.n",
)  # fmt: skip
STREAMS = (
    "events", "sseEvents(allData)", "filter(events, .json.n != null)", "filter(events, .json.usage.n > 1)",
    "filter(events, .event == 'a')", "filter(events, e => e.json.message != null && e.index > 0)",
)  # fmt: skip
VALUES = (
    "map(events, .json.n)", "map(events, .json.usage)", "map(filter(events, .json.n == 2), .json.x)", "lines(allData)",
    "sseAllData(allData)", "linesNonEmpty(allData)", "map(events, e => {n: e.json.n, i: e.index})",
)  # fmt: skip
READS = (
    "usage().total", "usage().input", "usage()", "response.n", "response.usage.total_tokens", "response", "status",
    "request.n", "request.x", "model", "requestBytes", "responseBytes", "json(allData).n", "outcome", "durationMs",
    "json(sseLastData(allData)).usage.total_tokens", "sseLastData(allData)", "len(allData)", "len(response.x)",
    "allData contains 'total_tokens'", "sum(response.x, .n)", "count(response.x)", "response.x[-1].n",
    "map([0, 1], i => events[0].json.x[i].n)", "sum([1, 2], i => i * count(events))", "map(response.x, i => i.n)",
    "sum([1, 2], i => (response.x[i].n ?? 0) + (request.x[i].n ?? 0))", "map(request.x, x => x.n + response.n)",
    "sum(events, e => sum(e.json.x, x => x.n * e.index))", "count(events, e => any(e.json.x, .n == e.json.n))",
    "let r = response; r.n + len(r.x)", "let k = request.n; sum(events, .json.n * k)", "len(sseLastData(allData))",
)  # fmt: skip
TWO_ARGUMENTS = ("coalesce", "max", "min", "default")
ONE_ARGUMENT = ("abs", "round", "toInt", "not ", "-", "len", "toString")
TEXT_FOLDS = ("last", "first", "sum", "max", "min", "avg", "merge", "count", "any", "all")


@st.composite
def item_functions(draw: st.DrawFn) -> str:
    """The function of an aggregate over events."""
    path = draw(st.sampled_from(PATHS))
    other = draw(st.sampled_from(PATHS))
    literal = draw(st.sampled_from(LITERALS))
    forms = [
        path, f"e => e{path}", f"{path} ?? {literal}", f"e => e{path} ?? e{other}", f"({path} ?? 0) + ({other} ?? 0)",
        f"{path} == {literal}", f"{path} != null", f"{path} > 1", f"{path} == null ? {literal} : {path}",
        f"len({path})", f"{path} * 2", f"e => let u = e{path}; u == null ? {literal} : u", "'usage.n'", "1",
        f"has({path}, 'n')", f"sum({path}, .n)", f"toInt({path})", f"'n' in {path}", f"{path} + {other}",
        f"{path} / {other}", f"keys({path})",
    ]  # fmt: skip
    return draw(st.sampled_from(forms))


@st.composite
def leaves(draw: st.DrawFn) -> str:
    """Something that reads the stream, or a literal."""
    fold = draw(st.sampled_from(TEXT_FOLDS))
    place = draw(st.integers(-3, 3))
    path = draw(st.sampled_from(PATHS))
    streams = draw(st.sampled_from(STREAMS))
    values = draw(st.sampled_from(VALUES))
    forms = [
        f"{fold}({streams}, {draw(item_functions())})", f"{fold}({values})", f"{fold}({values}, .n)",
        f"{fold}({values}, json(#).n)", f"{streams}[{place}]{path}", f"{values}[{place}]", f"{values}[{place}].n",
        f"last({streams}){path}", f"first({streams}){path}", f"count({streams})",
        f"{streams}[count({streams}) - {abs(place) + 1}]{path}", f"let E = {streams}; E[count(E) - 1]{path}",
        f"len({values})", f"keys(last({streams}, .json)) | len()", f"json({values}[{place}]).n",
        draw(st.sampled_from(READS)), draw(st.sampled_from(READS)), draw(st.sampled_from(LITERALS)),
    ]  # fmt: skip
    return draw(st.sampled_from(forms))


def combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Larger expressions out of smaller ones."""
    signs = st.sampled_from(["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "??", "in", "contains"])
    return st.one_of(
        st.builds(lambda a, sign, b: f"({a}) {sign} ({b})", parts, signs, parts),
        st.builds(lambda a, b: f"({a}) == null ? ({b}) : ({a})", parts, parts),
        st.builds(lambda a, b, c: f"({a}) > 1 ? ({b}) : ({c})", parts, parts, parts),
        st.builds(lambda name, a, b: f"{name}({a}, {b})", st.sampled_from(TWO_ARGUMENTS), parts, parts),
        st.builds(lambda name, a: f"{name}({a})", st.sampled_from(ONE_ARGUMENT), parts),
        st.builds(lambda a, b: f"let v = {a}; (v) ?? ({b})", parts, parts),
        st.builds(lambda a, b: f"[{a}, {b}]", parts, parts),
    )  # fmt: skip


EXPRESSIONS = st.recursive(leaves(), combined, max_leaves=4)

NUMBERS = st.sampled_from([0, 1, 2, 87, 2**53 + 1, 2**64 + 1, 0.1, 2.5, -3, 1.0, True, False, None])
JSON = st.recursive(
    NUMBERS | st.sampled_from(["", "a", "usage", 'q"u\\o', "ü", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


def usage_of(n: int, m: int) -> dict[str, object]:
    """A chunk that says what was used."""
    counts = {"prompt_tokens": n, "completion_tokens": m, "total_tokens": n + m, "n": m}
    return {"usage": counts, "n": n, "x": [{"n": m}]}


USAGE = st.builds(usage_of, st.integers(0, 99), st.integers(0, 99))


def escaped(text: str) -> str:
    """The same JSON with its keys' first letters spelled as escapes."""
    return text.replace('"usage"', '"\\u0075sage"').replace('"n"', '"\\u006e"').replace('"a/b"', '"a\\/b"')


PAYLOADS = st.one_of(
    st.builds(json.dumps, USAGE | JSON),
    st.builds(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode(), USAGE | JSON),
    st.builds(lambda value: escaped(json.dumps(value)), USAGE),
    st.sampled_from(["[DONE]", "", "{", "null", '{"n":1e400}', '{"n":0.30000000000000000001}', '{"n":NaN}', "plain"]),
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, str]:
    """(body, content type)."""
    payloads = draw(st.lists(PAYLOADS, max_size=6))
    form = draw(st.sampled_from(["sse", "sse", "sse", "json", "array", "ndjson", "text", "raw"]))
    if form == "sse":
        end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
        events = [
            draw(st.sampled_from(["", "event: a" + end, ": hi" + end])) + f"data: {one}{end}{end}" for one in payloads
        ]
        body = "".join(events).encode("utf-8", "replace")
        return body[: len(body) - draw(st.integers(0, 3))], "text/event-stream"
    if form == "array":
        return ("[" + ",\n".join(one for one in payloads if one) + "]").encode("utf-8", "replace"), "application/json"
    if form == "ndjson":
        return "\n".join(payloads).encode("utf-8", "replace"), "application/x-ndjson"
    if form == "raw":
        return draw(st.binary(max_size=60)), draw(
            st.sampled_from(["text/event-stream", "application/json", "", "text/html"])
        )
    return "".join(payloads[:1]).encode("utf-8", "replace"), "application/json" if form == "json" else "text/plain"


REQUESTS = st.builds(
    lambda body, model: RequestView(body=None if body is None else json.dumps(body).encode(), model=model),
    st.none() | JSON | USAGE, st.sampled_from([None, "gpt-4o", "usage"]),
)  # fmt: skip
SIZES = st.lists(st.integers(1, 9), max_size=4)
