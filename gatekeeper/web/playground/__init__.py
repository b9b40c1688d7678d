"""Trying expressions before they bill anyone: the JSON API under ``/admin/expressions`` and the pages under
``/playground``. The rule: only the server parses, with the one checker, and whatever is tried is bounded."""
