#!/usr/bin/python3
"""Releases and instances of the API on this machine; installed as /usr/local/sbin/vmlops-api.

    vmlops-api status                      what runs, from which release
    vmlops-api list                        what is installed, who signed it, which version uses it
    vmlops-api verify FILE                 who signed what, and whether every file is as it was; on any machine, as anybody
    vmlops-api install ID                  finish an unpacked release and check it; one that is refused is removed
    vmlops-api instances [VERSION@PORT …]  these are to run, others are stopped
    vmlops-api activate VERSION ID         roll a release out, one instance at a time; a failure goes back to the old one
    vmlops-api rollback VERSION            activate the release that the version had before
    vmlops-api releases                    of each version what it runs, what is recorded and since when, as JSON
    vmlops-api record VERSION PREVIOUS     what runs now is what the fleet runs; `rollback` goes back to PREVIOUS
    vmlops-api lock HOST PID [LIVING …]    take the lock of rollouts for a process of a control machine, where LIVING ones run
    vmlops-api unlock HOST PID             give it back
    vmlops-api restart VERSION             the same release anew, one instance at a time: after an update of the machine's Python
    vmlops-api labels                      the predictions that got a label, each as a line of JSON
    vmlops-api forget REQUEST_ID           erase what is kept of a request: predictions, label, text
    vmlops-api prune KEEP                  remove releases that are neither in use nor among the KEEP newest others, and what
                                           interrupted runs left half copied

Every verb prints a line for each thing that it changed, and nothing where nothing was to be changed.
An interrupted call is made good by the next: what an instance runs is read from its process, not remembered.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

HOME = Path("/opt/vmlops")
RELEASES = HOME / "releases"
UNITS = Path("/etc/systemd/system")
WANTED = UNITS / "vmlops-api.target.wants"
# Written last: a release without it was interrupted or has failed its check.
MARK = "INSTALLED"
LOCK = Path("/run/vmlops-api.lock")
LOCK_SECONDS = 120  # a rollout on one host takes less
# Who rolls out, over all hosts and for as long as that takes; LOCK is held by one call on one host.
ROLLOUT = Path("/run/vmlops-rollout.json")
# A rollout renews its lock on a host before it works there, which takes minutes. One that is older has died.
ROLLOUT_SECONDS = 1800
# Who may sign releases, as ssh-keygen(1) says under ALLOWED SIGNERS. Where it exists, other releases are refused.
SIGNERS = Path("/etc/vmlops/release_signers")
SIGNATURE_NAMESPACE = "vmlops-release"
# Predictions that wait for labels, made by the replicas (app/observed/feedback.py).
FEEDBACK = Path("/var/lib/vmlops-feedback/feedback.db")


class Failure(Exception):
    """The wanted state was not reached; the text says why and what serves now."""


def run(*command: str) -> str:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise Failure(f"{' '.join(command)}: {(result.stderr or result.stdout).strip()}")
    return result.stdout.strip()


def say(text: str) -> None:
    print(text, flush=True)


class Instance:
    """One unit, such as vmlops-api-v1@8001.service."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version, _, self.port = name.partition("@")
        self.unit = f"vmlops-api-{name}.service"

    def show(self, prop: str) -> str:
        return run("systemctl", "show", "--value", f"--property={prop}", self.unit)

    @property
    def pid(self) -> int:
        return int(self.show("MainPID") or 0)

    @property
    def release(self) -> str:
        """The release that the running process was started in; empty where none runs."""
        return release_of(self.pid)

    @property
    def is_current(self) -> bool:
        """Whether it runs, from the release that its version points at, as its unit file says and with the certificate of now."""
        if self.release == "" or self.release != active(self.version):
            return False
        started = time.time() - time.monotonic() + int(self.show("ExecMainStartTimestampMonotonic")) / 1e6
        read = [UNITS / f"vmlops-api-{self.version}@.service"]
        if self.tls_dir:
            read += [self.tls_dir / name for name in ("host.crt", "ca.crt")]
        return all(path.stat().st_mtime <= started for path in read)

    @cached_property
    def environment(self) -> dict[str, str]:
        return dict(item.partition("=")[::2] for item in self.show("Environment").split())

    @property
    def tls_dir(self) -> Path | None:
        """Where its certificates are: host.crt, host.key, ca.crt; None where it speaks plain HTTP."""
        return Path(self.environment["VMLOPS_TLS_DIR"]) if "VMLOPS_TLS_DIR" in self.environment else None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls_dir else 'http'}://{self.environment['VMLOPS_BIND']}"

    @property
    def opener(self) -> urllib.request.OpenerDirector:
        """For this machine, so without a proxy of the environment. Raises OSError where the key cannot be read."""
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.tls_dir:
            context = ssl.create_default_context(cafile=str(self.tls_dir / "ca.crt"))
            context.load_cert_chain(self.tls_dir / "host.crt", self.tls_dir / "host.key")
            handlers.append(urllib.request.HTTPSHandler(context=context))
        return urllib.request.build_opener(*handlers)

    @property
    def settle_seconds(self) -> float:
        """How long to wait after a restart: longer than the gateway leaves a replica alone that refused a connection.

        Before that the next replica must not go down, or the gateway could be left with none. nginx counts fail_timeout in whole
        seconds, so up to one more.
        """
        return int(self.environment["FAIL_TIMEOUT_SECONDS"]) + 1.2

    def is_ready(self) -> bool:
        try:
            with self.opener.open(f"{self.url}/ready", timeout=2):
                return True  # any other status than 2xx is an HTTPError
        except (OSError, http.client.HTTPException):
            return False

    def restart(self, timeout: float) -> None:
        """Restart and wait until it is ready; raises Failure where it does not start or get ready in time."""
        try:
            run("systemctl", "reset-failed", self.unit)
            run("systemctl", "restart", self.unit)
        except Failure as error:
            raise Failure(f"{error}{self.evidence()}") from None
        self.await_ready(timeout)

    def await_ready(self, timeout: float) -> None:
        """Poll /ready; raises Failure with the end of the instance's journal after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise Failure(f"{self.unit} was not ready within {timeout:.0f} s{self.evidence()}")
            time.sleep(0.05)

    def evidence(self) -> str:
        journal = run("journalctl", "--no-pager", "--lines=15", "--output=cat", f"--unit={self.unit}")
        return f"; the end of its journal:\n{journal}"


def release_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True).name if pid else ""
    except OSError:  # it ended just now
        return ""


def instances(version: str | None = None) -> list[Instance]:
    found = (Instance(path.name.removeprefix("vmlops-api-").removesuffix(".service")) for path in WANTED.glob("*@*"))
    return sorted((i for i in found if version in (None, i.version)), key=lambda i: i.name)


def active(version: str) -> str:
    link = HOME / version
    return link.readlink().name if link.is_symlink() else ""


def point(link: Path, release: str) -> None:
    """Make a link to a release, in one step, so that it is never missing."""
    scratch = link.with_name(f".{link.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(Path("releases") / release)
    scratch.rename(link)


def verify(source: Path, signers: Path) -> tuple[dict[str, Any], str]:
    """Hash every file of a release, an archive or an unpacked tree. Returns release.json and who signed it.

    Raises Failure at a file that differs, is missing or is not named, and where `signers` exists and none of them signed.
    """
    digests: dict[str, str] = {}
    kept: dict[str, bytes] = {}
    for name, content in contents(source):
        digests[name] = hashlib.sha256(content).hexdigest()
        if name in ("release.json", "release.json.sig"):
            kept[name] = content
    try:
        about = json.loads(kept["release.json"])
        named: dict[str, str] = about["files"]
    except (KeyError, ValueError, TypeError):
        raise Failure(f"{source} is no release: it has no release.json that names its files") from None
    found = {name: digest for name, digest in digests.items() if name not in kept}
    for problem, names in (
        ("missing", named.keys() - found.keys()),
        ("not named in release.json", found.keys() - named.keys()),
        ("not as it was when the release was made", {name for name in named if found.get(name) != named[name]}),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise Failure(f"{source} is damaged or was altered: {min(names)}{more}: {problem}")
    return about, signed_by(source, kept, signers)


def contents(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file. Raises Failure where there is anything but files and directories."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise Failure(f"{path} is neither a file nor a directory")
            if path.is_file():
                yield str(path.relative_to(source)), path.read_bytes()
        return
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file:
                    yield member.name.partition("/")[2], file.read()
                elif not member.isdir():
                    raise Failure(f"{source}: {member.name} is neither a file nor a directory")
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise Failure(f"{source} cannot be read: {error}") from None


def signed_by(source: Path, kept: dict[str, bytes], signers: Path | None = None) -> str:
    """The signer's name in `signers`, or the key where there is no such file; "nobody" for what is unsigned."""
    if signers and not signers.exists():
        signers = None
    if "release.json.sig" not in kept:
        if signers:
            raise Failure(f"{source} is not signed, and {signers} names who has to")
        return "nobody"
    with tempfile.TemporaryDirectory() as scratch:
        signature = Path(scratch, "signature")
        signature.write_bytes(kept["release.json.sig"])

        def keygen(verb: str, *options: str) -> str:
            command = ("ssh-keygen", "-Y", verb, "-s", str(signature), *options)
            done = subprocess.run(command, input=kept["release.json"], check=False, capture_output=True)
            if done.returncode != 0:
                why = (done.stderr or done.stdout).decode().strip() or "none of them signed it"
                raise Failure(f"{source}: the signature is not good for {signers}: {why}")
            return done.stdout.decode().strip()

        if not signers:
            return keygen("check-novalidate", "-n", SIGNATURE_NAMESPACE).partition(" with ")[2]
        name = keygen("find-principals", "-f", str(signers)).splitlines()[0]
        keygen("verify", "-f", str(signers), "-I", name, "-n", SIGNATURE_NAMESPACE)
        return name


