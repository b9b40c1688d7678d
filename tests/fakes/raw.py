"""A client on a plain socket: every byte is the test's, and every byte that comes back is seen."""

import json
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass
class Answer:
    """One HTTP/1.1 answer. ``body`` has its chunked framing removed; ``ended`` is False where it broke off."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    ended: bool
    framed: bytes = b""

    def header(self, name: str) -> str | None:
        return next((value.decode("latin-1") for key, value in self.headers if key == name.lower().encode()), None)

    def all(self, name: str) -> list[bytes]:
        return [value for key, value in self.headers if key == name.lower().encode()]

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Client:
    """One connection."""

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def more(self) -> bool:
        """Read once; False at the end of the connection."""
        try:
            found = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self.read += found
        return bool(found)

    def until(self, wanted: bytes) -> bytes:
        """Read until ``wanted`` has come."""
        while wanted not in self.read:
            assert self.more(), (wanted, self.read)
        return self.read

    def silent_for(self, wait_s: float) -> bool:
        """Whether nothing comes for so long."""
        before, self_timeout = self.read, self.socket.gettimeout()
        self.socket.settimeout(wait_s)
        try:
            self.more()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(self_timeout)
        return self.read == before

    def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and headers of the next final answer, taken off."""
        while True:
            while b"\r\n\r\n" not in self.read:
                assert self.more(), self.read
            head, _, self.read = self.read.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            status = int(first.split(b" ")[1])
            if status >= 200:
                pairs = (line.partition(b":")[::2] for line in lines)
                return status, [(name.lower(), value.strip()) for name, value in pairs]

    def answer(self, method: str = "POST") -> Answer:
        """The next answer, to its end or to the end of the connection."""
        status, headers = self.head()
        found = dict(headers)
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b"", True)
        if b"content-length" in found:
            size = int(found[b"content-length"])
            while len(self.read) < size and self.more():
                pass
            body, self.read = self.read[:size], self.read[size:]
            return Answer(status, headers, body, len(body) == size, body)
        framed = b""
        body = b""
        while True:
            while (line_end := self.read.find(b"\r\n")) < 0 or len(self.read) < line_end + 4 + int(
                self.read[:line_end], 16
            ):
                if not self.more():
                    return Answer(status, headers, body + self.read[line_end + 2 :], False, framed + self.read)
            size = int(self.read[:line_end], 16)
            piece = self.read[line_end + 2 : line_end + 2 + size]
            framed, self.read = framed + self.read[: line_end + 4 + size], self.read[line_end + 4 + size :]
            body += piece
            if size == 0:
                return Answer(status, headers, body, True, framed)


def request(
    key: str | None,
    body: bytes = b"",
    *,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    headers: dict[str, str] | None = None,
    framing: str | None = None,
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway.test"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    given = {"Content-Type": "application/json", **(headers or {})}
    lines += [f"{name}: {value}" for name, value in given.items()]
    if framing is not None:
        lines.append(framing)
    elif body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chat(stream: bool = False, **more: Any) -> bytes:
    """The body of a chat."""
    return json.dumps(
        {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": stream, **more}
    ).encode()


def ask(url: str, head_and_body: bytes, method: str = "POST") -> Answer:
    """One request on a connection of its own."""
    with Client(url) as client:
        client.send(head_and_body)
        return client.answer(method)


def event(value: Any) -> bytes:
    """One SSE event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    """A chunk of an OpenAI chat."""
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
        }
    )


def usage_chunk(prompt: int, completion: int) -> bytes:
    """The last chunk, with the usage."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": usage})


DONE = b"data: [DONE]\n\n"


def completion(prompt: int = 3, answer: int = 4) -> bytes:
    """The body of a chat that was not streamed."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-4o",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
        }
    ).encode()


def seconds_since(start: float) -> float:
    return time.monotonic() - start
