"""What to say when an expression cannot be read: the message and the hint for each usual slip.

The rule: a parser's list of expected tokens is never shown; people get the fix.
"""

import re

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from gatekeeper.diagnostics import Mistake, Source, Span

_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "matches", "contains", "startsWith", "endsWith"})
_CLOSING = {")": "(", "]": "[", "}": "{"}


def unreadable(problem: UnexpectedInput, source: Source) -> Mistake:
    """The Mistake for what the parser could not read."""
    text = source.text
    if isinstance(problem, UnexpectedCharacters):
        return _character(text, int(problem.pos_in_stream or 0), source)
    assert isinstance(problem, UnexpectedToken)
    token = problem.token
    if token.type == "$END":
        return _end(text, source)
    assert isinstance(token, Token)
    assert token.start_pos is not None
    return _token(text, token.start_pos, str(token), source)


def _character(text: str, at: int, source: Source) -> Mistake:
    rest = text[at:]
    letter = text[at]
    span = Span(at, at + 1)
    if letter in "\"'`":
        hint = f"close it with {letter}" + ("" if letter == "`" else "; a string ends on its own line")
        return Mistake("the string is not closed", source, Span(at, at + len(rest.split("\n")[0])), hint)
    hints = {
        "&": "write '&&' or 'and'",
        "=": "write '==' to compare",
        "“": "use straight quotes",
        "”": "use straight quotes",
        "‘": "use straight quotes",
        "’": "use straight quotes",
        "^": "write '**' for a power",
        "@": "write '#' for the current item",
        "$": "names hold letters, digits and '_'; for other keys write x[\"$key\"]",
        ";": "';' only ends a 'let'",
        "~": None,
    }
    return Mistake(f"unexpected {letter!r}", source, span, hints.get(letter))


def _end(text: str, source: Source) -> Mistake:
    at = len(text.rstrip())
    span = Span(max(0, at - 1), at) if at else Span(0, 0)
    if not text.strip() or re.fullmatch(r"(\s|/\*.*?\*/)*", text, re.DOTALL):
        return Mistake("the expression is empty", source, span, "a first one to try: usage().total")
    opened = _still_open(text)
    if opened is not None:
        sign = text[opened]
        closing = {"(": ")", "[": "]", "{": "}"}[sign]
        return Mistake(f"{sign!r} is not closed", source, Span(opened, opened + 1), f"add {closing!r}")
    if re.search(r"\|\s*[A-Za-z_]\w*$", text[:at]):
        start = text.rindex("|", 0, at)
        return Mistake("the right side of a pipe is a call", source, Span(start, at), "write x | f()")
    if re.search(r"\d\.$", text[:at]):
        message = "a number needs a digit on both sides of the point"
        return Mistake(message, source, Span(at - 1, at), "write 0.5 or 1.0")
    if re.match(r"\s*let\b", text):
        return Mistake("the expression ends too early", source, span, "after 'let x = ...;' comes what is to be read")
    return Mistake("the expression ends too early", source, span, "something must follow")


def _token(text: str, at: int, word: str, source: Source) -> Mistake:
    span = Span(at, at + len(word))
    before = text[:at].rstrip()
    after = text[at + len(word) :].lstrip()
    told = _slip(text, at, word, before, after)
    if told is not None:
        message, hint, start = told
        return Mistake(message, source, Span(start, span.end), hint)
    if word in _CLOSING:
        opened = _still_open(text[:at])
        if opened is None:
            return Mistake(f"{word!r} closes nothing", source, span, "take it out")
        if text[opened] != _CLOSING[word]:
            return Mistake(f"{text[opened]!r} is closed by {word!r}", source, span)
        return Mistake(f"something is missing before {word!r}", source, span)
    return Mistake(f"unexpected {word!r}", source, span)


def _slip(text: str, at: int, word: str, before: str, after: str) -> tuple[str, str | None, int] | None:
    """(message, hint, where it begins) of a slip that is known, or None."""
    last = before[-1:]
    touching = at > 0 and text[at - 1] == last
    if word == "/" and last == "/" and touching:
        return "'//' is not an operator", "floor(a / b) divides without a rest; comments are /* */", at - 1
    if word in ("*", "**") and last == "/" and touching:
        return "the comment is not closed", "end it with */", at - 1
    if word == ":" and last == "?":
        return "'?:' is not an operator", "write a ?? b", at - 1
    if word in ("=", "==") and last == "=" and touching:
        return "'===' is not an operator", "write '=='", at - 2
    if word == "=":
        return "'=' does not compare", "write '=='; a variable is 'let x = ...;'", at
    if word in _COMPARISONS or (word == "not" and re.match(r"(in|matches|contains|startsWith|endsWith)\b", after)):
        return "comparisons do not chain", "join two of them with '&&'", at
    if word == "=>":
        return "a lambda stands only as an argument of a function", "sum(events, e => e.json.n)", at
    return _slip_of_shape(word, last, before, at)


def _slip_of_shape(word: str, last: str, before: str, at: int) -> tuple[str, str | None, int] | None:
    if word == "not":
        return "'not' is looser than comparison here", "put it in parentheses: a == (not b)", at
    if word == "let":
        return "'let' stands at the beginning", "put it in parentheses: (let x = ...; x)", at
    if word == "(" and re.search(r"(\.[A-Za-z_]\w*|[)\]])$", before):
        return "there are no methods", "write f(x), or x | f()", at
    if word == "(" and re.search(r"[\d\"'`]$", before):
        return "this cannot be called", None, at
    if re.search(r"\d\.$", before) or (last == "." and re.match(r"\d", word)):
        return "a number needs a digit on both sides of the point", "write 0.5 or 1.0", at - 1
    if last == "|" and re.match(r"\w", word):
        return "the right side of a pipe is a call", f"write x | {word}()", at
    if last == "|":
        return "the right side of a pipe is a call", "write x | f()", at
    if re.match(r"[\w\"'`#]", word) and re.search(r"[\w\"'`)\]}#]$", before):
        return f"an operator is missing before {word!r}", None, at
    return None


def _still_open(text: str) -> int | None:
    """Where the innermost bracket stands that is not closed, strings and comments set aside."""
    opened: list[int] = []
    pattern = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`[^`]*`|/\*.*?\*/|[()\[\]{}]"
    for found in re.finditer(pattern, text, re.DOTALL):
        sign = found.group()
        if sign in "([{":
            opened.append(found.start())
        elif sign in ")]}" and opened:
            opened.pop()
    return opened[-1] if opened else None
