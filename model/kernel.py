"""`python -m model.kernel`: translate app/engines/kernel.pyx to C and compile it, so that releases carry it.

It uses nothing of CPython but the stable ABI, so that one file serves every Python from 3.11 on. Where it cannot be made, or not
be loaded on a target (another processor, an older C library), the scorer does the same arithmetic in Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "app/engines/kernel.pyx"
KERNEL = ROOT / "app" / "engines" / "kernel.abi3.so"
ABI = "0x030B0000"  # CPython 3.11


def compile_kernel(to: Path) -> None:
    """Raises FileNotFoundError where there is no C compiler, CalledProcessError where it fails, with what it said in `stderr`."""
    with tempfile.TemporaryDirectory() as scratch:
        # All names are relative: where the repository lies must not be in the file, or each clone's would be another one.
        run(ROOT, sys.executable, "-m", "cython", SOURCE, "--output-file", str(Path(scratch, "kernel.c")))
        mac = sys.platform == "darwin"
        run(
            Path(scratch),
            *("cc", "-O2", "-shared", "-fPIC", f"-DPy_LIMITED_API={ABI}", "-DCYTHON_LIMITED_API=1"),
            *(("-undefined", "dynamic_lookup") if mac else ("-s", "-Wl,--build-id=none")),
            *("-I", sysconfig.get_path("include"), "kernel.c", "-o", "kernel.so", "-lm"),
        )
        # Beside its place first: a process that has the old one mapped keeps it.
        part = to.with_suffix(".part")
        shutil.copyfile(Path(scratch, "kernel.so"), part)
        part.replace(to)


def run(directory: Path, *command: str) -> None:
    environ = {**os.environ, "LC_ALL": "C"}
    subprocess.run(command, check=True, cwd=directory, env=environ, capture_output=True, text=True)


def main() -> None:
    try:
        compile_kernel(KERNEL)
    except FileNotFoundError:
        note("there is no C compiler (cc)")
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line.lower()]
        note(lines[0].strip() if lines else f"{error.cmd[0]} failed")


def note(why: str) -> None:
    KERNEL.unlink(missing_ok=True)
    print(
        f"vmlops: the scorer stays in Python, which takes four times as long for a text: {why}. "
        "On Debian and Ubuntu `apt install gcc python3-dev` brings what is missing.",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
