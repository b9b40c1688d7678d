"""Which ratios fail a run, and which do not. Nothing is timed here."""

from pathlib import Path

import pytest

from bench.figures import Table, summed
from bench.limits import Limit, exit_code, judge, read_limits
from bench.report import COLUMNS
from bench.systems import START

CPU = "json_cpu_us_per_call"
LIMIT = Limit("whole / bare", CPU, "whole-sqlite", "bare", max=2.0)


def table(whole: float, bare: float) -> Table:
    return summed([{"whole-sqlite": {CPU: whole}, "bare": {CPU: bare}}])


def test_a_ratio_up_to_its_limit_is_kept_and_one_above_is_missed():
    assert [verdict.kept for verdict in judge([LIMIT], table(80, 40))] == [True]
    assert [verdict.kept for verdict in judge([LIMIT], table(80.1, 40))] == [False]


def test_a_limit_from_below_is_missed_by_less():
    limit = Limit("calls", CPU, "whole-sqlite", "bare", min=0.5)
    assert judge([limit], table(20, 40))[0].kept is True
    assert judge([limit], table(19, 40))[0].kept is False


def test_what_was_not_measured_is_neither_kept_nor_missed():
    (verdict,) = judge([LIMIT], summed([{"whole-sqlite": {CPU: 80.0}}]))
    assert verdict.kept is None
    assert verdict.ratio is None


def test_a_missed_limit_fails_a_quiet_run_only():
    missed = judge([LIMIT], table(100, 40))
    assert exit_code(missed, noisy=False, wrong=False) == 1
    assert exit_code(missed, noisy=True, wrong=False) == 0


def test_a_wrong_byte_fails_any_run():
    kept = judge([LIMIT], table(40, 40))
    assert exit_code(kept, noisy=False, wrong=False) == 0
    assert exit_code(kept, noisy=True, wrong=True) == 1


def test_the_shipped_limits_name_systems_and_figures_that_are_measured():
    limits = read_limits()
    assert limits
    assert {limit.of for limit in limits} | {limit.beside for limit in limits} <= set(START)
    # Rows of the table or their raw figures; never a time that only fits one machine.
    assert all(limit.figure.rpartition("_")[2] in {"call", "chunk", "s", "kib", "ms"} for limit in limits)
    assert set(START) <= set(COLUMNS)


@pytest.mark.parametrize("bounds", ["", "max = 2.0\nmin = 1.0\n"])
def test_a_limit_with_no_bound_or_two_is_refused(tmp_path: Path, bounds: str):
    path = tmp_path / "limits.toml"
    path.write_text(f'[[limit]]\nname = "odd"\nfigure = "f"\nof = "a"\nbeside = "b"\n{bounds}')
    with pytest.raises(ValueError, match="odd"):
        read_limits(path)
