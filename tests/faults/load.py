"""Clients that each ask for predictions at a steady pace: `python3 - OPTIONS < load.py` on the machine itself.

Each client has an address of the loopback network of its own, so that none meets the limit by client. At the end, a JSON object:
{"codes": {"200": 1234, "error ConnectionResetError": 1}, "reconnected": 0, "milliseconds": [median, 99th percentile, maximum]}

Like curl and browsers, a client whose kept connection turns out to be closed before a byte of the answer came sends the request
again, once, on a new one; `reconnected` counts that.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import ssl
import threading
import time
from collections import Counter
from pathlib import Path

SENTENCE = "Oh yeah, that was soooo cool!"


class Client(threading.Thread):
    def __init__(self, number: int, options: argparse.Namespace, end: float) -> None:
        super().__init__()
        self.source = (
            f"127.{options.network}.{number // 250}.{number % 250 + 1}" if options.address == "127.0.0.1" else ""
        )
        self.options, self.end = options, end
        self.pause = 1 / options.rate if options.rate else 0
        question = {"sentences": [SENTENCE * 200] * options.batch} if options.batch else {"sentence": SENTENCE}
        self.body = json.dumps(question)
        self.codes: Counter[str] = Counter()
        self.reconnected = 0
        self.seconds: list[float] = []

    def ask(self, connection: http.client.HTTPSConnection, headers: dict[str, str]) -> int:
        connection.request("POST", self.options.path, self.body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def run(self) -> None:
        ca = self.options.ca
        context = ssl.create_default_context(cafile=ca) if ca else ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(
            self.options.address, context=context, source_address=(self.source, 0), timeout=self.options.timeout
        )
        kept, attempt = False, 0
        while (start := time.monotonic()) < self.end and not self.options.until.exists():
            attempt += 1
            password = f"guess {self.source} {attempt}" if self.options.guess else "admin"
            headers = {
                "Authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode(),
                "Content-Type": "application/json",
            } | ({"X-Experiment-Group": "debug"} if self.options.debug else {})
            try:
                try:
                    status = self.ask(connection, headers)
                except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError):
                    if not kept:
                        raise
                    self.reconnected += 1
                    connection.close()
                    status = self.ask(connection, headers)
                self.codes[str(status)] += 1
                kept = connection.sock is not None
            except (OSError, http.client.HTTPException) as error:
                self.codes[f"error {type(error).__name__}"] += 1
                connection.close()
                kept = False
            taken = time.monotonic() - start
            self.seconds.append(taken)
            time.sleep(max(0.0, self.pause - taken))
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument(
        "--rate", type=float, default=8, help="requests a second and client; 0 for as many as there can be"
    )
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--until", type=Path, default=Path("/nonexistent"), help="a file whose appearance ends the load before its time"
    )
    parser.add_argument("--path", default="/predict")
    parser.add_argument("--address", default="127.0.0.1", help="whom to ask; any other is asked from one address")
    parser.add_argument("--timeout", type=float, default=15, help="seconds")
    parser.add_argument("--ca", default="", help="a file: verify the certificate with it")
    parser.add_argument("--batch", type=int, default=0, help="sentences of a request: the load is of batches")
    parser.add_argument("--network", type=int, default=20, help="second part of the addresses")
    parser.add_argument("--debug", action="store_true", help="ask v2")
    parser.add_argument("--guess", action="store_true", help="a wrong password, another one every time")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    clients = [Client(number, options, end) for number in range(options.clients)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    codes = sum((client.codes for client in clients), Counter())
    times = sorted(1000 * second for client in clients for second in client.seconds)
    spread = [round(times[int(share * (len(times) - 1))], 1) for share in (0.5, 0.99, 1)]
    print(
        json.dumps(
            {"codes": codes, "reconnected": sum(client.reconnected for client in clients), "milliseconds": spread}
        )
    )


main()
