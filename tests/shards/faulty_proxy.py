"""An HTTP proxy that does to a client what networks and object stores do, by a seeded chance for each request."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("unavailable", "slow_down", "reset", "truncated", "short", "stalled", "dripping", "wrong")
"""503; 503 with Retry-After; a broken connection; half a body, then its end; half a body, declared whole; half a body,
then silence; half a body, then five bytes a second; a body with one bit flipped."""


class FaultyProxy:
    """Forwards to `target` ("host:port") and misbehaves.

    Attributes:
        faults: fault -> probability, for requests whose method is in `methods`.
        latency_s: added before every answer.
        requests, injected: how many of each method passed, and of each fault.
    """

    def __init__(self, target: str, *, seed: int = 0, methods: tuple[str, ...] = ("GET",)) -> None:
        self.target, self.methods = target, methods
        self.faults: Mapping[str, float] = {}
        self.latency_s = 0.0
        self.requests: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self._seed, self._lock = seed, threading.Lock()
        self.over = threading.Event()
        self.reset()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def reset(self, faults: Mapping[str, float] | None = None, latency_s: float = 0.0) -> None:
        """Begin anew: these faults, from the beginning of their order, counters at zero; hung answers end."""
        with self._lock:
            self.over.set()
            self.over = threading.Event()
            self._random, self._places = random.Random(self._seed), random.Random(self._seed)
            self.faults, self.latency_s = dict(faults or {}), latency_s
            self.requests.clear()
            self.injected.clear()

    def choose(self, method: str) -> str | None:
        """The fault of the next request."""
        with self._lock:
            self.requests[method] += 1
            chance = self._random.random()
            for fault, probability in self.faults.items() if method in self.methods else ():
                chance -= probability
                if chance < 0:
                    self.injected[fault] += 1
                    return fault
        return None

    def flip(self, body: bytes) -> bytes:
        with self._lock:
            place = self._places.randrange(len(body)) if body else 0
        return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :] if body else body

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self._body()
        fault = self.proxy.choose(self.command)
        if self.proxy.latency_s:
            time.sleep(self.proxy.latency_s)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if fault in ("unavailable", "slow_down"):
            self._answer(503, {"Retry-After": "1"} if fault == "slow_down" else {}, b"", None)
            return
        host, _, port = self.proxy.target.partition(":")
        link = http.client.HTTPConnection(host, int(port), timeout=30)
        chunked = "Transfer-Encoding" in self.headers
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        try:
            link.request(self.command, self.path, iter([body]) if chunked else body, headers, encode_chunked=chunked)
        except ConnectionRefusedError:  # there is no store any more: so neither is there one behind the proxy
            self.close_connection = True
            return
        reply = link.getresponse()
        answer = reply.read()
        kept = {k: v for k, v in reply.getheaders() if k.lower() not in ("connection", "transfer-encoding")}
        link.close()
        self._answer(reply.status, kept, answer, fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, fault: str | None) -> None:
        half = body[: len(body) // 2]
        if fault == "wrong":
            body = self.proxy.flip(body)
        if fault == "short":
            body = half
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self._send(body, half, fault)
        except OSError:
            self.close_connection = True

    def _send(self, body: bytes, half: bytes, fault: str | None) -> None:
        if fault in ("truncated", "stalled", "dripping"):
            self.close_connection = True
            self.wfile.write(half)
            over = self.proxy.over
            if fault == "stalled":
                over.wait(60)
            for i in range(len(half), len(body)) if fault == "dripping" else ():
                self.wfile.write(body[i : i + 1])
                if over.wait(0.2):
                    return
        else:
            self.wfile.write(body)
