"""URLs, ASGI and the bodies of errors."""
