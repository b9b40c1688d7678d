"""``gatekeeper meter``: the interface that scripts rely on, and the prompt."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

HEADLINE = "json(sseLastData(allData)).usage.total_tokens ?? 1"
FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
STREAMS = Path(__file__).resolve().parents[1] / "streams"
CHAT = str(STREAMS / "openai_chat_usage.sse")
NO_USAGE = str(STREAMS / "openai_chat_no_usage.sse")


@pytest.fixture
def typed(monkeypatch):
    """Puts bytes on stdin, as a pipe does."""

    def put(raw: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))

    return put


@pytest.mark.parametrize(
    ("name", "units", "source"),
    [
        ("openai-chat-stream-usage.sse", "87", "measured"),
        ("azure-chat-stream-promptfilter-nousage.sse", "1", "default"),
    ],
)
def test_the_headline_expression_on_recorded_streams(cli, name, units, source):
    if not FIXTURES.is_dir():
        pytest.skip("the recorded fixtures are not beside this checkout")
    done = cli("meter", HEADLINE, "--stream", str(FIXTURES / name), "--json")
    assert done.code == 0
    read = json.loads(done.out)
    assert (read["units"], read["source"]) == (units, source)


def test_json_is_one_object_with_these_keys(cli):
    done = cli("meter", "usage().total", "--stream", CHAT, "--json")
    assert done.out.startswith('{"units": "15", "source": "measured", "note": null, "slots": {"usage()": {')
    assert done.out.count("\n") == 1
    assert list(json.loads(done.out)) == ["units", "source", "note", "slots"]
    assert done.err == ""


def test_without_json_the_units_alone_are_printed_and_a_doubtful_source_is_told_beside(cli):
    assert cli("meter", "usage().total", "--stream", CHAT).out == "15\n"
    fallback = cli("meter", HEADLINE, "--stream", NO_USAGE)
    assert (fallback.code, fallback.out) == (0, "1\n")
    assert "warning: this constant is charged where nothing was measured" in fallback.err
    assert fallback.err.endswith("\nsource: default\n")
    nothing = cli("meter", "usage().total", "--stream", NO_USAGE)
    assert (nothing.code, nothing.out, nothing.err) == (0, "null\n", "source: none\n")


@pytest.mark.parametrize(
    ("expression", "units"), [("1.50", "1.5"), ("100", "100"), ("1 / 4", "0.25"), ("10 ** 3", "1000")]
)
def test_units_are_a_decimal_string_without_trailing_zeros(cli, expression, units):
    assert json.loads(cli("meter", expression, "--json").out)["units"] == units


def test_nothing_found_is_null(cli):
    read = json.loads(cli("meter", "usage().total", "--stream", NO_USAGE, "--json").out)
    assert (read["units"], read["source"]) == (None, "none")


def test_a_usage_record_stands_under_value_in_plain_integers(cli):
    done = cli("meter", "usage()", "--stream", CHAT, "--json")
    assert '"input": 12, "output": 3, "total": 15' in done.out.split('"value": ')[1]
    read = json.loads(done.out)
    assert (read["units"], read["value"]["cached_input"]) == ("15", 8)


def test_many_streams_are_a_line_each_with_its_name(cli):
    done = cli("meter", "usage().total", "--stream", CHAT, "--stream", NO_USAGE, "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [(line["stream"], line["units"]) for line in lines] == [(CHAT, "15"), (NO_USAGE, None)]
    assert cli("meter", "usage().total", "--stream", CHAT, "--stream", CHAT).out == f"15  {CHAT}\n" * 2


@pytest.mark.parametrize("chunk", ["1", "3", "1000000"])
def test_the_size_of_pieces_changes_nothing(cli, chunk):
    whole = cli("meter", "usage()", "--stream", CHAT, "--json").out
    assert cli("meter", "usage()", "--stream", CHAT, "--json", "--chunk", chunk).out == whole


@pytest.mark.parametrize(
    ("name", "body", "expression", "units"),
    [
        ("a.sse", b'data: {"n": 1}\n\ndata: {"n": 2}\n\n', "sum(events, .json.n)", "3"),
        ("a.ndjson", b'{"n": 1}\n{"n": 4}\n', "sum(events, .json.n)", "5"),
        ("a.json", b'{"n": 7}', "response.n", "7"),
        ("a.b.json", b'{"n": 7}', 'contentType == "application/json" ? 1 : 0', "1"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_name_decides_the_type(cli, folder, name, body, expression, units, packed):
    path = folder / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(body) if packed else body)
    read = json.loads(cli("meter", expression, "--stream", str(path), "--json").out)
    assert (read["units"], read["source"]) == (units, "measured")


def test_type_and_encoding_can_be_given(cli, folder):
    (folder / "body").write_bytes(gzip.compress(b'{"n": 1}\n{"n": 4}\n'))
    given = ("--content-type", "application/x-ndjson", "--content-encoding", "gzip")
    assert cli("meter", "sum(events, .json.n)", "--stream", "body", *given).out == "5\n"


def test_stdin_is_a_dash(cli, typed):
    typed(Path(CHAT).read_bytes())
    done = cli("meter", "usage().total", "--stream", "-", "--content-type", "text/event-stream")
    assert done.out == "15\n"


def test_stdin_is_read_once_only(cli, typed):
    typed(b"")
    done = cli("meter", "1", "--stream", "-", "--stream", "-")
    assert (done.code, done.out) == (2, "")
    assert "once" in done.err


def test_a_failed_status_is_no_charge(cli):
    read = json.loads(cli("meter", HEADLINE, "--stream", NO_USAGE, "--status", "404", "--json").out)
    assert (read["units"], read["source"], read["note"]) == ("0", "none", "status")


def test_outcome_and_request_can_be_read(cli, folder):
    (folder / "asked.json").write_text('{"model": "m-1", "n": 3}')
    expression = 'outcome == "cut" && model == "m-1" ? request.n : 0'
    given = ("--outcome", "cut", "--request", "asked.json")
    assert cli("meter", expression, *given).out == "3\n"
    assert cli("meter", "outcome == 'complete' ? requestBytes : 0", *given[2:]).out == "24\n"


EXPLAINED = """\
meter: json(sseLastData(allData)).usage.total_tokens ?? 1
hash: 175e30a6d454090e