def clear(tree: Path) -> None:
    """Take away what an interrupted `install` made, so that only what came with the release is there to be verified."""
    for made in (tree / "venv/bin", tree / "venv/include", *tree.rglob("__pycache__")):
        shutil.rmtree(made, ignore_errors=True)
    for made in (tree / "venv/lib64", tree / "venv/pyvenv.cfg"):
        made.unlink(missing_ok=True)


def install(release: str) -> None:
    """Nothing that serves is touched. Raises Failure where the release is refused, and removes it then: it takes room, and the
    next run brings it anew."""
    tree = RELEASES / release
    if (tree / MARK).exists():
        return
    if not (tree / "release.json").is_file():
        raise Failure(f"{tree} is not an unpacked release: release.json is missing")
    try:
        finish(tree)
    except Failure:
        if release not in used():
            shutil.rmtree(tree)
        raise
    say(f"installed {release}")


def finish(tree: Path) -> None:
    """Verify an unpacked release, make what only the target can make, check it, and mark it. Raises Failure."""
    clear(tree)
    about, _ = verify(tree, SIGNERS)
    wanted = about["python_version"]
    if wanted != f"{sys.version_info.major}.{sys.version_info.minor}":
        raise Failure(f"release {tree.name} is for Python {wanted}, this machine has {sys.version.split()[0]}")
    run("/usr/bin/python3", "-m", "venv", "--without-pip", str(tree / "venv"))
    # The services cannot write here: without this every start would compile everything anew.
    run("/usr/bin/python3", "-m", "compileall", "-q", "-j0", str(tree / "app"), str(tree / "venv" / "lib"))
    # What an interrupted call, or one under another umask, left unreadable.
    run("/usr/bin/chmod", "-R", "go+rX", str(tree))
    check(tree)
    (tree / MARK).touch()


