"""TOML text -> Gateway, with a place for every message. The entrance is ``load_gateway``."""

from gatekeeper.config.read import load_gateway, parse_gateway

__all__ = ["load_gateway", "parse_gateway"]
