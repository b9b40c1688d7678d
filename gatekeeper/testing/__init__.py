"""Hypothesis strategies for authors of metering expressions."""