def check(tree: Path) -> None:
    """Load the release's model with all its checks and make a prediction, with the rights of those who will serve it."""
    command = [str(tree / "venv/bin/python"), "-m", "app.check", str(tree / "model")]
    result = subprocess.run(command, cwd=tree, user=account(), check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise Failure(
            f"release {tree.name} is refused, what served goes on serving: {(result.stderr or result.stdout).strip()}"
        )


def account() -> str:
    """The group of all instances, which an account is named after. Raises Failure where no unit names it."""
    for unit in UNITS.glob("vmlops-api-*@.service"):
        if found := re.search(r"^Group=(\S+)$", unit.read_text(), re.MULTILINE):
            return found[1]
    raise Failure(f"{UNITS} has no unit of the API: run site.yml or playbooks/deploy.yml")


def set_instances(names: list[str]) -> None:
    for instance in instances():
        if instance.name not in names:
            run("systemctl", "disable", "--now", instance.unit)
            say(f"retired {instance.name}")
    present = {instance.name for instance in instances()}
    for name in names:
        if name not in present:
            run("systemctl", "enable", Instance(name).unit)
            say(f"added {name}")


def activate(version: str, release: str, timeout: float, *, alone: bool = True) -> None:
    """Make every instance of ``version`` run ``release``.

    Raises Failure where the release is not installed or its check fails (nothing was changed), and where an instance did not get
    ready with it (all instances run the release that they had before).
    Where this host is not ``alone``, what `rollback` goes back to is left to record(), once every host has the release.
    """
    if not (RELEASES / release / MARK).exists():
        raise Failure(f"release {release} is not installed here; installed are: {', '.join(installed()) or 'none'}")
    before = active(version)
    if before != release:
        check(RELEASES / release)
        point(HOME / version, release)
    try:
        replace_instances(version, timeout)
    except Failure as error:
        if before in ("", release):
            raise
        point(HOME / version, before)
        try:
            replace_instances(version, timeout)
        except Failure as second:
            raise Failure(
                f"{release} failed: {error}\nand {version} could not go back to {before} everywhere: {second}"
            ) from None
        raise Failure(f"{version} went back to {before}, which serves; {release} failed: {error}") from None
    if before not in ("", release):
        if alone:
            record(version, before)
        say(f"{version} went from {before} to {release}")


def replace_instances(version: str, timeout: float) -> None:
    """Restart the instances that do not run what their version points at, one at a time; both ways, forward and back, are this.

    An instance that is down comes first: it costs the clients nothing, and the gateway has one more before the next goes down.
    Raises Failure at the first instance that does not get ready; the others are left as they are.
    """
    for instance in sorted(instances(version), key=lambda instance: instance.is_ready()):
        if instance.is_current:
            instance.await_ready(timeout)
        else:
            instance.restart(timeout)
            say(f"restarted {instance.name} with {instance.release}")
            time.sleep(instance.settle_seconds)


def record(version: str, previous: str) -> None:
    """Take what ``version`` runs as what the whole fleet runs, and ``previous`` as what it ran before, if that is another.

    An empty ``previous``: there is nothing to go back to.
    """
    wanted = {"recorded": active(version)}
    if previous != active(version):
        wanted["previous"] = previous
    for name, release in wanted.items():
        link = HOME / f"{version}.{name}"
        if active(link.name) != release:
            if release:
                point(link, release)
            else:
                link.unlink()
            say(f"{version}: {name} is {release or 'none'}")


def fits(release: str) -> bool:
    """Whether the release is for the Python that this machine has: an update of the distribution brings another one."""
    return (RELEASES / release / "venv/lib" / f"python{sys.version_info.major}.{sys.version_info.minor}").is_dir()


def releases() -> dict[str, dict[str, str | float]]:
    """By version: ``active``, ``recorded`` and ``previous`` release, and ``since`` when (Unix time) that is recorded.

    ``previous`` is empty where that release is for another Python: nothing can go back to it.
    """
    found: dict[str, dict[str, str | float]] = {}
    for version in sorted(path.name for path in HOME.glob("v*") if path.is_symlink() and "." not in path.name):
        link = HOME / f"{version}.recorded"
        previous = active(f"{version}.previous")
        found[version] = {
            "active": active(version),
            "recorded": active(f"{version}.recorded"),
            "previous": previous if fits(previous) else "",
            "since": link.lstat().st_mtime if link.is_symlink() else 0.0,
        }
    return found


def lock(owner: list[str], living: list[str]) -> None:
    """Take the lock of rollouts, or renew it; raises Failure where somebody else has it.

    A lock whose owner has died is taken over: a process of the same control machine that is not among ``living``, or one of
    another that has not renewed it for ROLLOUT_SECONDS.
    """
    now = time.time()
    since = now
    if ROLLOUT.exists():
        held = json.loads(ROLLOUT.read_text())
        host, pid = held["owner"]
        if held["owner"] == owner:
            since = held["since"]
        elif (host != owner[0] or pid in living) and now - held["renewed"] < ROLLOUT_SECONDS:
            moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(held["since"]))
            raise Failure(f"process {pid} of {host} has been rolling out since {moment}: wait until it has ended")
    scratch = ROLLOUT.with_suffix(".new")
    scratch.write_text(json.dumps({"owner": owner, "since": since, "renewed": now}))
    scratch.rename(ROLLOUT)


