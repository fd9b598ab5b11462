"""The kit: one file with everything that an installation takes from a network, for a site that has none.

kit/install makes a clone out of it, whose folder .kit then leads apt, pip and the role base to what the kit holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from packaging.markers import Marker, default_environment

from app import __version__
from host import packages
from host.commands import BUILD, ROOT, Problem, as_root, ask_become_pass, first_line, os_release, output, run
from release.seal import SealError, sha256, sign

# The supported releases of each distribution, with the words by which the roles' vars know them.
SUITES = {
    "debian": {"bookworm": ("Debian", "12"), "trixie": ("Debian", "13")},
    "ubuntu": {"noble": ("Ubuntu", "24.04")},
}
COMPONENTS = {"debian": "main", "ubuntu": "main,universe"}
# Of Debian 12, Ubuntu 24.04 and Debian 13.
PYTHONS = ("3.11", "3.12", "3.13")
# What a control machine and `make test` need, and what releases of any engine have on a target.
LOCKS = ("bootstrap", "control", "train", "api", "import", "batch", "test", "sklearn", "onnx")
# Up to the C library that releases are made for (roles/api/library/vmlops_release.py).
PLATFORMS = ("linux", "manylinux1", "manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 29)))
# Of the control machine, besides what a lab machine needs of its host; git and the others serve `make` and its tests.
CONTROL = ("ca-certificates", "git", "make", "procps", "python3", "python3-venv", "sudo", "util-linux", "zstd")
NAMESPACE = "vmlops-kit"  # of the signature


def build() -> None:
    """Write build/vmlops-kit-VERSION-COMMIT-DISTRIBUTION-ARCHITECTURE.tar."""
    distribution = os_release().get("ID", "")
    if distribution not in SUITES:
        raise Problem(
            f"a kit is made on {' or '.join(map(str.title, SUITES))}, with the archive keys of that distribution"
        )
    key = signing_key(os.environ.get("KEY", ""))
    commit = committed()
    architecture = output("dpkg", "--print-architecture").strip()
    packages.install({"apt-ftparchive": "apt-utils", "mmdebstrap": "mmdebstrap", "zstd": "zstd"})
    archive = BUILD / f"vmlops-kit-{__version__}-{commit}-{distribution}-{architecture}.tar"
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        kit = Path(scratch) / "kit"
        for folder in ("apt", "base", "wheels"):
            (kit / folder).mkdir(parents=True)
        for program in ("install", "verify"):
            shutil.copy(ROOT / "kit" / program, kit)
        run("git", "bundle", "create", "--quiet", kit / "vmlops.bundle", "HEAD")
        fetch_wheels(kit / "wheels")
        (kit / "apt/control").write_text("".join(f"{name}\n" for name in control_packages()))
        for suite in SUITES[distribution]:
            print(f"Packages and base tree of {suite}…", flush=True)
            make_repository(kit / "apt", distribution, suite)
            make_base(kit / "base", suite)
        files = sorted(path for path in kit.rglob("*") if path.is_file())
        lines = [f"{sha256(path)}  ./{path.relative_to(kit)}\n" for path in files]
        (kit / "SHA256SUMS").write_text("".join(lines))
        if key:
            try:
                sign(kit / "SHA256SUMS", key, NAMESPACE)
            except SealError as error:
                raise Problem(str(error)) from None
        pack({"kit": kit}, archive)
    signed = "" if key else "; not signed: KEY=your SSH key signs it"
    print(f"{archive.relative_to(ROOT)}: {archive.stat().st_size // 1_000_000} MB, {len(files)} files{signed}")


def signing_key(path: str) -> Path | None:
    if not path:
        return None
    key = Path(path).expanduser().resolve()
    if not key.is_file():
        raise Problem(f"KEY={path}: there is no such file")
    return key


def committed() -> str:
    """The commit that the kit is made of; raises Problem where there are changes that it lacks."""
    try:
        changed = output("git", "status", "--porcelain")
        commit = output("git", "rev-parse", "--short=8", "HEAD").strip()
    except (OSError, subprocess.CalledProcessError):
        raise Problem("a kit is made from a git clone, which this folder is not: clone the repository") from None
    if changed:
        raise Problem(f"a kit holds what is committed, and this is not: {changed.splitlines()[0][3:]} (see git status)")
    return commit


def control_packages() -> list[str]:
    return sorted({*CONTROL, *packages.LAB.values()})


# --- distribution packages ---


def role_packages(distribution: str, version: str, roles: Path = ROOT / "roles") -> list[str]:
    """The packages that the roles install on this release of a distribution.

    Raises Problem for a task that names its packages in a way that is not understood here.
    """
    found: set[str] = set()
    for role in sorted(path for path in roles.iterdir() if path.is_dir()):
        files = ("defaults/main.yml", "vars/main.yml", f"vars/{distribution}.yml", f"vars/{distribution}-{version}.yml")
        variables: dict[str, Any] = {}
        for path in (role / name for name in files):
            variables |= (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}
        for path in sorted(role.glob("tasks/*.yml")):
            for task in apt_tasks(yaml.safe_load(path.read_text()) or []):
                found |= set(names(task, variables, path))
    return sorted(found)


def apt_tasks(tasks: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for task in tasks:
        if "ansible.builtin.apt" in task:
            yield task["ansible.builtin.apt"]
        for section in ("block", "rescue", "always"):
            yield from apt_tasks(task.get(section, []))


def names(task: Mapping[str, Any], variables: Mapping[str, Any], path: Path) -> list[str]:
    if "deb" in task:  # somebody else's, which a site gives as a file
        return []
    value = task.get("name", [])
    if isinstance(value, str) and (variable := re.fullmatch(r"{{ (\w+) }}", value)):
        value = variables.get(variable[1])
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or any("{" in name for name in value):
        raise Problem(
            f"{path}: the packages {task.get('name')} are neither a list nor a variable of the role that is one"
        )
    return value


def make_repository(place: Path, distribution: str, suite: str) -> None:
    """Write SUITE-ID.tar: a flat apt repository of what the roles install and a control machine needs.

    It is resolved against nothing, so that it serves a machine of any packages, and is complete where one has older ones.
    """
    wanted = sorted({*role_packages(*SUITES[distribution][suite]), *control_packages()})
    log = BUILD / "kit.log"
    with tempfile.TemporaryDirectory(dir=place.parent.parent) as scratch:
        options = ["--quiet", "--variant=extract", "--format=null", "--skip=cleanup/apt"]
        options += [f"--components={COMPONENTS[distribution]}", "--include=?essential", f"--include={','.join(wanted)}"]
        options += [f"--extract-hook=sync-out /var/cache/apt/archives {scratch}"]
        try:
            run(*as_root("mmdebstrap", *options, suite), log=log)
        except subprocess.CalledProcessError:
            raise Problem(f"the packages of {suite} cannot be fetched: {first_line(log, 'E:')}") from None
        index = output("env", "-C", scratch, "apt-ftparchive", "packages", ".")
        (Path(scratch) / "Packages").write_text(index)
        name = f"{suite}-{hashlib.sha256(index.encode()).hexdigest()[:8]}"
        (Path(scratch) / "Release").write_text(output("env", "-C", scratch, "apt-ftparchive", "release", "."))
        debs = sorted(path for path in Path(scratch).iterdir() if path.suffix == ".deb")
        # The role base takes Release for the sign that all is there.
        files = [*debs, Path(scratch) / "Packages", Path(scratch) / "Release"]
        pack({f"{name}/{path.name}": path for path in files}, place / f"{name}.tar")


def make_base(place: Path, suite: str) -> None:
    """Have the role lab_machine make its base tree anew, and compress it."""
    log = BUILD / "kit.log"
    with tempfile.TemporaryDirectory(dir=place.parent.parent) as scratch:
        variables = {"lab_machine_state": "prepared", "lab_machine_suite": suite, "lab_machine_cache_dir": scratch}
        command = ("ansible-playbook", "-i", "inventory/lab", "playbooks/lab.yml", *ask_become_pass())
        try:
            run(*command, "-e", json.dumps(variables), log=log)
        except subprocess.CalledProcessError:
            raise Problem(f"the base tree of {suite} cannot be made: {first_line(log, 'E:', 'fatal:')}") from None
        (tree,) = Path(scratch).glob("*.tar")
        with (place / f"{tree.name}.zst").open("wb") as compressed:
            subprocess.run(as_root("zstd", "-T0", "-9", "--stdout", "--quiet", tree), check=True, stdout=compressed)


# --- wheels ---


def fetch_wheels(place: Path) -> None:
    """Fetch the wheels of every lock for every Python; each is checked against its hash."""
    machine = output("uname", "-m").strip()
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{machine}")]
    for python in PYTHONS:
        print(f"Wheels for Python {python}…", flush=True)
        pinned = BUILD / f"kit-{python}.txt"
        pinned.write_text(pins([ROOT / f"requirements/{name}.txt" for name in LOCKS], python))
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", python]
        packages.install_wheels("pip", "download", *options, *platforms, "-r", str(pinned), "-d", str(place))


def pins(locks: Iterable[Path], python: str) -> str:
    """The pins of several locks that hold for a Python on Linux, without their markers: pip would ask its own Python."""
    environment = cast(dict[str, str], default_environment())
    environment |= {"python_version": python, "python_full_version": f"{python}.0"}
    hashes: dict[str, set[str]] = {}
    for lock in locks:
        for line in lock.read_text().replace("\\\n", "").splitlines():
            words, *digests = re.split(r"\s+--hash=", line.strip())
            pin, _, marker = (word.strip() for word in words.partition(";"))
            if digests and (not marker or Marker(marker).evaluate(environment)):
                hashes.setdefault(pin, set()).update(digests)
    return "".join(f"{pin} {' '.join(f'--hash={one}' for one in sorted(of))}\n" for pin, of in sorted(hashes.items()))


# --- the file ---


def pack(files: Mapping[str, Path], archive: Path) -> None:
    """Write a tar file of files and folders by their names in it, in that order; not compressed, since what is in them is."""
    partial = archive.with_suffix(".part")

    def anybodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with tarfile.open(partial, "w") as tar:
        for name, path in files.items():
            tar.add(path, arcname=name, filter=anybodys)
    partial.rename(archive)
