"""The fake provider on a real socket, once for all tests that drive it with the official clients."""

import threading
from collections.abc import Iterator

import pytest
import uvicorn

from gatekeeper.demo.provider import build_app


class Started(uvicorn.Server):
    """A server that says when it listens, and on which port."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()
        self.port = 0

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets=sockets)
        self.port = self.servers[0].sockets[0].getsockname()[1]
        self.listening.set()


@pytest.fixture(scope="session")
def provider_url() -> Iterator[str]:
    config = uvicorn.Config(
        build_app(tokens_per_s=0), port=0, loop="asyncio", log_level="critical", timeout_graceful_shutdown=1
    )
    server = Started(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert server.listening.wait(10), "the fake provider did not start"
    yield f"http://127.0.0.1:{server.port}"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