def unlock(owner: list[str]) -> None:
    if ROLLOUT.exists() and json.loads(ROLLOUT.read_text())["owner"] == owner:
        ROLLOUT.unlink()


def restart(version: str, timeout: float) -> None:
    """Restart every instance of ``version``, one at a time; raises Failure at the first that does not get ready."""
    for instance in instances(version):
        instance.restart(timeout)
        say(f"restarted {instance.name} with {instance.release}")
        time.sleep(instance.settle_seconds)


def rollback(version: str, timeout: float) -> None:
    previous = active(f"{version}.previous")
    if not previous:
        raise Failure(f"{version} has had no other release; installed are: {', '.join(installed())}")
    activate(version, previous, timeout)


def installed() -> list[str]:
    """Installed releases, the newest first."""
    trees = [path for path in RELEASES.glob("*") if (path / MARK).exists()]
    return [path.name for path in sorted(trees, key=lambda path: (path / MARK).stat().st_mtime, reverse=True)]


def used() -> set[str]:
    """Releases that a version points at, runs, or goes back to."""
    links = {path.readlink().name for path in HOME.glob("v*") if path.is_symlink()}
    return links | {instance.release for instance in instances()}


def prune(keep: int) -> None:
    kept = used()
    idle = [release for release in installed() if release not in kept]
    # Another run may be unpacking one now, but not for so long. A tree keeps the times that its archive has, except this one.
    old = time.time() - ROLLOUT_SECONDS
    trees = RELEASES.glob("[0-9a-f]" * 12)
    unfinished = [path for path in trees if not (path / MARK).exists() and path.stat().st_ctime < old]
    for release in idle[keep:] + [path.name for path in unfinished if path.name not in kept]:
        shutil.rmtree(RELEASES / release)
        say(f"removed {release}")


