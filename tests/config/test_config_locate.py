"""The place of every key and value in a TOML text, for documents written in every style that TOML knows."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.config.locate import KeyPath, characters, locate
from gatekeeper.diagnostics import Span

NAMES = st.sampled_from(["a", "b", "c", "key-1", "k_2", "a.b", "ü", 'q"q', "", "1", "true", "[x]", "#"])
LETTERS = st.sampled_from(list("ab'\"\\#[]{}=,.\n\t ü😀$é"))


class Writer:
    """Writes a random document; every scalar is unlike every other, so that a mixed-up place shows."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.count = 0

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def key(self, name: str) -> str:
        if name.isascii() and name.replace("-", "").replace("_", "").isalnum() and self.one_of(True, True, False):
            return name
        if "'" not in name and self.one_of(True, False):
            return f"'{name}'"
        return json.dumps(name, ensure_ascii=self.one_of(True, False))

    def blank(self) -> str:
        return self.one_of("", " ", "\t", "  ")

    def newline(self) -> str:
        return self.one_of("\n", "\n\n", "\n  # a = 'comment' [x]\n", ' # """\n')

    def string(self) -> str:
        self.count += 1
        value = f"{''.join(self.draw(st.lists(LETTERS, max_size=6)))}{self.count}"
        escaped = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        styles = [escaped]
        if "'" not in value and "\n" not in value:
            styles.append(f"'{value}'")
        if "'''" not in value and not value.endswith("'"):
            styles.append(f"'''\n{value}'''")
            styles.append(f"'''{value}'''''")
        styles.append('"""' + self.one_of("", "\n") + escaped[1:-1].replace("\\n", "\n") + '"""')
        styles.append('"""' + escaped[1:-1] + '\\\n    "" \\"x""""')
        return self.one_of(*styles)

    def scalar(self) -> str:
        self.count += 1
        n = self.count
        number = self.one_of(str(n), f"{n}.5", f"1_0{n}", f"0x{n:x}", f"2024-01-01 00:{n // 60:02}:{n % 60:02}")
        return self.string() if self.one_of(True, False) else number

    def value(self, depth: int) -> str:
        kind = self.one_of("scalar", "scalar", "array", "inline") if depth else "scalar"
        if kind == "scalar":
            return self.scalar()
        if kind == "inline":
            names = self.draw(st.lists(NAMES, max_size=3, unique=True))
            pairs = [f"{self.key(name)}{self.blank()}={self.blank()}{self.value(depth - 1)}" for name in names]
            return "{ " + f"{self.blank()},{self.blank()}".join(pairs) + " }"
        gap = self.one_of("", " ", self.newline())
        items = [self.value(depth - 1) for _ in range(self.draw(st.integers(0, 3)))]
        tail = "," if items and self.one_of(True, False) else ""
        return "[" + gap + f"{gap},{gap}".join(items) + tail + gap + "]"

    def table(self, header: list[str], depth: int) -> str:
        written = ""
        names = self.draw(st.lists(NAMES, max_size=4, unique=True))
        later = []
        for name in names:
            kind = self.one_of("value", "value", "dotted", "table", "tables") if depth else "value"
            key = self.key(name)
            if kind == "value":
                written += f"{self.blank()}{key}{self.blank()}={self.blank()}{self.value(2)}{self.newline()}"
            elif kind == "dotted":
                for inner in self.draw(st.lists(NAMES, min_size=1, max_size=2, unique=True)):
                    dotted = f"{self.key(name)}{self.blank()}.{self.blank()}{self.key(inner)}"
                    written += f"{dotted} = {self.value(1)}{self.newline()}"
            else:
                later.append((kind, [*header, name]))
        for kind, path in later:
            for _ in range(1 if kind == "table" else self.draw(st.integers(1, 2))):
                dotted = f"{self.blank()}.{self.blank()}".join(self.key(name) for name in path)
                line = f"[ {dotted}]" if kind == "table" else f"[[{dotted} ]]"
                written += line + self.newline() + self.table(path, depth - 1)
        return written


@st.composite
def documents(draw: Any) -> str:
    return Writer(draw).table([], 2)


def paths(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    entries: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    found = [path] if path else []
    return found + [inner for name, entry in entries for inner in paths(entry, (*path, name))]


def value_at(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values[part]
    return values


@settings(max_examples=200, deadline=None)
@given(documents())
def test_every_key_that_tomllib_reports_is_found_where_it_is_written(text: str) -> None:
    values = tomllib.loads(text)
    places = locate(text)
    assert set(places) == set(paths(values))
    for path in paths(values):
        key, value = places.key(path), places.value(path)
        expected = value_at(values, path)
        if isinstance(path[-1], str):
            assert tomllib.loads(f"{text[key.start : key.end]} = 0") == {path[-1]: 0}
        if value != key or (isinstance(path[-1], int) and not isinstance(expected, dict)):
            assert tomllib.loads(f"x = {text[value.start : value.end]}")["x"] == expected


@settings(max_examples=200, deadline=None)
@given(documents())
def test_every_character_of_a_string_is_found_where_it_is_written(text: str) -> None:
    values = tomllib.loads(text)
    for path, span in locate(text).strings():
        value, offsets = characters(text, span)
        assert value == value_at(values, path)
        assert len(offsets) == len(value) + 1
        assert offsets == sorted(set(offsets))
        assert span.start < offsets[0] and offsets[-1] < span.end
        for letter, at in zip(value, offsets, strict=False):
            assert text[at] in (letter, "\\")


def test_the_second_of_two_tables_in_an_array_is_told_from_the_first() -> None:
    text = '[[routes]]\nname = "a"\n[[routes]]\nname = "b"\n[routes.meters]\nx = "1"\n[[routes.example]]\nunits = 1\n'
    places = locate(text)
    assert text[: places.key(("routes", 1, "name")).start].count("\n") == 3
    assert text[: places.key(("routes", 1, "meters", "x")).start].count("\n") == 5
    assert text[: places.value(("routes", 1, "example", 0, "units")).start].count("\n") == 7


def test_what_is_not_written_is_shown_at_its_nearest_ancestor() -> None:
    text = "[server]\nport = 1\n"
    places = locate(text)
    assert places.key(("server", "host")) == Span(1, 7)
    assert places.value(("server", "port", 3)) == Span(16, 17)
    assert places.key(("ledger",)) == Span(0, 0)


@pytest.mark.parametrize(
    ("written", "start", "end", "shown"),
    [
        ("'usage().totl'", 8, 12, "totl"),
        ('"usage().totl"', 8, 12, "totl"),
        ('"get(response, \\"totl\\")"', 15, 19, "totl"),
        ('"""\nusage()\n  .totl"""', 11, 15, "totl"),
        ("'''usage().totl'''", 8, 12, "totl"),
        ('"\\u0061bc"', 0, 1, "\\u0061"),
        ('"""a\\\n     bc"""', 1, 2, "b"),
        ("'abc'", 3, 3, "'"),
    ],
)
def test_a_place_inside_a_string_value_is_found_in_the_text(written: str, start: int, end: int, shown: str) -> None:
    text = f"[[routes]]\nmeter = {written} # a comment\n"
    assert tomllib.loads(text)
    span = locate(text).inside(("routes", 0, "meter"), start, end)
    assert text[span.start : span.end] == shown
