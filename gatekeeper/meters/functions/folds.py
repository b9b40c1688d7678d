"""The functions that walk a stream or a list, read the stream, or price something: their records.

What they compute stands in ``meters.folds`` (walking), ``meters.slots`` (reading) and ``meters.compile`` (the rest).
"""

from gatekeeper.meters.functions.spec import Function, Style, ex
from gatekeeper.meters.kinds import ANY, BOOL, EVENT, LIST, MAP, NUMBER, TEXT, USAGE, Kind, Shape, Type, stream

A, B = Kind.ANY, Kind.BODY

_CHAT = (
    'data: {"usage":null}\n\n'
    'data: {"usage":{"prompt_tokens":78,"completion_tokens":9,"total_tokens":87}}\n\n'
    "data: [DONE]\n\n"
)
_SPLIT = (
    'data: {"type":"message_start","message":{"usage":{"input_tokens":20,"output_tokens":1}}}\n\n'
    'data: {"type":"message_delta","usage":{"output_tokens":9}}\n\n'
)
_TEXT = "text/plain"


def _fold(
    name: str,
    sentence: str,
    *examples: tuple[str, str] | tuple[str, str, str],
    gives: Type = ANY,
    f: str = "f",
    least: int = 1,
) -> Function:
    shown = f"{name}(xs[, {f}])" if least == 1 else f"{name}(xs, {f})"
    return Function(
        name,
        shown,
        sentence,
        tuple(ex(*example) for example in examples),
        (A, A),
        2 - least,
        gives=gives,
        style=Style.FOLD,
        argument=f,
    )


FUNCTIONS = (
    _fold(
        "last",
        "The last item, or the last f of an item, that is not null.",
        ("last(events, .json.usage.total_tokens)", "87", _CHAT),
        ("last([1, null])", "1"),
    ),
    _fold(
        "first",
        "The first item, or the first f of an item, that is not null.",
        ("first(events, .json.usage.total_tokens)", "87", _CHAT),
        ("first([null, 2, 3])", "2"),
    ),
    _fold(
        "sum",
        "The exact sum; null items are left out, and no item gives null.",
        ("sum([1, null, 0.1])", "1.1"),
        ("sum([])", "null"),
        ("sum([{n: 1}, {n: 2}], .n)", "3"),
        gives=NUMBER,
    ),
    Function(
        "max",
        "max(xs[, f]) or max(a, b, ...)",
        "The largest of a list or stream, or of the arguments.",
        (ex("max([1, 3, null])", "3"), ex("max(2, 5)", "5"), ex("max(events, .json.usage.total_tokens)", "87", _CHAT)),
        (A,),
        rest=A,
        gives=NUMBER,
        style=Style.FOLD,
        argument="f",
    ),
    Function(
        "min",
        "min(xs[, f]) or min(a, b, ...)",
        "The smallest of a list or stream, or of the arguments.",
        (ex("min([4, 3])", "3"), ex("min(2, 5)", "2")),
        (A,),
        rest=A,
        gives=NUMBER,
        style=Style.FOLD,
        argument="f",
    ),
    _fold("avg", "The average; null items are left out.", ("avg([1, 2, null])", "1.5"), gives=NUMBER),
    _fold(
        "count",
        "How many items there are, or how many pass the test.",
        ("count(events)", "3", _CHAT),
        ("count([1, 2, 3], # > 1)", "2"),
        gives=NUMBER,
        f="p",
    ),
    _fold("any", "Whether one item passes the test.", ("any([1, 2], # == 2)", "true"), gives=BOOL, f="p", least=2),
    _fold("all", "Whether every item passes the test.", ("all([1, 2], # == 2)", "false"), gives=BOOL, f="p", least=2),
    _fold(
        "merge",
        "Shallow maps laid over each other, field by field; the last value that is not null stays.",
        ("merge(events, e => e.json.usage ?? e.json.message.usage)", '{"input_tokens":20,"output_tokens":9}', _SPLIT),
        gives=MAP,
    ),
    Function(
        "filter",
        "filter(xs, p)",
        "The items that pass the test.",
        (ex("filter([1, 2, 3], # > 1)", "[2,3]"),),
        (A, A),
        gives=LIST,
        style=Style.PIPE,
        argument="p",
    ),
    Function(
        "map",
        "map(xs, f)",
        "f of every item.",
        (ex("map([1, 2], # * 10)", "[10,20]"),),
        (A, A),
        gives=LIST,
        style=Style.PIPE,
        argument="f",
    ),
    Function(
        "sseEvents",
        "sseEvents(allData)",
        "The events of the answer: the same as `events`.",
        (ex("sseEvents(allData)[count(sseEvents(allData)) - 2].json.usage.total_tokens", "87", _CHAT),),
        (B,),
        gives=stream(EVENT, Shape.EVENT),
        style=Style.SOURCE,
    ),
    Function(
        "sseAllData",
        "sseAllData(allData)",
        "The data of every event.",
        (ex("count(sseAllData(allData), # == '[DONE]')", "1", _CHAT),),
        (B,),
        gives=stream(TEXT, Shape.DATA),
        style=Style.SOURCE,
    ),
    Function(
        "sseLastData",
        "sseLastData(allData)",
        "The data of the last event that is neither empty nor `[DONE]`, or null.",
        (ex("json(sseLastData(allData)).usage.total_tokens ?? 1", "87", _CHAT),),
        (B,),
        gives=TEXT,
        style=Style.SOURCE,
    ),
    Function(
        "lines",
        "lines(allData)",
        "The lines of the answer's body.",
        (ex("count(lines(allData))", "3", "a\n\nb\n", _TEXT),),
        (B,),
        gives=stream(TEXT, Shape.VALUE),
        style=Style.SOURCE,
    ),
    Function(
        "linesNonEmpty",
        "linesNonEmpty(allData)",
        "The lines that hold more than white space.",
        (ex("last(linesNonEmpty(allData))", '"b"', "a\n\nb\n", _TEXT),),
        (B,),
        gives=stream(TEXT, Shape.VALUE),
        style=Style.SOURCE,
    ),
    Function(
        "usage",
        "usage()",
        "What the provider billed, normalised over all provider shapes; null where nothing was said.",
        (ex("usage().total", "29", _SPLIT), ex("usage().output", "9", _CHAT)),
        gives=USAGE,
        style=Style.SPECIAL,
    ),
    Function(
        "tokens",
        "tokens(text)",
        "An estimate of how many tokens a text has; marked as estimated.",
        (ex("tokens('')", "0"),),
        (Kind.TEXT,),
        gives=NUMBER,
        style=Style.SPECIAL,
    ),
    Function(
        "cost",
        "cost(model, usage())",
        "Dollars that this usage costs by the price list; null without a price.",
        (ex("cost(null, null)", "null"),),
        (Kind.TEXT, Kind.MAP),
        gives=NUMBER,
        style=Style.SPECIAL,
    ),
)
