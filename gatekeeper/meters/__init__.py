"""The metering language. See ``language`` docs in README; the public surface is re-exported here."""

from gatekeeper.meters.reading import Mark, Outcome, Reading

__all__ = ["Mark", "Outcome", "Reading"]


class Meter:  # placeholder: being replaced by the compiler
    """A compiled expression."""
