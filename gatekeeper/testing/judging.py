"""Is a meter right on one response? What it should have read, what it read, and the sentence for people.

The rule: a figure that the response does not say must never be called measured, and one that it says must be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from gatekeeper.meters import Mark, Meter, Metering, Outcome, Prices, Reading, RequestView, Tokenizer
from gatekeeper.money import plain
from gatekeeper.testing.script import Usage
from gatekeeper.testing.stream import ProviderStream

# What a meter should read: a count of the usage record, all of it ("usage"), or a figure made of the record.
Reads = str | Callable[[Usage], Any]
WHOLE_RECORD = "usage"
# Sizes that are tried when a piece size is looked for that `gatekeeper meter --chunk` can repeat.
_REPEATABLE = (1, 2, 3, 5, 7, 16, 64, 256, 1024)


@dataclass(frozen=True, slots=True)
class Complaint:
    """A meter that is wrong: on which response, in pieces of which sizes, and what was expected."""

    meter: Meter
    stream: ProviderStream
    sizes: tuple[int, ...]
    expected: str
    got: str

    def chunk_bytes(self) -> int | None:
        """A size of equal pieces that shows the same, if there is one."""
        if len(self.sizes) == 1:
            return self.sizes[0]
        for size in _REPEATABLE if self.sizes else ():
            if shown(read(self.meter, self.stream, (size,))) == self.got:
                return size
        return None

    def command(self, file: str) -> str:
        """The command line that shows it again."""
        return self.stream.replay_command(self.meter.text, file, self.chunk_bytes())

    def render(self, file: Path | str | None = None) -> str:
        """For people; with a file also how to replay it."""
        usage = "nothing" if self.stream.usage is None else ", ".join(f"{k} {v}" for k, v in self.stream.usage.items())
        pieces = "whole" if not self.sizes else f"in pieces of {', '.join(map(str, self.sizes))} bytes"
        lines = [
            f"  meter     {self.meter.text}",
            f"  expected  {self.expected}",
            f"  read      {self.got}",
            f"  stream    {self.stream.describe()}, {pieces}",
            f"  it says   {usage}",
        ]
        if file is not None:
            lines += [f"  saved     {file}", f"  replay    {self.command(str(file))}"]
        return "\n".join([*lines, "--- the stream", self.stream.text, "---"])


Judge = Callable[[ProviderStream, tuple[int, ...]], Complaint | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """The call behind a response, as far as a meter sees it."""

    request: RequestView = field(default_factory=RequestView)
    charge_errors: bool = False
    prices: Prices | None = None
    tokenizer: Tokenizer | None = None


def read(meter: Meter, stream: ProviderStream, sizes: Sequence[int] = (), asked: Asked | None = None) -> Reading:
    """What the meter says of this response, which arrives in pieces of these sizes."""
    asked = asked or Asked()
    methods = frozenset({asked.request.method})
    metering = Metering(
        {"meter": meter}, asked.request, charge_errors=asked.charge_errors, meter_methods=methods,
        prices=asked.prices, tokenizer=asked.tokenizer,
    )  # fmt: skip
    metering.begin(stream.status, stream.content_type, stream.content_encoding, stream.headers)
    for piece in stream.pieces(sizes):
        metering.feed(piece)
    return metering.finish(stream.outcome)["meter"]


def shown(reading: Reading) -> str:
    """A reading in a few words."""
    units = "nothing" if reading.units is None else plain(reading.units)
    return f"{units}, {reading.source}" + (f" ({reading.note})" if reading.note else "")


class _Said(dict[str, Any]):
    """The record as a function of the author sees it: what the response does not say is None, and remembered."""

    unknown = False

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        self.unknown = self.unknown or value is None
        return value

    def __missing__(self, name: str) -> None:
        return None


def truth(stream: ProviderStream, reads: Reads) -> Decimal | None:
    """The figure that the response says. As in the language, arithmetic with an unknown count is unknown."""
    if stream.usage is None:
        return None
    said = _Said(stream.usage)
    if isinstance(reads, str):
        found = said[reads]
    else:
        try:
            found = reads(said)
        except TypeError:
            if not said.unknown:
                raise
            return None
    return None if found is None else Decimal(found)


def judge_figure(meter: Meter, reads: Reads, asked: Asked | None = None) -> Judge:
    """The truth is measured where the response says it; elsewhere nothing is called measured."""
    if reads == WHOLE_RECORD:
        return judge_record(meter, asked)

    def judge(stream: ProviderStream, sizes: tuple[int, ...]) -> Complaint | None:
        expected, reading = truth(stream, reads), read(meter, stream, sizes, asked)
        if expected is None:
            right = reading.source in (Mark.NONE, Mark.DEFAULT, Mark.ESTIMATED)
            wanted = "nothing measured: the response does not say it"
        else:
            right = reading.source is Mark.MEASURED and reading.units == expected
            wanted = f"{plain(expected)}, measured"
        return None if right else Complaint(meter, stream, sizes, wanted, shown(reading))

    return judge


def judge_record(meter: Meter, asked: Asked | None = None) -> Judge:
    """The meter gives a record, and it is the whole truth."""

    def judge(stream: ProviderStream, sizes: tuple[int, ...]) -> Complaint | None:
        found = read(meter, stream, sizes, asked).value
        if _same(found, stream.usage):
            return None
        return Complaint(meter, stream, sizes, _record(stream.usage), _record(found))

    return judge


def _same(found: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> bool:
    return found == expected if found is None or expected is None else dict(found) == _as_stored(expected)


def _as_stored(usage: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a reading stores it: fractions are text, so that no digit is lost."""
    shown: dict[str, Any] = {}
    for name, count in usage.items():
        fraction = isinstance(count, Decimal) and count != count.to_integral_value()
        shown[name] = plain(count) if fraction else int(count) if isinstance(count, Decimal) else count
    return shown