def feedback() -> sqlite3.Connection:
    if not FEEDBACK.exists():
        raise Failure(f"{FEEDBACK} is missing: no predictions are kept for labels here (vmlops_feedback)")
    return sqlite3.connect(FEEDBACK, timeout=10, isolation_level=None)


def say_labels() -> None:
    """In the order in which the predictions were made; `input` is what was sent, where it was kept."""
    with closing(feedback()) as database:
        rows = database.execute("SELECT * FROM predictions WHERE label IS NOT NULL ORDER BY made")
        names = [column[0] for column in rows.description]
        for values in rows:
            row = dict(zip(names, values, strict=True))
            say(json.dumps(row | {"input": json.loads(row["input"] or "null")}))


def forget(request_id: str) -> None:
    with closing(feedback()) as database:
        database.execute("PRAGMA secure_delete = ON")  # overwrite it
        erased = database.execute("DELETE FROM predictions WHERE request_id = ?", (request_id,)).rowcount
        # The log of changes has it, too, until it is put into the database.
        (busy, *_) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise Failure(f"{FEEDBACK} is in use, and its log may still have {request_id}: try again")
    if erased:
        say(f"erased {erased} predictions of request {request_id}")


def list_releases() -> None:
    """A line for each installed release, the newest first."""
    links = {path.name: path.readlink().name for path in sorted(HOME.glob("v*")) if path.is_symlink()}
    running: dict[str, list[str]] = {}
    for instance in instances():
        running.setdefault(instance.release, []).append(instance.name)
    for release in installed():
        kept = {path.name: path.read_bytes() for path in (RELEASES / release).glob("release.json*")}
        signer = signed_by(RELEASES / release, kept)
        model = json.loads((RELEASES / release / "model/manifest.json").read_text())["model_version"]
        uses = ", ".join([name for name, to in links.items() if to == release]) or "-"
        runs = ", ".join(running.get(release, [])) or "-"
        say(f"{release}  model {model}  active: {uses}  running: {runs}  signed by {signer}")


