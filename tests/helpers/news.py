"""A server on this machine that takes the news which Apprise sends to addresses `json://`."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Postbox:
    """What has been received: `letters` are the bodies, `keys` who sent them, as they said."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.letters: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._port = server.server_port

    def address(self, user: str = "") -> str:
        """Return the address to send news to; `user` is `name:password`."""
        return f"json://{user}{'@' if user else ''}127.0.0.1:{self._port}/"

    def titles(self) -> list[str]:
        return [letter["title"] for letter in self.letters]


@contextlib.contextmanager
def postbox() -> Iterator[Postbox]:
    """Run the server while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that the library wants
            length = int(self.headers["Content-Length"])
            box.letters.append(json.loads(self.rfile.read(length)))
            box.keys.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        box = Postbox(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield box
        server.shutdown()
