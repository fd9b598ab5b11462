"""v1's answers beside what v2 made of the copies of the same requests: only counts, no text and no id.

The gateway copies a request to v2 with nginx's own id of it, which no client can choose. When v1 has answered, the
gateway sends every replica of v2 a datagram with the same id and v1's answer (roles/gateway, shadow.conf), in the
format of syslog, since that is what nginx can send. The replica that was given the copy pairs the two.
"""

from __future__ import annotations

import socket
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote

from app.observed.histogram import DURATION_SECONDS, Histogram

PENDING = 4096  # answers that wait for their other half: some seconds' worth
DATAGRAM_BYTES = 4096
CHANGE = (-0.5, -0.25, -0.1, -0.05, -0.01, 0.0, 0.01, 0.05, 0.1, 0.25, 0.5)


class ShadowAnswer(NamedTuple):
    """One version's answer to one sentence."""

    model_version: str
    label: str
    confidence: float
    seconds: float  # of parsing and scoring

    def encode(self) -> str:
        """Four words that can be a header's value and part of a log line."""
        return f"{self.model_version} {quote(self.label, safe='')} {self.confidence:.9f} {self.seconds:.9f}"

    @classmethod
    def decode(cls, text: str) -> ShadowAnswer:
        """Raises ValueError where the text is not what `encode` makes."""
        model_version, label, confidence, seconds = text.split(" ")
        return cls(model_version, unquote(label), float(confidence), float(seconds))


class Comparison:
    """Counts of the pairs with one model of v1, the reference; this replica's model is the candidate."""

    def __init__(self) -> None:
        self.labels: Counter[tuple[str, str]] = Counter()  # by the reference's and the candidate's
        self.failures = 0  # requests that the reference answered and the candidate did not
        self.confidence = [0.0, 0.0]  # sums: of the reference, of the candidate
        self.change = Histogram(CHANGE)  # candidate minus reference
        self.change_squares = 0.0
        self.durations = (Histogram(DURATION_SECONDS), Histogram(DURATION_SECONDS))

    def add(self, reference: ShadowAnswer, candidate: ShadowAnswer) -> None:
        self.labels[reference.label, candidate.label] += 1
        change = candidate.confidence - reference.confidence
        self.change.observe(change)
        self.change_squares += change * change
        for i, answer in enumerate((reference, candidate)):
            self.confidence[i] += answer.confidence
            self.durations[i].observe(answer.seconds)


class Shadow:
    """Pairs the two halves, whichever comes first."""

    def __init__(self) -> None:
        self.comparisons: defaultdict[str, Comparison] = defaultdict(Comparison)  # by the reference's model version
        self.unpaired = 0  # references that waited for their copy until there was no room
        self._references: OrderedDict[str, ShadowAnswer] = OrderedDict()
        self._candidates: OrderedDict[str, ShadowAnswer | None] = OrderedDict()  # None where it failed
        self._socket: socket.socket | None = None

    def listen(self, bind: str) -> None:
        """Take datagrams at host:port. Raises OSError where the address is taken by another service."""
        host, _, port = bind.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        # While gunicorn replaces a worker, the old one and the new one have the port together.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.setblocking(False)
        self._socket.bind((host, int(port)))

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def candidate(self, request_id: str, answer: ShadowAnswer | None) -> None:
        """This replica's answer to a copy; None where it failed."""
        self.collect()
        if reference := self._references.pop(request_id, None):
            self._pair(reference, answer)
        else:
            self._candidates[request_id] = answer
            if len(self._candidates) > PENDING:
                self._candidates.popitem(last=False)

    def reference(self, request_id: str, answer: ShadowAnswer) -> None:
        if request_id in self._candidates:
            self._pair(answer, self._candidates.pop(request_id))
            return
        self._references[request_id] = answer
        if len(self._references) > PENDING:
            self._references.popitem(last=False)
            self.unpaired += 1

    def collect(self) -> None:
        """Read the datagrams that have arrived. Done at every copy and every scrape, so nothing waits for them."""
        for message in self._messages():
            # <priority>date tag: id and answer; the answer is "-" where v1 did not give one.
            request_id, _, answer = message.rpartition(": ")[2].strip().partition(" ")
            try:
                self.reference(request_id, ShadowAnswer.decode(answer))
            except ValueError:
                continue

    def _pair(self, reference: ShadowAnswer, candidate: ShadowAnswer | None) -> None:
        comparison = self.comparisons[reference.model_version]
        if candidate:
            comparison.add(reference, candidate)
        else:
            comparison.failures += 1

    def _messages(self) -> Iterator[str]:
        while self._socket:
            try:
                yield self._socket.recv(DATAGRAM_BYTES).decode(errors="replace")
            except BlockingIOError:
                return
