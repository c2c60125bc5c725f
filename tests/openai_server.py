"""A small server that speaks OpenAI's embeddings API, for tests: it embeds by hashing, and fails as it is told to."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import numpy as np

DIMENSIONS = 8
KEY = "sk-the-key-of-the-tests"
MODEL = "text-embedding-3-small"


def vector_of(text: str, dimensions: int = DIMENSIONS) -> np.ndarray:
    """A vector that tells its text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=dimensions).astype(np.float32)


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    """The vectors of texts, in order."""
    return np.array([vector_of(text) for text in texts])


@dataclass(frozen=True)
class Request:
    """What the server was asked, and when, in seconds of a monotonic clock."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    client_port: int


@dataclass
class Reply:
    """A reply in place of the vectors.

    `cut` drops the connection in the middle of it; `wait` comes before it.
    """

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    wait: float = 0.0


def error(status: int, message: str, code: str = "", **headers: str) -> Reply:
    """An error as OpenAI words it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": message, "type": code, "param": None, "code": code or None}}, named)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # 5, and connections that come together are dropped and tried again after a second


class EmbeddingServer:
    """The server's address, what it was asked, and what it is to do.

    Attributes:
        base_url: For clients.
        requests: What it was asked, in order.
        replies: Given in place of vectors, one to a request, as long as there are any.
        most_texts: More texts in one request are refused.
        most_tokens: More tokens (words) in one request are refused.
        refuses: A text that is refused.
        base64: ``True``, or what happens to requests for it: ``"ignored"`` or ``"refused"``.
        shuffled: Whether vectors come in another order than the texts.
        numbered: Whether vectors carry their index.
        counted: Whether tokens are counted.
        knows_dimensions: Whether it heeds `dimensions`.
        delay: Seconds that each reply takes.
        busiest: The most requests that were there at once.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.replies: deque[Reply] = deque()
        self.most_texts = 2_048
        self.most_tokens = 300_000
        self.refuses = ""
        self.base64: bool | str = True
        self.shuffled = False
        self.numbered = True
        self.counted = True
        self.knows_dimensions = True
        self.delay = 0.0
        self.busiest = 0
        self._here = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                headers = {name.lower(): value for name, value in self.headers.items()}
                port = self.client_address[1]
                server._answer(self, Request(time.monotonic(), self.path, headers, body, port))

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def batches(self) -> list[list[str]]:
        """The texts of each request."""
        return [request.body["input"] for request in self.requests]

    @property
    def waits(self) -> list[float]:
        """Seconds between the requests."""
        times = [request.at for request in self.requests]
        return [later - earlier for earlier, later in pairwise(times)]

    def _answer(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            reply = self.replies.popleft() if self.replies else None
            self._here += 1
            self.busiest = max(self.busiest, self._here)
        time.sleep(self.delay if reply is None else reply.wait)
        with self._lock:
            self._here -= 1
        try:
            self._send(handler, self._embed(request.body) if reply is None else reply)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True  # the client did not wait

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if reply.cut:
            handler.wfile.write(content[: len(content) // 2])
            handler.close_connection = True
            return
        handler.wfile.write(content)

    def _embed(self, asked: dict[str, Any]) -> Reply:
        texts = asked["input"]
        tokens = sum(len(text.split()) for text in texts)
        if len(texts) > self.most_texts:
            return error(422, f"batch size {len(texts)} > maximum allowed batch size {self.most_texts}", "Validation")
        if tokens > self.most_tokens:
            said = f"Requested {tokens} tokens, max {self.most_tokens} tokens per request"
            return error(400, said, "max_tokens_per_request")
        if self.refuses and self.refuses in texts:
            return error(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded")
        if asked.get("encoding_format") == "base64" and self.base64 == "refused":
            return error(400, "encoding_format is not supported")
        encoded = asked.get("encoding_format") == "base64" and self.base64 is True
        dimensions = asked.get("dimensions", DIMENSIONS) if self.knows_dimensions else DIMENSIONS
        data: list[dict[str, Any]] = []
        for index, text in enumerate(texts):
            vector = vector_of(text, dimensions)
            shown: object = b64encode(vector.astype("<f4").tobytes()).decode() if encoded else vector.tolist()
            item = {"object": "embedding", "embedding": shown}
            data.append(item | {"index": index} if self.numbered else item)
        if self.shuffled:
            data.reverse()
        body: dict[str, Any] = {"object": "list", "data": data, "model": asked["model"]}
        if self.counted:
            body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Reply(body=body)


@contextmanager
def embedding_server() -> Iterator[EmbeddingServer]:
    """A server of one's own, stopped in the end."""
    server = EmbeddingServer()
    try:
        yield server
    finally:
        server.stop()
