"""What the demo plays with: HTTP servers on loopback, and the worker process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_SERVICE = Path(__file__).with_name("service.py")


class Server:
    """A real HTTP server in threads of this process. It answers 200 after ``delay`` seconds, or 503
    while ``failing``.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.failing = False
        self.requests = 0
        self.open_requests = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/health"
        threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self) -> int:
        """Take ``delay`` seconds to find the status of an answer."""
        with self._lock:
            self.requests += 1
            self.open_requests += 1
        try:
            time.sleep(self.delay)
            return 503 if self.failing else 200
        finally:
            with self._lock:
                self.open_requests -= 1

    def _handler(server: Server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = server.answer()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    self.close_connection = True  # who asked was killed meanwhile

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


class Worker:
    """A worker process with some versions registered. Its log is appended to a file."""

    def __init__(self, number: int, versions: list[str], database: Path, log: Path) -> None:
        self.versions = versions
        self.title = f"worker {number} ({' and '.join(versions)})"
        self._ready = threading.Event()
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(_SERVICE), str(database), "--versions", ",".join(versions)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                # Ctrl-C reaches the demo alone, which then stops the worker in order
                start_new_session=True,
            )
        threading.Thread(target=self._read_ready, daemon=True).start()

    def _read_ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() == b"ready":
            self._ready.set()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether its runtime is up."""
        return self._ready.is_set()

    @property
    def exit_code(self) -> int | None:
        """How it ended; ``None`` while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Kill it hard (SIGKILL): no handler runs, nothing is released. Returns once it is gone."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def stop(self) -> None:
        """Ask it to stop in order, and wait until it has. Does nothing where it has ended."""
        if self.exit_code is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
