"""The model directory as it lies on disk: `manifest.json` and the files that it vouches for.

Nothing here trusts the directory: every file is hashed before anything in it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.engines import arrays
from app.engines.signature import Signature

FORMAT = 3  # of manifest.json and the arrays; the scorer reads this one and no other
MANIFEST = "manifest.json"
_REQUIRED = {"engine": str, "signature": dict, "model_version": str, "files": dict, "baseline": dict, "metrics": dict}
_REMEDY = "build it again with `make model` and deploy that"


class ArtifactError(Exception):
    """A model directory that must not be served. The message is one line: file, what is wrong, remedy."""

    def __init__(self, file: Path, wrong: str, remedy: str = _REMEDY) -> None:
        super().__init__(f"{file}: {wrong}; {remedy}")


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces: mapping it would count its pages to this process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(directory: Path) -> Mapping[str, Any]:
    """The manifest of a model directory, after the sha256 of every file that it names was found right.

    Raises ArtifactError: no manifest, not JSON, another format, a missing key, a file that is missing or differs.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(path, "is missing") from None
    except OSError as error:
        raise ArtifactError(path, f"cannot be read ({error.strerror})", "let the service's user read it") from None
    except ValueError as error:
        raise ArtifactError(path, f"is not JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(path, f"is not of format {FORMAT}")
    for key, kind in _REQUIRED.items():
        if not isinstance(manifest.get(key), kind):
            raise ArtifactError(path, f"lacks {key!r}, or it is not a {kind.__name__}")
    for name, expected in manifest["files"].items():
        file = directory / name
        if file.parent != directory:
            raise ArtifactError(path, f"names {name!r}, which is outside of its directory")
        try:
            actual = sha256(file)
        except OSError as error:
            raise ArtifactError(file, f"cannot be read ({error.strerror})") from None
        if actual != expected:
            raise ArtifactError(file, f"has sha256 {actual[:12]}…, the manifest says {str(expected)[:12]}…")
    return manifest


def read_signature(directory: Path, manifest: Mapping[str, Any]) -> Signature:
    """Raises ArtifactError where the manifest has none that makes sense."""
    try:
        return Signature.from_json(manifest["signature"])
    except ValueError as error:
        raise ArtifactError(directory / MANIFEST, f"cannot be served ({error})") from None


def read_array(directory: Path, manifest: Mapping[str, Any], name: str) -> arrays.Array:
    """Raises ArtifactError where the manifest does not vouch for the file, or it is no plain array."""
    if name not in manifest["files"]:
        raise ArtifactError(directory / MANIFEST, f"has no sha256 of {name}")
    try:
        return arrays.read(directory / name)
    except ValueError as error:
        raise ArtifactError(directory / name, f"is not a plain array ({error})") from None
