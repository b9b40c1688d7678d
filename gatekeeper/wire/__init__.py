"""From a response's bytes to its events, and from its events to what a provider bills.

The rule: pure functions of the bytes. No clock, no I/O, no exceptions to the outside, bounded memory, and the same
result however the bytes were cut.
"""
