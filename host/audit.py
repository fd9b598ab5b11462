"""Known vulnerabilities of the locked Python packages, and the licences of those that are installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from host.commands import ROOT, Problem, output

_PROGRAMS = ROOT / ".venv/bin"


def audit() -> None:
    """Print the vulnerabilities of every lock, and licences.

    Raises Problem where there is a vulnerability, and where the index could not be asked about a package.
    """
    print(output(_PROGRAMS / "pip-licenses", "--python", _PROGRAMS / "python", "--order=license"))
    answers = {path.name: ask(path) for path in sorted((ROOT / "requirements").glob("*.txt"))}
    lines = [line for name, answer in answers.items() for line in vulnerable(name, answer)]
    unknown = sorted({package["name"] for answer in answers.values() for package in answer if "skip_reason" in package})
    print(*lines, sep="\n")
    if lines:
        raise Problem(f"{len(lines)} known vulnerabilities, see above: `make locks UPGRADE=1` takes newer versions")
    if unknown:
        raise Problem(
            f"the index has no answer about {len(unknown)} packages ({', '.join(unknown[:5])} …): try where it can be reached"
        )
    print(f"No known vulnerability in {len(answers)} locks.")


def ask(lock: Path) -> list[dict[str, Any]]:
    """pip-audit's entries of a lock: name, version, and vulns or skip_reason.

    Raises Problem where pip-audit could not work at all.
    """
    options = ["--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json"]
    done = subprocess.run(
        [str(_PROGRAMS / "pip-audit"), *options, "--requirement", str(lock)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise Problem(f"{lock.name} cannot be audited, is there a network? pip-audit says: {last}") from None
    return found


def vulnerable(lock: str, packages: list[dict[str, Any]]) -> list[str]:
    """A line for each vulnerability: where, what, and the versions that are without it."""
    return [
        f"{lock}: {package['name']} {package['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]
