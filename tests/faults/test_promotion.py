"""Promotions that rest on what Prometheus counted: granted, refused and forced; and a v2 whose verdict falls while it bakes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.conftest import MakeUnderLoad, Start
from tests.faults.rollouts import FAILING, Make, active, decision, drawn, make, running, site


@pytest.fixture(scope="module", autouse=True)
def copies() -> Iterator[None]:
    """v2 gets a copy of every request."""
    site("gateway", gateway_shadow_percent=100)
    yield
    site("gateway")


def test_v2_is_promoted_once_enough_was_counted_and_not_before(
    host: Any, load: Start, make_under_load: MakeUnderLoad, new: Make, eventually: Callable[..., Any]
) -> None:
    identity, archive = new({"app/another.txt": "as good as the one that serves"})
    before = active(host, "v1")
    assert make("deploy", f"RELEASE={archive}", "VERSION=v2")[0] == 0
    status, said = make("promote")
    assert status != 0, said
    assert "WAIT: nothing was compared yet" in said, said
    with load(seconds=15, clients=10):
        pass

    def refusal() -> str:
        status, said = make("promote")
        assert status != 0, said
        return said if re.search(r"WAIT: about [\d,]+ more copies until the \w+ can be judged", said) else ""

    eventually(refusal, "the first copies are counted", 60)
    assert active(host, "v1") == before

    with load(seconds=40, clients=30):
        pass

    eventually(lambda: "PROMOTE:" in make("verdict")[1], "there is a verdict", 90)
    status, said, clients = make_under_load("promote")
    assert status == 0, said
    assert set(running(host).values()) == {identity}
    assert set(clients.codes) == {"200"}, clients.codes
    assert decision(host) == f"promotion of v1 to release {identity}: promote: v2 is no worse than is allowed"
    eventually(
        lambda: [one for one in drawn(host) if (one["decision"], one["release"]) == ("promotion", identity)],
        "Prometheus has the decision",
    )


def test_a_v2_that_fails_is_not_promoted_except_by_force_which_is_written_down(
    host: Any, load: Start, new: Make, eventually: Callable[..., Any]
) -> None:
    identity, archive = new({"app/main.py": FAILING.format(share=5)})
    before = active(host, "v1")
    assert make("deploy", f"RELEASE={archive}", "VERSION=v2")[0] == 0
    with load(seconds=15, clients=10) as clients:
        pass
    assert set(clients.codes) == {"200"}, f"a copy costs its client nothing: {clients.codes}"
    eventually(lambda: "GO BACK:" in make("verdict")[1], "the failures are counted", 60)
    status, said = make("promote")
    assert status != 0, said
    assert "GO BACK: v2 is worse in errors of copies" in said, said
    assert re.search(r"errors [\d,]+ copies 0\.00% \d+\.\d+% .*? WORSE", said), said
    assert active(host, "v1") == before

    status, said = make("promote", "FORCE=1")
    assert status == 0, said
    assert active(host, "v1") == identity
    assert decision(host).startswith(f"forced promotion of v1 to release {identity}: go back: v2 is worse in errors")


def test_a_v2_whose_verdict_falls_while_it_bakes_goes_back_by_itself(
    host: Any, make_under_load: MakeUnderLoad, new: Make
) -> None:
    _, archive = new({"app/main.py": FAILING.format(share=5)})
    before, served = running(host), active(host, "v2")
    status, said, clients = make_under_load("deploy", f"RELEASE={archive}", "VERSION=v2", "BAKE=10m")
    reason = "v2 is worse in errors of copies"
    assert status != 0, said
    assert f"v2 went back by itself to release {served}: {reason}" in said, said
    assert running(host) == before
    assert set(clients.codes) == {"200"}, f"a copy costs its client nothing: {clients.codes}"
    assert decision(host).startswith(f"automatic rollback of v2 to release {served}: {reason}")
