"""Adapters of ``ports.Upstream``: the streaming HTTP/1.1 client, and one that replays recordings.

A call goes client -> pool -> connection; ``request`` and ``response`` are bytes without I/O, ``dial`` makes sockets.
"""
