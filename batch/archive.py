"""python -m batch.archive PYTHON ARCHITECTURE: makes what roles/workers puts on a host, and prints where it is, as JSON.

Two archives, each named by a hash of what goes in, so that none is made or sent twice: the packages, which seldom change,
and the project's own code.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from batch.code import LOCKS, ROOT, files

ARCHIVES = ROOT / "build" / "workers"


def digest_of(paths: Iterable[Path], *words: str) -> str:
    digest = hashlib.sha256(json.dumps(words).encode())
    for path in paths:
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def archived(name: str, members: Iterable[tuple[Path, str]]) -> Path:
    """An archive of files and trees under the names that they have in the folder `name`."""

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    path = ARCHIVES / f"{name}.tar.gz"
    partial = path.with_suffix(".part")
    with tarfile.open(partial, "w:gz", compresslevel=1) as tar:
        for source, place in members:
            tar.add(source, f"{name}/{place}", filter=owned_by_root)
    partial.rename(path)
    return path


def code() -> tuple[str, bool]:
    """Return the name of the archive, and whether it had to be made."""
    name = f"code-{digest_of(files())}"
    made = not (ARCHIVES / f"{name}.tar.gz").exists()
    if made:
        archived(name, ((path, str(path.relative_to(ROOT))) for path in files()))
    return name, made


def packages(python: str, architecture: str) -> tuple[str, bool]:
    """The same for the packages. Raises RuntimeError where they cannot be fetched."""
    locks = [ROOT / f"requirements/{lock}.txt" for lock in LOCKS]
    name = f"venv-{digest_of(locks, python, architecture)}"
    if (ARCHIVES / f"{name}.tar.gz").exists():
        return name, False
    with tempfile.TemporaryDirectory(dir=ARCHIVES) as scratch:
        command = [sys.executable, "-m", "host", "wheels", scratch, python, architecture, *map(str, locks)]
        result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"the workers' packages cannot be fetched: {' '.join(result.stderr.split())}")
        archived(name, [(Path(scratch), f"lib/python{python}/site-packages")])
    return name, True


def main() -> int:
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    try:
        (venv, fetched), (own, made) = packages(*sys.argv[1:]), code()
    except RuntimeError as error:
        print(f"vmlops: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"directory": str(ARCHIVES), "venv": venv, "code": own, "changed": fetched or made}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
