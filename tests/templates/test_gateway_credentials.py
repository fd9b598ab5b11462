"""Who may ask: several users, hashes, changes of passwords and of users, guesses, and where passwords must not be seen."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ansible.plugins.filter.core import get_encrypted_password

from tests.paths import ROOT
from tests.templates.gateway_edge import OPERATORS, Edge, running, wait_for, write_accounts
from tests.templates.test_gateway import NOBODY, SENTENCE, UNLIMITED, assert_problem

SUDO = [] if os.geteuid() == 0 else ["sudo", "--preserve-env"]
HASH = get_encrypted_password("only the hash is known", "sha512", salt="anysalt", rounds=5000)


def accounts(**passwords: str) -> list[dict[str, str]]:
    return [{"name": name, "password": password} for name, password in passwords.items()]


def change(edge: Edge, users: list[dict[str, str]], *, interrupted: bool = False) -> None:
    """What a run of the role does with other users. An `interrupted` one ends after their file is written."""
    options: dict[str, Any] = {"gateway_users": users, "gateway_operators": OPERATORS}
    write_accounts(edge.directory, derive=not interrupted, **options, _gateway_accounts=str(edge.directory))
    if not interrupted:
        reload(edge)


def reload(edge: Edge) -> None:
    edge.verifier.send_signal(signal.SIGHUP)
    edge.gateway.send_signal(signal.SIGHUP)


def status(client: httpx.Client, name: str, password: str) -> int:
    # On a connection of its own: a reload ends idle ones, perhaps as they are asked.
    return client.post("/predict", json=SENTENCE, auth=(name, password), headers={"Connection": "close"}).status_code


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    users = [*accounts(one="first password", **{"two.2@b-c_d": "pass: word"}), {"name": "three", "hash": HASH}]
    options: dict[str, Any] = {"gateway_users": users, "gateway_operators": [{"name": "watch", "hash": HASH}]}
    with running(tmp_path_factory.mktemp("edge"), **options, **UNLIMITED) as edge:
        yield edge


# --- accounts ---


@pytest.mark.parametrize(
    ("name", "password", "expected"),
    [
        ("one", "first password", 200),
        ("two.2@b-c_d", "pass: word", 200),
        ("three", "only the hash is known", 200),
        ("two", "pass: word", 401),
        ("twoX2@b-c_d", "pass: word", 401),
        ("One", "first password", 401),
        ("one", "pass: word", 401),
        ("one", "first password ", 401),
        ("one", "", 401),
        ("", "first password", 401),
        ("watch", "only the hash is known", 401),
        ("(unknown)", "", 401),
        ("(unknown)", "z" * 86, 401),
    ],
)
def test_several_users(edge: Edge, name: str, password: str, expected: int) -> None:
    assert status(edge.client(), name, password) == expected


def test_an_operator_with_a_hash_alone(edge: Edge) -> None:
    with edge.monitoring():
        assert edge.client(auth=("watch", "only the hash is known")).get("/prometheus/classic/graph").status_code == 200
        assert_problem(edge.client(auth=("three", "only the hash is known")).get("/prometheus/classic/graph"), 401)


def test_an_unknown_account_takes_as_long_to_refuse_as_a_known_one(edge: Edge) -> None:
    """Measured in processor time of the verifier. Otherwise the time of an answer would reveal which accounts exist."""
    client = edge.client()
    cost = {}
    for name in ("one", "nobody", "two", "(unknown)", "ONE", ""):
        start = edge.verifier_seconds()
        for number in range(10):
            assert status(client, name, f"guess {number}") == 401
        cost[name] = (edge.verifier_seconds() - start) / 10
    print({name: f"{seconds * 1000:.0f} ms" for name, seconds in cost.items()})
    assert min(cost.values()) > 0.6 * cost["one"]
    assert max(cost.values()) < 1.6 * cost["one"]


def test_requests_without_credentials_use_no_verifier_time(edge: Edge) -> None:
    client = edge.client()
    start = edge.verifier_seconds()
    for _ in range(20):
        assert_problem(client.post("/predict", json=SENTENCE, auth=NOBODY), 401)
    assert edge.verifier_seconds() - start < 0.05


# --- changes ---


def test_passwords_are_changed_without_a_lost_request(tmp_path: Path) -> None:
    """Both users ask all the time; one gets another password twice. The other never notices, and the one sees no 5xx."""
    with running(tmp_path, gateway_users=accounts(one="before", other="stays"), **UNLIMITED) as edge:
        seen: dict[str, Counter[int]] = {"other": Counter(), "one": Counter()}
        current = {"one": "before", "other": "stays"}
        done, enough = threading.Event(), threading.Event()

        def takes(client: httpx.Client, password: str) -> bool:
            return status(client, "one", password) == 200

        def ask(name: str) -> None:
            with edge.client() as client:
                while not done.is_set():
                    try:
                        seen[name][status(client, name, current[name])] += 1
                    except httpx.RemoteProtocolError:  # the reload closed the idle connection: clients open another
                        seen[name][0] += 1
                    enough.set()

        threads = [threading.Thread(target=ask, args=(name,)) for name in seen]
        for thread in threads:
            thread.start()
        try:
            for password in ("between", "after"):
                users = accounts(one=password, other="stays")
                change(edge, users)
                with edge.client() as client:
                    wait_for(partial(takes, client, password), "the new password")
                current["one"] = password
                enough.clear()
                assert enough.wait(20), "no more answers"
        finally:
            done.set()
            for thread in threads:
                thread.join()
        print(seen)
        assert set(seen["other"]) <= {200, 0}
        assert set(seen["one"]) <= {200, 401, 0}
        with edge.client() as client:
            wait_for(lambda: status(client, "one", "between") == 401, "the end of the password before")
            assert [status(client, "one", password) for password in ("before", "after")] == [401, 200]


def test_a_removed_user_is_refused(tmp_path: Path) -> None:
    """At once where the run went on. Where it was interrupted after the file was written, when vmlops-accounts.path or the
    next run has the key made again: that follows from the files, and not from what a run remembers."""
    users = accounts(one="first password", two="second password")
    with running(tmp_path, gateway_users=users, **UNLIMITED) as edge:
        client = edge.client()
        assert [status(client, user["name"], user["password"]) for user in users] == [200, 200]
        change(edge, users[:1])
        wait_for(lambda: status(client, "two", "second password") == 401, "the end of the user")
        assert status(client, "one", "first password") == 200

        change(edge, users)
        wait_for(lambda: status(client, "two", "second password") == 200, "the return of the user")
        key = (tmp_path / "vmlops.key").read_text()
        change(edge, users[:1], interrupted=True)
        change(edge, users[:1])  # the next run, for which the files are as they should be
        assert (tmp_path / "vmlops.key").read_text() != key
        wait_for(lambda: status(client, "two", "second password") == 401, "the end of the user")
        assert status(client, "one", "first password") == 200


def test_the_key_is_another_one_whenever_the_files_are(tmp_path: Path) -> None:
    """Also when they are again what they were: verdicts of that time may be left."""
    program = ROOT / "roles/gateway/files/vmlops-accounts"
    key = tmp_path / "vmlops.key"

    def made(users: str, operators: str) -> str:
        (tmp_path / "vmlops.users").write_text(users)
        (tmp_path / "vmlops.operators").write_text(operators)
        said = subprocess.run([program, tmp_path], check=True, capture_output=True, text=True).stdout
        again = subprocess.run([program, tmp_path], check=True, capture_output=True, text=True).stdout
        assert (said, again) == ("changed\n", "")
        assert {path.name for path in tmp_path.iterdir()} == {
            f"vmlops.{part}" for part in ("key", "names", "users", "operators")
        }
        assert (key.stat().st_mode & 0o777, (tmp_path / "vmlops.names").stat().st_mode & 0o777) == (0o600, 0o640)
        return key.read_text().splitlines()[1]

    one, two = "one:$6$a\n", "two:$6$b\n"
    keys = [made(one + two, two), made(one, two), made(one + two, two), made(one, two + two), made(one + two, two)]
    print(keys)
    assert len(set(keys)) == 5
    key.unlink()
    assert made(one + two, two) not in keys


def test_a_refusal_by_the_guess_limit_revives_no_verdict(tmp_path: Path) -> None:
    """The user is removed and the run interrupted, so that the old key still counts. Once the verdict's time is over, the
    verifier must be heard, also where it refuses to check since the same address guessed too often."""
    users = accounts(one="first password", two="second password")
    options = {"gateway_rate": 10000, "gateway_burst": 10000, "gateway_guess_rate": 1, "gateway_guess_burst": 2}
    with running(tmp_path, gateway_users=users, _gateway_verdict_time="1s", **options) as edge:
        client = edge.client()
        assert status(client, "two", "second password") == 200
        change(edge, users[:1], interrupted=True)
        seen: Counter[int] = Counter()

        def over() -> bool:
            for number in range(4):  # keeps the guess limit exhausted
                status(client, "one", f"guess {number}")
            seen[status(client, "two", "second password")] += 1
            return seen[401] + seen[429] >= 10

        wait_for(over, "refusals of the removed user", 30)
        print(seen)
        assert seen[429], "the guess limit was not reached"
        assert_problem(client.post("/predict", json=SENTENCE, auth=("two", "second password")), 429)


# --- where passwords must not be seen ---

PLANTED = "Planted-Secret-7391"


def play(directory: Path, variables: dict[str, Any], *options: str) -> str:
    """All that a run of the role says when it says as much as it can, and the command lines of all processes meanwhile."""
    book, settings, inventory = directory / "play.yml", directory / "settings.json", directory / "hosts"
    inventory.write_text("[gateway]\nlocalhost\n")
    tasks = [{"ansible.builtin.import_role": {"name": "gateway", "tasks_from": "configure"}}]
    if "--start-at-task" not in options:
        tasks = [{"ansible.builtin.import_role": {"name": "gateway"}}]
    hosts = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    book.write_text(yaml.safe_dump([{**hosts, "tasks": tasks}]))
    settings.write_text(json.dumps({"ansible_python_interpreter": sys.executable} | variables))
    settings.chmod(0o600)
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
        "ANSIBLE_LOG_PATH": str(directory / "ansible.log"),
        "ANSIBLE_NOCOLOR": "true",
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [*SUDO, program, "-i", str(inventory), str(book), "-e", f"@{settings}", "-vvv", "--diff", *options]
    seen = set()
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        while process.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue
    said = (directory / "output").read_text() + (directory / "ansible.log").read_text()
    print(said[-6000:])
    return said + "\n".join(seen)


REFUSED: dict[str, dict[str, Any]] = {
    "a misspelt key": {"gateway_users": [{"name": "a", "pasword": PLANTED}]},
    "another list beside a wrong one": {
        "gateway_users": [{"name": "a", "password": PLANTED}],
        "gateway_operators": [{"name": "a", "pass": PLANTED}],
    },
    "a text in place of the account": {"gateway_users": [f"a:{PLANTED}"]},
    "a text in place of the list": {"gateway_users": PLANTED},
    "a list in place of the password": {
        "gateway_users": [{"name": "a", "password": [PLANTED], "hash": {"x": PLANTED}}]
    },
    "a wrong setting elsewhere": {"gateway_users": [{"name": "a", "password": PLANTED}], "gateway_rate": "ten"},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_shows_no_password(tmp_path: Path, case: str) -> None:
    said = play(tmp_path, REFUSED[case])
    assert "failed=1" in said
    assert PLANTED not in said


@pytest.mark.parametrize("where", ["there", "not there"])
def test_no_task_shows_a_password(tmp_path: Path, where: str) -> None:
    """Neither one that writes the accounts, with --diff, nor one that fails over it."""
    target = tmp_path / "etc"
    if where == "there":
        target.mkdir()
    variables = {
        "gateway_users": [{"name": "a", "password": PLANTED}, {"name": "b", "hash": HASH}],
        "_gateway_accounts": str(target),
        "_gateway_verifier_account": "root",
        "_gateway_http2_directive": False,
        "_gateway_ipv6": False,
    }
    said = play(tmp_path, variables, "--start-at-task", "gateway : Write the accounts and their password hashes")
    assert "Write the accounts and their password hashes" in said
    assert "failed=1" in said
    salt = HASH.split("$")[3]
    assert PLANTED not in said
    assert f"${salt}$" not in said, "a hash was shown"
    if where == "there":
        written = target / "vmlops.users"
        assert written.stat().st_mode & 0o777 == 0o640
        assert PLANTED not in written.read_text()


def test_no_log_and_no_readable_file_has_a_password(edge: Edge) -> None:
    client = edge.client()
    status(client, "one", "first password")
    client.post("/predict", json=SENTENCE, auth=("one", PLANTED), headers={"X-Request-ID": "planted"})
    edge.access_log("planted")
    secrets = [PLANTED, "first password", "only the hash is known"]
    secrets += [base64.b64encode(f"one:{secret}".encode()).decode() for secret in secrets]
    secrets += [line.split(":")[1] for line in (edge.directory / "vmlops.users").read_text().splitlines()]
    private = {"vmlops.users", "vmlops.operators"}
    for path in edge.directory.rglob("*"):
        if path.is_file() and path.name not in private:
            content = path.read_bytes().decode(errors="replace")
            assert not [secret for secret in secrets if secret in content], path
