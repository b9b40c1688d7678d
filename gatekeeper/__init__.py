"""gatekeeper: a streaming proxy that meters, limits and bills LLM APIs."""

__version__ = "0.1.0"
