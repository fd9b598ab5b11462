"""The watchdog on services that take connections and answer none."""

from __future__ import annotations

import asyncio

import pytest

from roles.base.files import vmlops_watchdog as watchdog


def kills(monkeypatch: pytest.MonkeyPatch, looks: str) -> list[int]:
    """The numbers of the looks after which a service is killed; a look is `s`ilent, `a`nswered or - for not running."""
    killed: list[int] = []
    number = 0

    async def is_silent(address: str) -> bool:
        return looks[number] == "s"

    async def sleep(seconds: float) -> None:
        nonlocal number
        number += 1
        if number == len(looks):
            raise EOFError

    monkeypatch.setattr(watchdog, "is_silent", is_silent)
    monkeypatch.setattr(watchdog, "is_stopped", lambda pid: False)
    monkeypatch.setattr(watchdog, "processes", lambda unit: [] if looks[number] == "-" else [1])
    monkeypatch.setattr(watchdog, "kill", lambda pid: killed.append(number + 1))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(EOFError):
        asyncio.run(watchdog.watch("unit", "/run/socket"))
    return killed


@pytest.mark.parametrize(
    ("looks", "killed"),
    [
        ("ssa" * 10, []),
        ("sss", [3]),
        # Until it has answered, it gets more and more time to start.
        ("s" * 100, [3, 9, 21, 45, 69, 93]),
        ("sss---ssssss", [3, 12]),
        ("sssasss", [3, 7]),
    ],
)
def test_silence_is_ended_without_keeping_a_slow_start_from_its_end(
    looks: str, killed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kills(monkeypatch, looks) == killed
