"""The .env file, as shells and containers write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.config.dotenv import read_dotenv


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("A = 1 ", "1"),
        ("  export A=1", "1"),
        ("A=", ""),
        ("A= # nothing", ""),
        ("A=a b c", "a b c"),
        ("A=a#b", "a#b"),
        ("A=a # b", "a"),
        ("A='a # b $C \\n'", "a # b $C \\n"),
        ('A="a # b"  # c', "a # b"),
        ('A="a\\nb\\t\\"\\\\\\$"', 'a\nb\t"\\$'),
        ("A=''", ""),
        ("A==", "="),
        ("A=postgres://u:p@h/d?x=1", "postgres://u:p@h/d?x=1"),
        ("A=1\r", "1"),
    ],
)
def test_a_line_gives_its_value(line: str, value: str) -> None:
    found, mistakes = read_dotenv(f"# first\n\n{line}\nB=2\n", ".env")
    assert (found, mistakes) == ({"A": value, "B": "2"}, ())


@pytest.mark.parametrize(
    "line", ["secret-word", "1A=secret-word", "A B=secret-word", "A='secret-word", 'A="secret-word\\"']
)
def test_a_line_that_cannot_be_read_is_a_mistake_that_shows_no_value(line: str) -> None:
    found, mistakes = read_dotenv(f"# secret\nKEY=other-secret\n{line}\nB=2\n", ".env")
    assert found == {"KEY": "other-secret", "B": "2"}
    assert [mistake.line for mistake in mistakes] == [3]
    assert "secret-word" not in mistakes[0].render()
    assert "other-secret" not in mistakes[0].source.text


def test_the_last_of_two_lines_wins_as_in_a_shell() -> None:
    assert read_dotenv("A=1\nA=2", ".env")[0] == {"A": "2"}


@given(st.dictionaries(st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,5}\Z"), st.text(st.characters(exclude_characters="'\n\r"))))
def test_values_in_single_quotes_come_back_as_they_were(values: dict[str, str]) -> None:
    text = "\n".join(f"{name}='{value}'" for name, value in values.items())
    assert read_dotenv(text, ".env") == (values, ())


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    found, mistakes = read_dotenv(text, ".env")
    assert len(found) + len(mistakes) <= text.count("\n") + 1
    for mistake in mistakes:
        mistake.render()