def _record(usage: Mapping[str, Any] | None) -> str:
    return "nothing" if usage is None else str(dict(usage))


def judge_chunking(meter: Meter, asked: Asked | None = None) -> Judge:
    """How the bytes were cut changes nothing."""

    def judge(stream: ProviderStream, sizes: tuple[int, ...]) -> Complaint | None:
        whole, pieces = read(meter, stream, (), asked), read(meter, stream, sizes, asked)
        if (whole.units, whole.source, whole.note, whole.value) == (
            pieces.units, pieces.source, pieces.note, pieces.value,
        ):  # fmt: skip
            return None
        return Complaint(meter, stream, sizes, f"{shown(whole)}, as for the response in one piece", shown(pieces))

    return judge


def judge_defaults(meter: Meter, asked: Asked | None = None) -> Judge:
    """Where the response says its total, the meter measures. That a constant is worth 0 once the provider has failed
    is no fallback of the meter but the language's rule."""

    def judge(stream: ProviderStream, sizes: tuple[int, ...]) -> Complaint | None:
        if not stream.says_total:
            return None
        reading = read(meter, stream, sizes, asked)
        failed = reading.source is Mark.DEFAULT and reading.note == Outcome.UPSTREAM_ERROR
        if reading.source is Mark.MEASURED or failed:
            return None
        return Complaint(meter, stream, sizes, "a measured figure: the response has usage", shown(reading))

    return judge


def judge_errors(meter: Meter, asked: Asked | None = None) -> Judge:
    """No response of a provider is an error of the meter."""

    def judge(stream: ProviderStream, sizes: tuple[int, ...]) -> Complaint | None:
        reading = read(meter, stream, sizes, asked)
        if reading.source is not Mark.ERROR:
            return None
        return Complaint(meter, stream, sizes, "any reading but an error", shown(reading))

    return judge


def all_of(*judges: Judge) -> Judge:
    """The first complaint of several judges."""

    def judge(stream: ProviderStream, sizes: tuple[int, ...]) -> Complaint | None:
        return next((found for one in judges if (found := one(stream, sizes)) is not None), None)

    return judge
