"""The SQL store: every role of ``ports.Store`` on SQLite and on Postgres."""

from gatekeeper.stores.store import SqlStore, open_reader, open_store

__all__ = ["SqlStore", "open_reader", "open_store"]
