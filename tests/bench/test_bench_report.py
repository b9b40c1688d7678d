"""The report and what goes into it: medians, differences to direct, targets, noise, samples of a profiler."""

import json
import time
import zlib

from bench.figures import derived, summed
from bench.load import percentile
from bench.machine import Quiet, judge_noise
from bench.payloads import EVENT_BYTES, STAMP_AT, STAMP_DIGITS, crc_of, event, request, rewritten, tail, whole
from bench.profiling import read_samples
from bench.report import ROWS, as_json, met, rendered, target_of

P99 = next(row for row in ROWS if row.figure == "added_json_p99_ms")
RATE = next(row for row in ROWS if row.figure == "json_calls_per_s")


def test_what_a_proxy_adds_is_counted_against_direct_of_the_same_round():
    rounds = [
        {"direct": {"alone_first_p50_ms": 0.1}, "bare": {"alone_first_p50_ms": 0.3}},
        {"direct": {"alone_first_p50_ms": 1.0}, "bare": {"alone_first_p50_ms": 1.4}},
        {"direct": {"alone_first_p50_ms": 0.1}, "bare": {"alone_first_p50_ms": 0.4}},
    ]
    added = summed(rounds)["bare"]["added_first_p50_ms"]
    assert round(added.median, 9) == 0.3
    assert (round(added.low, 9), round(added.high, 9), added.rounds) == (0.2, 0.4, 3)
    assert round(added.spread, 6) == round(0.2 / 0.3, 6)


def test_nothing_is_added_where_direct_was_not_measured():
    found = derived({"bare": {"alone_first_p50_ms": 0.3, "stream_kib": 10.0}, "whole-sqlite": {"stream_kib": 22.0}})
    assert "added_first_p50_ms" not in found["bare"]
    assert found["whole-sqlite"]["stream_over_bare_kib"] == 12.0
    assert "stream_over_bare_kib" not in found["bare"]


def test_durable_commits_come_on_top_of_the_target_of_the_last_byte():
    table = summed([{"whole-sqlite": {"commit_ms": 2.0, "added_json_p99_ms": 3.7, "json_calls_per_s": 9_999.0}}])
    assert target_of(P99, table) == 0.8 + 1.5 * 2.0
    assert met(P99, table) is True
    assert met(RATE, table) is False
    assert met(RATE, summed([{"bare": {"json_calls_per_s": 20_000.0}}])) is None


def test_the_table_says_target_reached_and_beside_in_one_line():
    table = summed([{"whole-sqlite": {"json_calls_per_s": 9_000.0}, "nginx": {"json_calls_per_s": 80_000.0}}] * 2)
    lines = rendered(table).splitlines()
    assert lines[0].split() == ["target", "whole-sqlite", "nginx", "spread"]
    (line,) = lines[1:]
    assert line.startswith(RATE.title)
    assert line.removeprefix(RATE.title).split() == [">=", "10,000", "MISSED", "9,000", "80,000", "0%"]


def test_the_results_are_json_with_every_target():
    found = as_json(
        summed([{"whole-sqlite": {"json_calls_per_s": 12_000.0}}]), [], machine={}, noise=("busy",), complaints=[],
        left_out={"nginx": "not installed"}, when="2026-01-01", mode="quick",
    )  # fmt: skip
    read = json.loads(json.dumps(found))
    assert read["noisy"] is True
    assert read["figures"]["whole-sqlite"]["json_calls_per_s"]["median"] == 12_000.0
    assert {entry["figure"]: entry["met"] for entry in read["targets"]}["json_calls_per_s"] is True


def test_a_machine_is_noisy_when_others_work_on_it():
    assert judge_noise(0.01, 0.2, 2).reasons == ()
    assert "25%" in judge_noise(0.25, 0.2, 2).reasons[0]
    assert "load average" in judge_noise(0.01, 1.5, 2).reasons[0]
    assert judge_noise(0.01, 0.2, 1).reasons
    assert Quiet().foreign_share == 0.0


def test_what_others_take_is_what_is_busy_and_not_ours():
    quiet = Quiet()
    until_s = time.monotonic() + 0.5
    with quiet.watching([]):
        # Long beside the hundredths of a second in which the kernel counts.
        while time.monotonic() < until_s:
            sum(range(10_000))
    # Whatever the machine does meanwhile: it is a share of the machine.
    assert quiet.watched_s > 0
    assert 0.0 <= quiet.foreign_share <= 1.5


def test_a_percentile_is_a_value_that_was_seen():
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([3, 1, 2], 0.99) == 3
    assert percentile([], 0.5) == 0


def test_every_changed_byte_of_a_stream_is_noticed():
    events = b"".join(event(number) for number in (1, 22, 333))
    assert len(events) == 3 * EVENT_BYTES
    assert int(events[EVENT_BYTES + STAMP_AT :][:STAMP_DIGITS]) == 22
    body = events + tail(crc_of(events))
    assert whole(body, 3)
    for at in range(len(body)):
        assert not whole(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], 3)
    assert not whole(body[:-1], 3)
    assert not whole(body[EVENT_BYTES:], 3)
    assert not whole(body + b"\n", 3)


def test_a_client_that_did_not_ask_sees_no_usage_event():
    events = event(5)
    assert whole(events + tail(0, usage=False), 1, usage=False)
    assert not whole(events + tail(crc_of(events)), 1, usage=False)
    assert b'"usage":{' not in tail(0, usage=False)
    assert crc_of(events) == zlib.crc32(tail(0, usage=False).partition(b"data: [DONE]")[0], zlib.crc32(events))


def test_a_stream_that_was_written_anew_must_still_hold_every_event():
    events = event(5) + event(6)
    anew = events.replace(b'"content":', b'"content": ') + b"data: [DONE]\n\n"
    assert rewritten(anew, 2)
    assert not rewritten(anew, 3)
    assert not rewritten(anew.removesuffix(b"data: [DONE]\n\n"), 2)
    assert rewritten(b'{"usage": {"total_tokens": 142}}', None)
    assert not rewritten(b'{"usage": {"total_tokens": 14}}', None)


def test_a_request_is_framed_and_asks_for_usage_only_where_it_is_told_to():
    head, _, body = request(80, "sk", "paced 5").partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert b"x-bench: paced 5" in head
    assert json.loads(body)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in json.loads(request(80, "sk", "paced 5", ask_usage=False).partition(b"\r\n\r\n")[2])
    assert "stream" not in json.loads(request(80, "sk").partition(b"\r\n\r\n")[2])


def test_samples_are_counted_once_in_a_recursion():
    text = "thread (0x1);run (/a/gatekeeper/cli/x.py:3);step (x.py:5);run (/a/gatekeeper/cli/x.py:9) 4\nno count\n"
    own, below, total = read_samples(text + "thread (0x1);run (/a/gatekeeper/cli/x.py:3) 1\n")
    assert total == 5
    assert own == {"run (/a/gatekeeper/cli/x.py)": 5}
    assert below == {"run (/a/gatekeeper/cli/x.py)": 5, "step (x.py)": 4}
