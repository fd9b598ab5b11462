"""Releases that a test makes, and what an operator types to roll them out on the lab machine that runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roles.api.library import vmlops_release
from tests.paths import ROOT

INVENTORY = os.environ.get("VMLOPS_INVENTORY", "inventory/lab")
TREES = "/opt/vmlops/releases"

# Put behind app/main.py: of every {share} predictions one fails. The check of a release does not come by there.
FAILING = """

from app.http.predictor import Predictor

scored, asked = Predictor.scored, 0


def failing(self, body, request_id):
    global asked
    asked += 1
    if asked % {share} == 0:
        raise RuntimeError("broken on purpose")
    return scored(self, body, request_id)


Predictor.scored = failing
"""

Release = tuple[str, Path]  # id and archive
Make = Callable[..., Release]


@contextmanager
def releases(host: Any, scratch: Path) -> Iterator[Make]:
    """make(files={path: text to append}, key=None) is a release like the repository's, with those files changed or added.

    Afterwards v1 and v2 run what they ran before.
    """
    before = {version: active(host, version) for version in ("v1", "v2")}
    about = json.loads(host.check_output(f"cat {TREES}/{before['v1']}/release.json"))
    target = {name: about[name] for name in ("python_version", "architecture")}

    def make(files: dict[str, str], key: Path | None = None) -> Release:
        project = scratch / f"project{len(list(scratch.iterdir()))}"
        for name in ("app", "requirements", "model/artifacts"):
            shutil.copytree(ROOT / name, project / name)
        for name in ("host", "release"):
            (project / name).symlink_to(ROOT / name)
        for name, text in files.items():
            with (project / name).open("a") as file:
                file.write(text)
        _, identity, path = vmlops_release.make_release(project, scratch / "out", target, False, key)
        return identity, path

    try:
        yield make
    finally:
        for version, release in before.items():
            host.check_output(f"vmlops-api activate {version} {release}")


def active(host: Any, version: str) -> str:
    """The release that a version is to run."""
    return str(host.check_output(f"basename $(readlink /opt/vmlops/{version})"))


def running(host: Any) -> dict[str, str]:
    """The release that each instance runs from."""
    lines = host.check_output("vmlops-api status").splitlines()
    return {line.split()[0]: line.split()[-2] for line in lines}


def decision(host: Any) -> str:
    """The newest decision in the journal."""
    command = "journalctl -t vmlops-api -o cat | grep -E '(promotion|rollback) of' | tail -n 1"
    return str(host.check_output(command))


def drawn(host: Any) -> list[dict[str, str]]:
    """The labels of the decisions that Prometheus has, which the dashboards draw."""
    query = "query=vmlops_decision_timestamp_seconds"
    said = host.check_output(f"curl -s --data-urlencode '{query}' http://127.0.0.1:9090/api/v1/query")
    return [series["metric"] for series in json.loads(said)["data"]["result"]]


def start_deploy(archive: Path, versions: list[str], **settings: object) -> subprocess.Popen[str]:
    chosen = json.dumps({"api_release_file": str(archive), "api_deploy_versions": versions, **settings})
    return subprocess.Popen(
        [*PLAYBOOK, "playbooks/deploy.yml", "-e", chosen], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


PLAYBOOK = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", INVENTORY]


def deploy(archive: Path, versions: list[str], **settings: object) -> tuple[int, str]:
    """Exit status, and what it said in one line."""
    run = start_deploy(archive, versions, **settings)
    said = " ".join(run.communicate()[0].split())
    return run.returncode, said


def make(*words: str) -> tuple[int, str]:
    """`make WORD …` with the exit status of what it calls, and what it said in one line."""
    command = ["make", *words, f"ENVIRONMENT={Path(INVENTORY).name}"]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout[-4000:])
    return done.returncode, " ".join(done.stdout.split())


def site(*tags: str, **settings: object) -> None:
    """site.yml, of it what has these tags, with these settings."""
    command = [*PLAYBOOK, "site.yml", "--tags", ",".join(tags), "-e", json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
