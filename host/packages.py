"""What comes from the distribution, and the virtual environment."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from host.commands import BUILD, ROOT, Problem, as_root, find, first_line, run, succeeds

# Commands or files that a verb needs, and the package that each comes from.
LAB = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "curl": "curl",
    # For model/kernel.py, which does without them, but then predictions take longer.
    "cc": "gcc",
    f"{sysconfig.get_path('include')}/Python.h": "python3-dev",
}
# The daemons that the roles install: their checkers are fetched for the tests, and a box has them from the start.
DAEMONS = (
    "nginx", "libnginx-mod-http-set-misc", "mtail", "prometheus", "prometheus-alertmanager",
    "prometheus-nginx-exporter", "prometheus-node-exporter",
)  # fmt: skip
# The oldest C library among the supported targets is Debian 12's 2.36.
PLATFORM = "{architecture}-manylinux_2_28"
PYTHON = ROOT / ".venv/bin/python"
# Made by kit/install: this clone takes everything from the kit that lies behind it, and asks no network.
KIT = ROOT / ".kit"


def sources() -> dict[str, str]:
    """The variables with which apt and pip (and so uv, see index_environment) take what they install from the kit, if any."""
    if not KIT.exists():
        return {}
    return {"APT_CONFIG": f"{KIT}/apt.conf", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{KIT}/files/wheels"}


def install(wanted: Mapping[str, str]) -> None:
    """Install the packages of those commands or files that are missing, and say which; do nothing where all is there."""
    packages = sorted({package for name, package in wanted.items() if not (Path(name).exists() or find(name))})
    if not packages:
        return
    print("Installing from the distribution:", *packages, flush=True)
    log = BUILD / "apt.log"
    apt = ("DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300")
    for action in (("update",), ("install", "--no-install-recommends", *packages)):
        try:
            run(*as_root("env", *apt, *action), log=log)
        except (OSError, subprocess.CalledProcessError) as error:
            said = first_line(log, "E:", "Err:") if isinstance(error, subprocess.CalledProcessError) else error
            raise Problem(
                f"{' '.join(packages)} cannot be installed, is there a network? apt-get says: {said}"
            ) from None


def fetch_tools() -> None:
    """Put the daemons' own checkers (``nginx -t``, promtool, mtail) into build/tools.

    Their packages are unpacked and not installed, which would start services on this host.
    """
    debs = BUILD / "tools/deb"
    debs.mkdir(parents=True, exist_ok=True)
    log = BUILD / "tools/apt.log"
    names = [*DAEMONS, "nginx-common", "libnginx-mod-http-ndk"]
    # promtool has a package of its own from Debian 13 on.
    if succeeds("apt-cache", "show", "promtool"):
        names.append("promtool")
    with log.open("w") as stream:
        command = ["apt-get", "-q", "download", *names]
        if subprocess.run(command, cwd=debs, check=False, stdout=stream, stderr=subprocess.STDOUT).returncode:
            raise Problem(f"the daemons' checkers cannot be fetched; apt-get says: {first_line(log, 'E:')}")
    for package in debs.glob("*.deb"):
        run("dpkg-deb", "-x", package, BUILD / "tools")


def make_venv(requirements: Iterable[str]) -> None:
    """Make .venv, or bring it up to date, from hashed requirements files."""
    if not succeeds(PYTHON, "-m", "uv", "--version"):
        # An interpreter that is gone (an upgraded distribution, a moved clone) leaves a .venv that cannot be mended.
        shutil.rmtree(ROOT / ".venv", ignore_errors=True)
        if not succeeds("python3", "-c", "import ensurepip"):
            install({"ensurepip": "python3-venv"})
        run("python3", "-m", "venv", ROOT / ".venv")
        install_wheels("pip", "install", "--require-hashes", "-r", "requirements/bootstrap.txt")
    files = [word for name in requirements for word in ("-r", name)]
    install_wheels("uv", "pip", "install", "--require-hashes", *files)


def install_wheels(tool: str, *arguments: str) -> None:
    log = BUILD / f"{tool}.log"
    environment = index_environment() if tool == "uv" else {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        run(PYTHON, "-m", tool, *arguments, log=log, environment=environment)
    except subprocess.CalledProcessError:
        said = first_line(log, "ERROR", "error", "\u00d7")
        raise Problem(f"the Python packages cannot be installed, is there a network? {tool} says: {said}") from None


def index_environment(python: str | Path = PYTHON) -> dict[str, str]:
    """Return the variables with which uv takes wheels from where pip takes them: uv reads neither pip.conf nor ``PIP_*``.

    A variable of uv's own that is set already stays as it is.
    """
    listing = subprocess.run(
        [python, "-m", "pip", "config", "list"], check=False, capture_output=True, text=True
    ).stdout
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # the later ones win, as they do for pip
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                settings[name.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "no-index": "UV_OFFLINE",
        "trusted-host": "UV_INSECURE_HOST",
        "cert": "SSL_CERT_FILE",
        "proxy": "ALL_PROXY",
    }
    found = {names[name]: value for name, value in settings.items() if name in names}
    # pip takes the best version of all indexes; what comes is checked against its hash either way.
    return {
        name: value
        for name, value in {"UV_INDEX_STRATEGY": "unsafe-best-match", **found}.items()
        if name not in os.environ
    }


def fetch_wheels(directory: str, version: str, architecture: str, *locks: str) -> int:
    """Unpack the wheels of hashed requirements files for another machine's Python, and return uv's exit status.

    Args:
        directory: the site-packages to put them into.
        version: the Python, such as 3.12.
        architecture: as uname -m says it.
        locks: paths of the files.
    """
    words = [
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--link-mode",
        "copy",
    ]
    words += ["--python", sys.executable, "--python-version", version, "--target", directory]
    words += ["--python-platform", PLATFORM.format(architecture=architecture)]
    return uv([*words, *(word for lock in locks for word in ("--requirements", lock))])


def uv(arguments: list[str]) -> int:
    """Run the uv of this Python with pip's settings, and return its exit status."""
    environment = {**os.environ, **index_environment(sys.executable)}
    return subprocess.run([sys.executable, "-m", "uv", *arguments], check=False, env=environment).returncode
