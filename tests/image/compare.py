"""What differs between two builds of the image, beyond what is known to: python -m tests.image.compare ONE OTHER, two .tar.zst"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from fnmatch import fnmatch
from pathlib import Path

from host.image import DIFFERS


def files(archive: Path) -> dict[str, tuple[object, ...]]:
    """Owner, mode, kind and content of each file in an archive, and its time where it has a content."""
    found: dict[str, tuple[object, ...]] = {}
    with (
        subprocess.Popen(["zstd", "-dcq", archive], stdout=subprocess.PIPE) as unpacked,
        tarfile.open(fileobj=unpacked.stdout, mode="r|") as tar,
    ):
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(content.read()).hexdigest() if content else ""
            kept = (member.uid, member.gid, oct(member.mode), member.type, member.linkname, int(member.mtime))
            found[member.name.removeprefix("./")] = (*kept, member.size, digest)
    return found


def main() -> int:
    one, other = (files(Path(name)) for name in sys.argv[1:3])
    different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    known = [name for name in different if any(fnmatch(name, pattern) for pattern in DIFFERS)]
    for name in different:
        if name not in known:
            print(name, one.get(name), other.get(name), sep="\n  ")
    print(f"{len(one)} files, {len(different)} differ, {len(known)} of them are known to")
    return int(len(known) < len(different))


if __name__ == "__main__":
    sys.exit(main())