def say_what_is_signed(file: Path, signers: Path) -> None:
    about, signer = verify(file, signers)
    target = f"Python {about['python_version']} on {about['architecture']}"
    say(f"release {about['id']} for {target}: {len(about['files'])} files as they were, signed by {signer}")


def status() -> None:
    for instance in instances():
        state = instance.show("ActiveState")
        # Over TLS, it answers those who have the host's key: root, and the services.
        may_ask = not instance.tls_dir or os.access(instance.tls_dir / "host.key", os.R_OK)
        ready = "ask as root" if not may_ask else "ready" if instance.is_ready() else "not ready"
        say(f"{instance.name:10} {state:10} {ready:11} {instance.release or '-':12} {instance.url}")


@contextmanager
def exclusive(patience: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of everything that changes what runs; raises Failure where another call holds it for longer than `patience`
    seconds. What a run called whose control machine died goes on here for a while, and the next run waits for it.
    """
    deadline = time.monotonic() + patience
    with LOCK.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Failure("another vmlops-api is changing what runs: wait until it has ended") from None
                time.sleep(0.1)
        yield


def say_status() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `vmlops-api status | head` ends quietly, like any filter
    status()


# These change nothing, and so need neither root nor the lock.
ANYBODYS: dict[str, Callable[[argparse.Namespace], None]] = {
    "status": lambda _: say_status(),
    "list": lambda _: list_releases(),
    "releases": lambda _: say(json.dumps(releases())),
    "verify": lambda arguments: say_what_is_signed(arguments.file, arguments.signers),
}


def perform(arguments: argparse.Namespace) -> None:
    if arguments.verb in ANYBODYS:
        ANYBODYS[arguments.verb](arguments)
        return
    if os.geteuid() != 0:
        raise Failure("only root may change what runs: use sudo")
    if arguments.verb in ("labels", "forget"):  # which change nothing of what runs
        say_labels() if arguments.verb == "labels" else forget(arguments.request_id)
        return
    os.umask(0o022)  # the services read what is written here
    with exclusive():
        match arguments.verb:
            case "install":
                install(arguments.release)
            case "instances":
                set_instances(arguments.names)
            case "activate":
                activate(arguments.version, arguments.release, arguments.timeout, alone=not arguments.fleet)
            case "record":
                record(arguments.version, arguments.previous)
            case "lock":
                lock([arguments.host, arguments.pid], arguments.living)
            case "unlock":
                unlock([arguments.host, arguments.pid])
            case "rollback":
                rollback(arguments.version, arguments.timeout)
            case "restart":
                restart(arguments.version, arguments.timeout)
            case "prune":
                prune(arguments.keep)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=30, help="seconds that a restarted instance has to get ready")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("status")
    verbs.add_parser("releases")
    verbs.add_parser("list")
    verification = verbs.add_parser("verify")
    verification.add_argument("file", type=Path)
    verification.add_argument("--signers", type=Path, default=SIGNERS, help=f"who may sign (default: {SIGNERS})")
    verbs.add_parser("install").add_argument("release")
    verbs.add_parser("instances").add_argument("names", nargs="*")
    activation = verbs.add_parser("activate")
    activation.add_argument("version")
    activation.add_argument("release")
    activation.add_argument("--fleet", action="store_true", help="other hosts follow: do not record what was before")
    recording = verbs.add_parser("record")
    recording.add_argument("version")
    recording.add_argument("previous")
    for name in ("lock", "unlock"):
        locking = verbs.add_parser(name)
        locking.add_argument("host")
        locking.add_argument("pid")
    verbs.choices["lock"].add_argument("living", nargs="*")
    verbs.add_parser("rollback").add_argument("version")
    verbs.add_parser("restart").add_argument("version")
    verbs.add_parser("labels")
    verbs.add_parser("forget").add_argument("request_id")
    verbs.add_parser("prune").add_argument("keep", type=int)
    try:
        perform(parser.parse_args())
    except Failure as error:
        print(f"vmlops-api: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
