"""The last step of a release's build: its bill of materials, the sha256 of every file, and the signature.

release.json names every other file; its signature (release.json.sig) is OpenSSH's, `ssh-keygen -Y sign`, so the operator's
SSH key will do. Ed25519 signatures are deterministic: the same files and key give the same release.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

NAMESPACE = "vmlops-release"  # a signature made for another purpose is not valid for a release
RELEASE, SIGNATURE, MATERIALS = "release.json", "release.json.sig", "sbom.cdx.json"


class SealError(Exception):
    """The release cannot be signed; the text names the key and the remedy."""


def seal(tree: Path, about: Mapping[str, str], key: Path | None = None) -> None:
    """Write the three files above into `tree`, the signature only with a key (private, or public if the agent has it).

    Raises SealError where ssh-keygen cannot sign.
    """
    for site_packages in tree.glob("venv/lib/python*/site-packages"):
        strip(site_packages)
        write(tree / MATERIALS, materials(site_packages, tree, about))
    files = {str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_file()}
    write(tree / RELEASE, {**about, "files": {name: sha256(path) for name, path in sorted(files.items())}})
    if key:
        sign(tree / RELEASE, key)


def strip(site_packages: Path) -> None:
    """Remove what differs between the computers that build: commands, which name their interpreter, and the installer's lock."""
    (site_packages / ".lock").unlink(missing_ok=True)
    for command in (site_packages / "bin").glob("*"):
        command.unlink()
    if (site_packages / "bin").is_dir():
        (site_packages / "bin").rmdir()
    for record in site_packages.glob("*.dist-info/RECORD"):
        kept = [line for line in record.read_text().splitlines() if not line.startswith("bin/")]
        record.write_text("".join(f"{line}\n" for line in kept))


def materials(site_packages: Path, tree: Path, about: Mapping[str, str]) -> dict[str, Any]:
    """A CycloneDX 1.6 document (https://cyclonedx.org/docs/1.6/json/) without a time stamp, which would differ in every build."""
    found = {one.metadata["Name"]: one for one in distributions(path=[str(site_packages)])}
    model = json.loads((tree / "model/manifest.json").read_text())
    components = [library(found[name]) for name in sorted(found, key=str.lower)]
    if "model_version" in model:
        version = str(model["model_version"])
        components.append({"type": "machine-learning-model", "bom-ref": "model", "name": "model", "version": version})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, f"vmlops/{about['id']}").urn,
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "vmlops", "name": "vmlops", "version": about["id"]}
        },
        "components": components,
    }


def library(one: Distribution) -> dict[str, Any]:
    """A component of the document. Licences are as the package words them."""
    name, version = one.metadata["Name"], one.version
    made: dict[str, Any] = {"type": "library", "name": name, "version": version}
    made["bom-ref"] = made["purl"] = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    if "License-Expression" in one.metadata:
        made["licenses"] = [{"expression": one.metadata["License-Expression"]}]
    return made


def sign(path: Path, key: Path, namespace: str = NAMESPACE) -> None:
    """Write `path`.sig, which is good for this namespace only. Raises SealError."""
    path.with_name(path.name + ".sig").unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", namespace, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = " ".join((done.stderr or done.stdout).split())
        raise SealError(f"{key} does not sign: {why}; make a key with `ssh-keygen -t ed25519 -f {key}`")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
