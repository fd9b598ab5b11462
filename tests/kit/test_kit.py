"""The kit on a bare machine that has no network: a tree of its own, in a network namespace without any route.

One walk, in this order: each step needs the one before it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.commands import as_root, os_release
from tests.paths import ROOT

HOME = "/srv/kit"
CLONE = f"{HOME}/vmlops"
PROBE = "vmlops-probe.example"


class Island:
    """The machine, and the questions for names that were asked on it."""

    def __init__(self, place: Path, kit: Path) -> None:
        self.tree, self.questions, self.log = place / "tree", place / "questions", place / "log"
        suite = os_release()["VERSION_CODENAME"]
        # No more than what a distribution calls essential, and apt.
        command = ["mmdebstrap", "--quiet", "--variant=apt", suite, str(self.tree)]
        subprocess.run(as_root(*command), check=True)
        namespaces = ("--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
        program = (sys.executable, "-m", "tests.kit.island", self.tree, kit, self.questions)
        self.supervisor = subprocess.Popen(as_root("unshare", *namespaces, *program), cwd=ROOT)
        deadline = time.monotonic() + 30
        while not self.questions.exists() or not self.questions.read_text():
            assert self.supervisor.poll() is None, "the machine did not start"
            assert time.monotonic() < deadline, "the machine did not start in 30 s"
            time.sleep(0.1)
        (self.first,) = map(
            int, Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children").read_text().split()
        )

    def asked(self) -> list[str]:
        return self.questions.read_text().splitlines()[1:]

    def run(self, command: str) -> str:
        """What a command of root's says; the whole of it goes to the log, its end to the report if it fails."""
        environment = {
            "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM": "dumb",
        }
        words = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), "sh", "-euc", command]
        enter = ["nsenter", f"--target={self.first}", "--mount", "--net", "--pid", "--ipc", "--uts", "--root", "--wd"]
        begin = time.monotonic()
        result = subprocess.run(as_root(*enter, *words), check=False, capture_output=True, text=True)
        said = result.stdout + result.stderr
        with self.log.open("a") as log:
            log.write(f"$ {command}\n{said}\n# {result.returncode} after {time.monotonic() - begin:.0f} s\n")
        assert result.returncode == 0, f"{command}: {result.returncode}\n{said[-8000:]}"
        return said

    def make(self, target: str) -> str:
        return self.run(f"cd {CLONE}; make {target}")

    def predict(self) -> dict[str, str]:
        """The answer of the running system."""
        answer: dict[str, str] = json.loads(self.make("--silent test-api").rpartition("\n\n")[2])
        return answer

    def remove(self) -> None:
        self.supervisor.kill()  # the kernel ends the first process with it, and so all others
        self.supervisor.wait()
        subprocess.run(as_root("rm", "-rf", "--one-file-system", self.tree), check=True)


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    archive = max((ROOT / "build").glob("vmlops-kit-*.tar"), key=lambda path: path.stat().st_mtime)  # make's last
    place = tmp_path_factory.mktemp("island")
    subprocess.run(["tar", "-xf", archive, "-C", place], check=True)
    island = Island(place, place / "kit")
    yield island
    print(island.log.read_text())
    island.remove()


@pytest.fixture(autouse=True)
def nobody_asks_for_a_name(island: Island) -> Iterator[None]:
    before = island.asked()
    yield
    asked = island.asked()[len(before) :]
    assert [question for question in asked if PROBE not in question] == []


def test_machine_is_bare_and_has_no_route(island: Island) -> None:
    assert island.run("cat /proc/net/route").count("\n") == 1, "more than the heading"
    assert not {"git", "make", "python3", "curl"} & set(island.run("ls /usr/bin").split())


def test_kit_is_as_it_was_made_and_installs(island: Island) -> None:
    assert "files are as they were made" in island.run("/media/verify")
    assert CLONE in island.run(f"mkdir -p {HOME}; cd {HOME}; /media/install")


def test_project_starts_and_predicts(island: Island) -> None:
    said = island.make("start-project")
    assert "vmlops runs in the lab machine" in said
    assert island.predict()["prediction"]


def test_question_for_a_name_is_noticed(island: Island) -> None:
    """On the control machine and on the lab machine; otherwise the other tests would prove nothing."""
    for number, command in enumerate(("getent hosts {}", "make ssh CMD='getent hosts {}'")):
        name = f"{number}.{PROBE}"
        before = island.asked()
        # It fails, since nobody knows the name; that the name was asked for is what counts.
        island.run(f"cd {CLONE}; {command.format(name)} || true")
        assert any(name in question for question in island.asked()[len(before) :]), command


def test_model_is_trained_deployed_and_taken_back(island: Island) -> None:
    before = island.predict()["model_version"]
    island.run(f"head -n 4001 {CLONE}/data/tweet_emotions.csv >/tmp/fewer.csv")
    island.make("model DATA=/tmp/fewer.csv")
    island.make("deploy")
    assert island.predict()["model_version"] != before
    island.make("rollback")
    assert island.predict()["model_version"] == before


def test_another_run_of_site_changes_nothing(island: Island) -> None:
    # Of the model that was trained last, until the rollback's is the clone's again.
    island.make("model")
    island.make("provision")
    assert re.search(r"changed=0 .*failed=0", island.make("provision"))


def test_project_is_checked_and_removed(island: Island) -> None:
    assert "All checks passed." in island.make("test")
    island.make("destroy-project")
