"""Rollouts that are taken back: what bakes and burns the error budget, what does not start, and what nobody signed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.conftest import MakeUnderLoad, Start
from tests.faults.rollouts import FAILING, TREES, Make, active, decision, deploy, drawn, make, running

NOT_STARTING = """

if settings.version == "v2":
    raise SystemExit("broken on purpose")
"""


def test_a_rollout_that_burns_the_error_budget_goes_back_by_itself_and_says_so(
    host: Any, load: Start, make_under_load: MakeUnderLoad, new: Make, eventually: Callable[..., Any]
) -> None:
    _, archive = new({"app/main.py": FAILING.format(share=1)})
    before, served = running(host), active(host, "v1")
    status, said, clients = make_under_load("deploy", f"RELEASE={archive}", "VERSION=v1", "BAKE=10m")
    reason = r"[\d,]+ of [\d,]+ predictions of v1 failed; the objective allows 0\.5%, and before it were "
    assert status != 0, said
    assert re.search(f"v1 went back by itself to release {served}: {reason}", said), said
    assert running(host) == before
    assert clients.codes["500"] > 0, f"it did fail: {clients.codes}"
    status, said = make("rollback")
    assert status != 0, said
    assert "v1 has no release to go back to" in said, said
    assert running(host) == before
    with load(seconds=3, clients=10) as clients:
        pass
    assert set(clients.codes) == {"200"}, clients.codes
    assert re.match(f"automatic rollback of v1 to release {served}: {reason}", decision(host))
    eventually(
        lambda: [one for one in drawn(host) if (one["decision"], one["version"]) == ("automatic rollback", "v1")],
        "Prometheus has the decision",
    )


def test_a_release_that_v2_does_not_start_with_never_reaches_v1(host: Any, new: Make) -> None:
    _, archive = new({"app/main.py": NOT_STARTING})
    before = running(host)
    started = "systemctl show --value --property=ExecMainStartTimestampMonotonic 'vmlops-api-v1@*'"
    moments = host.check_output(started)
    status, said = deploy(archive, ["v1", "v2"], api_ready_timeout=5)
    assert status != 0, said
    assert "broken on purpose" in said, said
    assert running(host) == before
    assert host.check_output(started) == moments


def test_only_what_a_signer_signed_is_taken(host: Any, new: Make, tmp_path: Path) -> None:
    key = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(key)]
    subprocess.run(command, check=True)
    signers = [f"ann@example.org {key.with_suffix('.pub').read_text().strip()}"]
    before = running(host)
    identity, archive = new({"app/another.txt": "unsigned"})
    status, said = deploy(archive, ["v2"], api_release_signers=signers)
    assert status != 0, said
    assert "is not signed, and /etc/vmlops/release_signers names who has to" in said, said
    assert running(host) == before
    assert not host.file(f"{TREES}/{identity}").exists, "what was refused takes no room"

    identity, archive = new({"app/another.txt": "signed"}, key=key)
    status, said = deploy(archive, ["v2"], api_release_signers=signers)
    assert status == 0, said
    assert active(host, "v2") == identity
    status, said = make("releases")
    assert re.search(f"{identity} .* signed by ED25519 key SHA256:", said), said
    assert deploy(archive, ["v2"])[0] == 0, "and anybody's again"
    assert not host.file("/etc/vmlops/release_signers").exists