tree                   when    type            slot
??                     finish  any value
  .usage.total_tokens  finish  any value       1
    json()             finish  any value
      sseLastData()    finish  a string
        allData        always  the whole body
  1                    always  a number

slot 1: json(sseLastData(allData)).usage.total_tokens
  fed with events that are neither empty nor the [DONE] sentinel
  an event is parsed only where its bytes hold "total_tokens"
  event 4  15

falls back: a value that was not read is marked 'default'

STREAM: 6 events, source measured
15
"""


def test_explain_is_exactly_this_text(cli):
    done = cli("meter", HEADLINE, "--explain", "--stream", CHAT)
    assert done.out == EXPLAINED.replace("STREAM", CHAT)


def test_explain_without_a_stream_shows_the_tree_alone(cli):
    done = cli("meter", HEADLINE, "--explain")
    told = EXPLAINED.replace("  event 4  15\n", "").replace(
        "STREAM: 6 events, source measured\n15", "source default\n1"
    )
    assert done.out == told


def test_explain_keeps_json_one_object(cli):
    read = json.loads(cli("meter", "usage().total", "--explain", "--json", "--stream", CHAT).out)
    assert "slot 1: usage()" in read["explain"]
    assert (read["units"], read["events"]) == ("15", 6)
    [sighting] = read["saw"]["usage()"]["saw"]
    assert (sighting["event"], sighting["value"]["total"]) == (4, 15)


@pytest.mark.parametrize("chunk", ["1", "50", "100000"])
def test_explain_tells_each_slot_and_the_event_that_it_saw_it_in_whatever_the_pieces(cli, chunk):
    expression = "sum(events, len(.json.choices[0].delta.content)) * request.n + events[-2].json.usage.total_tokens"
    out = cli("meter", expression, "--explain", "--stream", CHAT, "--chunk", chunk).out
    assert "  event 0  0\n  event 1  5\n  event 2  8\n" in out
    assert "  event 5  15\n" in out
    assert "reads request: the request's JSON body, or null" in out


def test_explain_of_a_long_stream_shows_its_ends(cli, folder):
    (folder / "long.sse").write_text("".join(f'data: {{"n": {n}}}\n\n' for n in range(1, 21)))
    out = cli("meter", "last(events, .json.n)", "--explain", "--stream", "long.sse").out
    assert (
        """
  event 0   1
  event 1   2
  event 2   3
  event 3   4
  ...       12 more
  event 16  17
  event 17  18
  event 18  19
  event 19  20
