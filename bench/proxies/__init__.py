"""Proxies to measure beside ours: each checks one header, rewrites headers, relays, and does nothing else."""
