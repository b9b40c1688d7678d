"""Functions over strings."""

import base64
import binascii
import hashlib
import hmac
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from gatekeeper.meters.functions.spec import Function, ex
from gatekeeper.meters.kinds import NUMBER, TEXT, Kind, Type
from gatekeeper.meters.values import Unmeasurable, decimal_text, grown, json_of, json_text, kind, number

T, A = Kind.TEXT, Kind.ANY
PARTS_MAX = 10_000


def octets(text: str) -> bytes:
    """UTF-8; a lone surrogate, which JSON may hold, is kept as its three bytes."""
    return text.encode("utf-8", "surrogatepass")


def _replace(text: str, old: str, new: str) -> str:
    if not old:
        raise Unmeasurable("replace needs something to look for")
    grown(len(text) + text.count(old) * (len(new) - len(old)), len(text))
    return text.replace(old, new)


def _split(text: str, separator: str) -> list[str]:
    if not separator:
        raise Unmeasurable("split needs a separator")
    if text.count(separator) >= PARTS_MAX:
        raise Unmeasurable(f"split gives more than {PARTS_MAX} parts")
    return text.split(separator)


def _join(items: list[Any], separator: str) -> str:
    parts = [to_text(item) for item in items]
    whole = sum(len(part) for part in parts)
    grown(whole + len(separator) * max(0, len(parts) - 1), whole)
    return separator.join(parts)


def to_text(value: Any) -> str:
    """A value as a string: numbers in plain digits, lists and maps as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json_text(value) if isinstance(value, list | dict) else decimal_text(number(value))


def _base64(text: str) -> str:
    return base64.b64encode(octets(text)).decode()


def _unbase64(text: str) -> str | None:
    try:
        padded = text.strip().replace("-", "+").replace("_", "/")
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def _urldecode(text: str) -> str | None:
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        return None


def _hmac(key: str, text: str) -> str:
    return hmac.new(octets(key), octets(text), hashlib.sha256).hexdigest()


def _json(text: Any) -> Any:
    return json_of(text) if isinstance(text, str) else None


def _len(value: Any) -> int:
    if isinstance(value, str | list | dict):
        return len(value)
    raise Unmeasurable(f"len wants a string, a list or a map, found {kind(value)}")


_ABC_HASH = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
_HMAC = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"


def _text(
    name: str, sentence: str, run: Any, *examples: Any, gives: Type = TEXT, more: tuple[Kind, ...] = ()
) -> Function:
    names = ", ".join(["text", *{"trimPrefix": ["prefix"], "trimSuffix": ["suffix"], "split": ["by"]}.get(name, [])])
    if name == "replace":
        names = "text, old, new"
    if name == "hmacSha256":
        names = "key, text"
    return Function(name, f"{name}({names})", sentence, examples, (T, *more), gives=gives, run=run)


FUNCTIONS = (
    Function(
        "json",
        "json(text)",
        "The parsed JSON; null for empty, broken or non-text data.",
        (ex("json('{\"a\": 1.50}').a", "1.5"), ex("json('[DONE]')", "null")),
        (A,),
        run=_json,
        sees_null=True,
    ),
    Function(
        "jsonDecode",
        "jsonDecode(text)",
        "The same as json.",
        (ex("jsonDecode('[1, 2]')[1]", "2"),),
        (A,),
        run=_json,
        sees_null=True,
    ),
    Function(
        "jsonEncode",
        "jsonEncode(value)",
        "Compact JSON of a value, numbers with their exact digits.",
        (ex("jsonEncode({a: [1, 0.5, null]})", '"{\\"a\\":[1,0.5,null]}"'),),
        (A,),
        gives=TEXT,
        run=json_text,
        sees_null=True,
    ),
    _text("lower", "In lower case.", str.lower, ex("lower('GPT-4o')", '"gpt-4o"')),
    _text("upper", "In upper case.", str.upper, ex("upper('abc')", '"ABC"')),
    _text("trim", "Without the white space at both ends.", str.strip, ex("trim('  a b ')", '"a b"')),
    _text(
        "trimPrefix",
        "Without the prefix, if it is there.",
        str.removeprefix,
        ex("trimPrefix('models/x', 'models/')", '"x"'),
        more=(T,),
    ),
    _text(
        "trimSuffix",
        "Without the suffix, if it is there.",
        str.removesuffix,
        ex("trimSuffix('a.json', '.json')", '"a"'),
        more=(T,),
    ),
    _text("replace", "Every `old` replaced by `new`.", _replace, ex("replace('a-b-c', '-', '')", '"abc"'), more=(T, T)),
    _text(
        "split",
        "The parts between the separators.",
        _split,
        ex("split('a,b', ',')", '["a","b"]'),
        gives=Type(Kind.LIST, TEXT),
        more=(T,),
    ),
    Function(
        "join",
        "join(list, by)",
        "The items as strings, with `by` between them.",
        (ex("join(['a', 1, true], '-')", '"a-1-true"'),),
        (Kind.LIST, T),
        gives=TEXT,
        run=_join,
    ),
    Function(
        "len",
        "len(x)",
        "Characters of a string, items of a list, keys of a map, events of a stream.",
        (ex("len('abc')", "3"), ex("len([1, 2])", "2"), ex("len(events)", "2", "data: a\n\ndata: b\n\n")),
        (A,),
        gives=NUMBER,
        run=_len,
    ),
    Function(
        "toString",
        "toString(value)",
        "A value as a string: plain digits, lists and maps as JSON, null as ''.",
        (ex("toString(0.50)", '"0.5"'), ex("toString(null)", '""')),
        (A,),
        gives=TEXT,
        run=to_text,
        sees_null=True,
    ),
    _text("base64Encode", "Base64 of the UTF-8 bytes.", _base64, ex("base64Encode('hi')", '"aGk="')),
    _text(
        "base64Decode",
        "The text in base64 (either alphabet); null for junk.",
        _unbase64,
        ex("base64Decode('aGk')", '"hi"'),
        ex("base64Decode('%')", "null"),
    ),
    _text("urlEncode", "Escaped for a query.", quote_plus, ex("urlEncode('a b&c')", '"a+b%26c"')),
    _text("urlDecode", "A query value, unescaped.", _urldecode, ex("urlDecode('a+b%26c')", '"a b&c"')),
    _text(
        "sha256",
        "Hex SHA-256 of the UTF-8 bytes.",
        lambda text: hashlib.sha256(octets(text)).hexdigest(),
        ex("sha256('abc')", f'"{_ABC_HASH}"'),
    ),
    _text(
        "hmacSha256",
        "Hex HMAC-SHA-256.",
        _hmac,
        ex("hmacSha256('key', 'The quick brown fox jumps over the lazy dog')", f'"{_HMAC}"'),
        more=(T,),
    ),
)
