"""A receiver of web hooks for trying them: it verifies, prints, and forgets. On loopback only."""

import json
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from gatekeeper.notifiers.signing import is_signed

# Larger than any event: a usage record has a few KiB.
BODY_BYTES_MAX = 1024 * 1024
SILENCE_S = 10.0


def listen_for_events(port: int, key: str, now_ms: Callable[[], int]) -> None:
    """Print each event on a line until interrupted. ``key`` is the secret without ``whsec_``. Raises OSError when the
    port is taken."""

    one_at_a_time = threading.Lock()

    def say(text: str) -> None:
        # Deliveries come side by side; a line stays a line.
        with one_at_a_time:
            print(text, flush=True)

    class Receiver(BaseHTTPRequestHandler):
        timeout = SILENCE_S

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if not (length.isascii() and length.isdigit() and int(length) <= BODY_BYTES_MAX):
                self.send_error(411 if not length else 413)
                return
            body = self.rfile.read(int(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if not is_signed(headers, body, key, now_ms() // 1000):
                say("refused: the signature is not by this secret, or it is older than five minutes")
                self.send_error(401)
                return
            try:
                say(json.dumps(json.loads(body)))
            except ValueError:
                self.send_error(400)
                return
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing but events is printed."""

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port), Receiver) as server:
        place = f"http://127.0.0.1:{server.server_address[1]}/"
        print(f"listening on {place}; Ctrl-C ends it", flush=True)
        server.serve_forever()
