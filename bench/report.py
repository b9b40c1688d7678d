"""The table: every target of the product, what was reached, and what stands beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, Table
from bench.limits import Verdict

OURS = "whole-sqlite"
# From left to right.
COLUMNS = (OURS, "whole-postgres", "bare", "nginx", "aiohttp", "httpx", "litellm", "portkey", "direct")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. ``target`` of the whole product: at most, or with ``at_least`` at least.

    ``commits``: so many durable commits of the database may come on top of it.
    """

    figure: str
    title: str
    target: float | None = None
    at_least: bool = False
    digits: int = 1
    commits: float = 0.0


ROWS = (
    Row("json_cpu_us_per_call", "JSON: CPU us per call", 90),
    Row("json_calls_per_s", "JSON: calls/s, 32 connections", 10_000, at_least=True, digits=0),
    Row("json_p50_ms", "JSON: p50 ms, 32 connections", digits=2),
    Row("json_p99_ms", "JSON: p99 ms, 32 connections", digits=2),
    Row("json_database_us_per_call", "JSON: CPU us per call in Postgres"),
    Row("added_first_p50_ms", "1 connection: added to first byte, p50 ms", 0.35, digits=2),
    Row("added_first_p99_ms", "1 connection: added to first byte, p99 ms", 0.8, digits=2),
    Row("added_json_p50_ms", "1 connection: added to last byte, p50 ms", 0.35, digits=2, commits=1.5),
    Row("added_json_p99_ms", "1 connection: added to last byte, p99 ms", 0.8, digits=2, commits=1.5),
    Row("commit_ms", "  (one bare durable commit, ms)", digits=2),
    Row("added_paced50_first_p99_ms", "50 streams: added to first byte, p99 ms", 1.0, digits=2),
    Row("paced50_cpu_us_per_chunk", "50 streams: CPU us per chunk"),
    Row("paced200_cpu_us_per_chunk", "200 streams: CPU us per chunk", 22),
    Row("paced200_delay_p50_ms", "200 streams: chunk delay p50 ms", digits=2),
    Row("paced200_delay_p99_ms", "200 streams: chunk delay p99 ms", 1.5, digits=2),
    Row("paced200_chunks_per_s", "200 streams: chunks/s, of 20,000", digits=0),
    Row("unasked200_cpu_us_per_chunk", "200 streams, usage hidden: CPU us per chunk"),
    Row("unasked200_delay_p99_ms", "200 streams, usage hidden: delay p99 ms", digits=2),
    Row("flat_cpu_us_per_chunk", "flat out: CPU us per chunk", digits=2),
    Row("stream_kib", "open stream: KiB"),
    Row("stream_over_bare_kib", "open stream: KiB more than bare", 12),
    Row("held_streams", "open streams held", digits=0),
)


def target_of(row: Row, table: Table, system: str = OURS) -> float | None:
    """The target in figures, with the commits of this system's database. None where there is none."""
    if row.target is None:
        return None
    commit = table.get(system, {}).get("commit_ms")
    return row.target + (row.commits * commit.median if commit else 0.0)


def met(row: Row, table: Table, system: str = OURS) -> bool | None:
    """Whether the target is met; None where there is no target or no figure."""
    target, figure = target_of(row, table, system), table.get(system, {}).get(row.figure)
    if target is None or figure is None:
        return None
    return figure.median >= target if row.at_least else figure.median <= target


def rendered(table: Table) -> str:
    """The table as text. ``spread`` is that of the whole product on SQLite over the rounds."""
    columns = [name for name in COLUMNS if name in table]
    head = ["", "target", "", *columns, "spread"]
    lines = [head]
    for row in ROWS:
        if not any(row.figure in table[name] for name in columns):
            continue
        target = target_of(row, table)
        said = "" if target is None else f"{'>=' if row.at_least else '<='} {_number(target, row.digits)}"
        verdict = {True: "met", False: "MISSED", None: ""}[met(row, table)]
        ours = table.get(OURS, {}).get(row.figure)
        cells = [_cell(table[name].get(row.figure), row.digits) for name in columns]
        lines.append([row.title, said, verdict, *cells, f"{ours.spread:.0%}" if ours and ours.rounds > 1 else ""])
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: list[str], widths: list[int]) -> str:
    first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
    return "  ".join([line[0].ljust(len(first)), *rest]).rstrip()


def _cell(figure: Figure | None, digits: int) -> str:
    return "-" if figure is None else _number(figure.median, digits)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def said_of_limits(verdicts: Sequence[Verdict]) -> str:
    """One line a limit."""
    lines = []
    for verdict in verdicts:
        limit = verdict.limit
        bound = f"at most {limit.max}" if limit.max is not None else f"at least {limit.min}"
        word = {True: "kept", False: "MISSED", None: "not measured"}[verdict.kept]
        ratio = "" if verdict.ratio is None else f"{verdict.ratio:8.2f}"
        lines.append(f"  {word:12} {ratio:>8}  {bound:14}  {limit.name}")
    return "\n".join(["limits (ratios, bench/limits.toml):", *lines])


def as_json(
    table: Table, verdicts: Sequence[Verdict], *, machine: dict[str, object], noise: Sequence[str],
    complaints: Sequence[str], left_out: dict[str, str], when: str, mode: str,
) -> dict[str, Any]:  # fmt: skip
    """Everything that was measured, for scripts."""
    return {
        "when": when,
        "mode": mode,
        "machine": machine,
        "noisy": bool(noise),
        "noise": list(noise),
        "complaints": list(complaints),
        "left_out": left_out,
        "figures": {
            system: {
                name: {"median": f.median, "low": f.low, "high": f.high, "rounds": f.rounds}
                for name, f in figures.items()
            }
            for system, figures in table.items()
        },
        "targets": [
            {"figure": row.figure, "title": row.title, "target": target_of(row, table), "met": met(row, table)}
            for row in ROWS
            if row.target is not None
        ],
        "limits": [
            {"name": v.limit.name, "ratio": v.ratio, "max": v.limit.max, "min": v.limit.min, "kept": v.kept}
            for v in verdicts
        ],
    }  # fmt: skip