"""
        in out
    )


def test_explain_shows_an_error_where_it_came_up(cli, folder):
    (folder / "odd.sse").write_text('data: {"n": 1}\n\ndata: {"n": "x"}\n\n')
    out = cli("meter", "sum(events, .json.n)", "--explain", "--stream", "odd.sse").out
    assert '  event 0  1\n  event 1  {"error": "expected a number, found a string"}\n' in out
    assert "odd.sse: 2 events, source error\nnull\n" in out


def test_a_mistake_is_exit_code_2_with_place_and_hint(cli):
    done = cli("meter", "usage().total + sm(events, 1)")
    assert (done.code, done.out) == (2, "")
    assert "<expression>:1:17: error: unknown function 'sm'" in done.err
    assert "did you mean 'sum'?" in done.err


def test_a_mistake_in_json_is_exactly_this_object(cli):
    done = cli("meter", "1 +\n  sm(events, 1)", "--json")
    assert (done.code, done.err) == (2, "")
    assert json.loads(done.out) == {
        "mistake": {"message": "unknown function 'sm'", "line": 2, "column": 3, "hint": "did you mean 'sum'?"}
    }


def test_the_error_is_told_though_a_warning_stands_before_it(cli):
    told = json.loads(cli("meter", "(usage().total == null ? 1 : 2) + nme", "--json").out)
    assert told["mistake"]["message"] == "unknown name 'nme'"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--stream", "nope.sse"), "nope.sse: No such file"),
        (("--stream", "."), "Is a directory"),
        (("--request", "nope.json"), "nope.json: No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_exit_code_1(cli, given, said):
    done = cli("meter", "1", *given)
    assert (done.code, done.out) == (1, "")
    assert said in done.err


@pytest.mark.parametrize(
    "given", [("--status", "abc"), ("--status", "7"), ("--chunk", "0"), ("--outcome", "lost"), ("--no-such",)]
)
def test_flags_that_cannot_be_meant_are_exit_code_2(cli, given):
    done = cli("meter", "1", *given)
    assert (done.code, done.out) == (2, "")
    assert given[0] in done.err


def test_a_text_is_no_meter(cli):
    assert cli("meter", '"a"').code == 2


def test_a_piped_prompt_prints_results_only_and_takes_any_value(cli, typed):
    typed(b'usage().total\n\n"a"\nlast(events, .json.usage.prompt_tokens)\n[1, 2]\n0 - 3\n1 / 4\n')
    done = cli("meter", "--stream", CHAT)
    assert done.code == 0
    assert done.out.splitlines() == ["15", '"a"', "12", "[1, 2]", "-3", "0.25"]


def test_a_mistake_does_not_end_a_piped_prompt_but_is_in_its_exit_code(cli, typed):
    typed(b"1 +\n2 + 3\n")
    done = cli("meter", "--json")
    assert done.code == 2
    mistake, read = map(json.loads, done.out.splitlines())
    assert mistake["mistake"]["column"] == 3
    assert read["units"] == "5"


def test_the_prompt_cannot_share_stdin_with_a_stream(cli, typed):
    typed(b"1\n")
    done = cli("meter", "--stream", "-")
    assert (done.code, done.out) == (2, "")
    assert "stdin" in done.err
