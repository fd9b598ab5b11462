"""python -m model.sandbox SCRATCH imports|convert < FILE: open a pickle where it can do no harm.

A pickle runs what is in it. This process first gives up everything that could be of use to it: it has no network (an
empty network namespace, and a filter that refuses sockets), sees no other process, may write nothing but SCRATCH (all
other mounts are read-only), and holds no capability with which it could undo that. Then `imports` lists what the pickle
would import, without importing it, and `convert` opens it and writes the estimator to SCRATCH/model.skops, which is data.
Its answer is one JSON object on standard output.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

SECONDS = 600  # of processor time
NO_NAMESPACES = 3  # exit code where the kernel refuses
ANSWER = "answer.json"

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = (
    0x20000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_CAPABILITY_VERSION_3 = 0x20080522
# By machine, as in linux/audit.h and asm/unistd.h: the architecture, and the calls socket, connect, io_uring_setup, capset.
_MACHINES = {"x86_64": (0xC000003E, 41, 42, 425, 126), "aarch64": (0xC00000B7, 198, 203, 425, 91)}
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # the second: EPERM


def enter(scratch: Path) -> None:
    """Gives up network, other processes, capabilities, and writing outside of `scratch`. Raises OSError where the kernel
    refuses. Returns in a child of the process that called, which waits for it and ends with its exit code."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(result: int) -> None:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    architecture, *refused, capset = _MACHINES[os.uname().machine]
    user, group = os.getuid(), os.getgid()
    call(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWPID))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    folder = str(scratch).encode()
    call(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    call(libc.mount(folder, folder, None, _MS_BIND, None))
    readonly, writable = struct.pack("4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0), struct.pack("4Q", 0, _MOUNT_ATTR_RDONLY, 0, 0)
    call(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, readonly, len(readonly)))
    call(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, folder, 0, writable, len(writable)))
    if child := os.fork():  # the first process of the new process namespace
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    call(libc.syscall(capset, struct.pack("Ii", _CAPABILITY_VERSION_3, 0), struct.pack("6I", *[0] * 6)))
    call(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    program = _filter(architecture, refused)
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    call(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0))


def _filter(architecture: int, refused: list[int]) -> bytes:
    """A program for seccomp(2): end a process of another architecture, refuse the calls named, allow the others."""
    load, equal, greater, answer = 0x20, 0x15, 0x35, 0x06
    steps = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, _KILL), (load, 0, 0, 0)]
    # x86-64 knows every call a second time, with numbers from here on.
    steps += [(greater, 0, 1, 0x40000000), (answer, 0, 0, _REFUSE)]
    for number in refused:
        steps += [(equal, 0, 1, number), (answer, 0, 0, _REFUSE)]
    return b"".join(struct.pack("HBBI", *step) for step in [*steps, (answer, 0, 0, _ALLOW)])


class _Nothing:
    """Stands for everything that a pickle imports, and does nothing however it is used."""

    def __new__(cls, *_: Any, **__: Any) -> _Nothing:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _Nothing:
        return _Nothing()

    __setstate__ = __setitem__ = append = extend = add = update = __call__


def imports(file: BinaryIO) -> list[str]:
    """What a pickle or joblib file would import, `module.name`, in order. Nothing is imported but numpy's arrays."""
    import joblib.numpy_pickle as form
    import numpy as np

    found: dict[str, None] = {}
    real = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}

    class Wrapper(form.NumpyArrayWrapper):  # type: ignore[misc]
        """Of an array that joblib wrote behind the pickle's own bytes; one of objects is a pickle again."""

        def read_array(self, unpickler: Any, ensure_native_byte_order: bool) -> Any:
            if self.dtype.hasobject:
                return Lister("", unpickler.file_handle, ensure_native_byte_order=ensure_native_byte_order).load()
            return super().read_array(unpickler, ensure_native_byte_order)

    class Lister(form.NumpyUnpickler):  # type: ignore[misc]
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
                return Wrapper
            found[f"{module}.{name}"] = None
            return real.get((module, name), _Nothing)

        def persistent_load(self, _: Any) -> Any:
            return _Nothing()

    with form._validate_fileobject_and_memmap(file, "", None) as (opened, _):
        Lister("", opened, ensure_native_byte_order=True).load()
    return list(found)


def convert(file: BinaryIO, scratch: Path) -> None:
    """Open a pickle or joblib file and write the estimator to scratch/model.skops. Raises Unservable, and whatever the
    pickle raises."""
    import joblib
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    from model import opening, signing

    warnings.simplefilter("error", InconsistentVersionWarning)
    try:
        estimator = joblib.load(file)
    except InconsistentVersionWarning as warning:
        saved, here = warning.original_sklearn_version, warning.current_sklearn_version
        raise signing.Unservable(
            f"was saved by scikit-learn {saved}, here is {here}; fit it again with {here}"
        ) from None
    estimator = opening.searched(estimator)
    opening.check(estimator)
    opening.without_pandas(estimator)
    skops.io.dump(estimator, scratch / "model.skops")


def main() -> int:
    scratch, task = Path(sys.argv[1]), sys.argv[2]
    answer = scratch / ANSWER
    try:
        enter(scratch)
    except OSError as error:
        print(error, file=sys.stderr)
        return NO_NAMESPACES
    said: dict[str, Any] = {}
    try:
        if task == "imports":
            said["imports"] = imports(sys.stdin.buffer)
        else:
            convert(sys.stdin.buffer, scratch)
    except Exception as error:  # whatever a pickle may raise
        said["error"] = " ".join(str(error).split()) or type(error).__name__
        said["kind"] = type(error).__name__
    answer.write_text(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
