"""Progress messages of long commands."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Stages with the time they took, on stderr. On a terminal the running one counts its seconds."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._line = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show `name` while the block runs, and the seconds it took afterwards."""
        started = time.monotonic()
        self._line = name
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(started, done), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()
        end = "\r\033[K" if self._live else ""
        print(f"{end}{name}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """Say how far the running stage has come."""
        if self._live:
            self._line = text
        else:
            print(f"  {text}", file=sys.stderr, flush=True)

    def _tick(self, started: float, done: threading.Event) -> None:
        while self._live and not done.wait(0.5):
            print(f"\r\033[K{self._line} … {time.monotonic() - started:.0f} s", end="", file=sys.stderr, flush=True)
