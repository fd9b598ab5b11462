#!/usr/bin/python
"""Ansible module: make the archive of a release on the control machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: vmlops_release
short_description: Make the archive of a release
description:
  - Puts the application, the compiled model and the wheels of its dependencies for the target's Python into one archive.
  - The id is made from what goes in, so the same inputs give the same id, and an archive that exists is not made again.
options:
  project: {description: Root of the repository., type: path, required: true}
  dest: {description: Directory of the archives., type: path, required: true}
  python_version: {description: The target's Python, such as 3.12., type: str, required: true}
  architecture: {description: The target's machine, as uname -m says it., type: str, required: true}
  key: {description: The operator's SSH key that signs the release; unsigned without., type: path}
author: [vmlops]
"""

RETURN = r"""
id: {description: Twelve hexadecimal digits., type: str, returned: success}
path: {description: The archive., type: path, returned: success}
"""

# A change of how a release is laid out gives every release another id.
LAYOUT = 2


class ReleaseError(Exception):
    """A release cannot be made; the text names the file and the remedy."""


def source_files(project: Path) -> dict[str, Path]:
    """What goes into a release, by its path there."""
    model = project / "model" / "artifacts"
    files = {f"app/{path.relative_to(project / 'app')}": path for path in (project / "app").rglob("*")}
    files |= {f"model/{path.relative_to(model)}": path for path in model.rglob("*")}
    return {name: path for name, path in sorted(files.items()) if path.is_file() and "__pycache__" not in path.parts}


def requirements(project: Path) -> list[Path]:
    """The hashed requirements files that the release's engine needs on the target."""
    manifest = project / "model" / "artifacts" / "manifest.json"
    if not manifest.is_file():
        raise ReleaseError(f"{manifest} is missing: run `make model` first")
    engine = json.loads(manifest.read_text())["engine"]
    names = ["api.txt"] if engine == "compiled" else ["api.txt", f"{engine}.txt"]
    return [project / "requirements" / name for name in names]


def release_id(files: dict[str, Path], target: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps([LAYOUT, target], sort_keys=True).encode())
    for name, path in files.items():
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def install_wheels(project: Path, files: list[Path], site_packages: Path, target: dict[str, str]) -> None:
    # The repository's own way to uv: with the settings that pip has on this computer.
    command = [
        sys.executable,
        "-m",
        "host",
        "wheels",
        str(site_packages),
        target["python_version"],
        target["architecture"],
    ]
    command += map(str, files)
    result = subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        names = ", ".join(path.name for path in files)
        raise ReleaseError(f"the wheels of {names} could not be fetched: {result.stderr.strip()}")


def seal(project: Path, tree: Path, about: dict[str, str], key: Path | None) -> None:
    """Have the tree finished by release/seal.py, which is not part of this module's zip file."""
    command = [sys.executable, "-m", "release", "seal", str(tree), json.dumps(about)]
    command += ["--key", str(key.resolve())] if key else []
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=project)
    if result.returncode != 0:
        raise ReleaseError(result.stderr.strip())


def signer(key: Path) -> str:
    """The public half of a key, as `type data`; another signer makes another release."""
    public = key if key.suffix == ".pub" else key.with_name(key.name + ".pub")
    try:
        return " ".join(public.read_text().split()[:2])
    except OSError as error:
        raise ReleaseError(f"{public} cannot be read ({error.strerror}): it lies beside the key that signs") from None


def write_archive(tree: Path, name: str, archive: Path) -> None:
    """Write ``tree`` as ``name`` into a gzipped tar whose bytes depend on nothing but the tree."""

    def normalise(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    partial = archive.with_suffix(".part")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", 4, raw, mtime=0) as stream,
        tarfile.open(mode="w", fileobj=stream) as tar,
    ):
        for path in [tree, *sorted(tree.rglob("*"))]:
            tar.add(path, arcname=str(Path(name) / path.relative_to(tree)), recursive=False, filter=normalise)
    partial.rename(archive)


def make_release(
    project: Path, dest: Path, target: dict[str, str], check_mode: bool, key: Path | None = None
) -> tuple[bool, str, Path]:
    """Return whether the archive had to be made, the id of the release and the archive's path.

    Raises:
        ReleaseError: the model has not been made, the wheels cannot be fetched, or the key does not sign.
    """
    if key:
        target = {**target, "signer": signer(key)}
    locks = requirements(project)
    files = source_files(project)
    identity = release_id(files | {f"requirements/{path.name}": path for path in locks}, target)
    archive = dest / f"{identity}.tar.gz"
    if archive.exists() or check_mode:
        return not archive.exists(), identity, archive
    dest.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dest) as scratch:
        tree = Path(scratch) / identity
        for name, path in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, tree / name)
        install_wheels(
            project, locks, tree / "venv" / "lib" / f"python{target['python_version']}" / "site-packages", target
        )
        seal(project, tree, {"id": identity, **target}, key)
        write_archive(tree, identity, archive)
    return True, identity, archive


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "python_version": {"type": "str", "required": True},
            "architecture": {"type": "str", "required": True},
            "key": {"type": "path"},
        },
        supports_check_mode=True,
    )
    target = {key: module.params[key] for key in ("python_version", "architecture")}
    try:
        changed, identity, path = make_release(
            Path(module.params["project"]),
            Path(module.params["dest"]),
            target,
            module.check_mode,
            Path(module.params["key"]) if module.params["key"] else None,
        )
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, id=identity, path=str(path))


if __name__ == "__main__":
    main()
