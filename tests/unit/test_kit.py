"""The kit: what goes into it, and that `verify` sees everything that came in later."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from host import kit, packages
from host.commands import Problem
from release import seal
from tests.paths import ROOT


def sum_up(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("SHA256SUMS"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A kit with one wheel."""
    folder = tmp_path / "kit"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels/one.whl").write_text("one")
    for program in ("install", "verify"):
        shutil.copy(ROOT / "kit" / program, folder)
    sum_up(folder)
    return folder


@pytest.fixture
def sign(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """Signs a kit with a new key; returns the file of signers that names it."""

    def sign(namespace: str = kit.NAMESPACE) -> Path:
        key, signers = tmp_path / f"key-{namespace}", tmp_path / f"signers-{namespace}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        (made / "SHA256SUMS.sig").unlink(missing_ok=True)
        seal.sign(made / "SHA256SUMS", key, namespace)
        signers.write_text(f"ops@example.org {key.with_suffix('.pub').read_text()}")
        return signers

    return sign


def verify(made: Path, *signers: Path) -> tuple[int, str]:
    result = subprocess.run([made / "verify", *signers], check=False, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def test_kit_is_verified_with_and_without_signers(made: Path, sign: Callable[..., Path]) -> None:
    assert verify(made) == (
        0,
        "kit: 3 files are as they were made; signed by: nobody that was asked for; ./kit/verify SIGNERS asks\n",
    )
    assert verify(made, sign()) == (0, "kit: 3 files are as they were made; signed by: ops@example.org\n")


def change(made: Path) -> None:
    (made / "wheels/one.whl").write_text("two")


def remove(made: Path) -> None:
    (made / "wheels/one.whl").unlink()


def add(made: Path) -> None:
    (made / "wheels/more.whl").touch()


def link(made: Path) -> None:
    (made / "apt").symlink_to("/tmp")


@pytest.mark.parametrize("damage", [change, remove, add, link])
def test_what_was_changed_removed_or_added_is_found(made: Path, damage: Callable[[Path], None]) -> None:
    damage(made)
    status, said = verify(made)
    assert status == 1, said
    assert "damaged" in said or "does not belong" in said


def test_signature_of_another_or_for_something_else_is_refused(
    made: Path, sign: Callable[..., Path], tmp_path: Path
) -> None:
    signers = tmp_path / "none"
    assert "cannot be read" in verify(made, signers)[1]
    signers = sign("vmlops-release")
    status, said = verify(made, signers)
    assert (status, "is not good" in said) == (1, True), said
    stranger = sign()
    sign("other")  # another key
    assert "nobody whom" in verify(made, stranger)[1]
    (made / "SHA256SUMS.sig").unlink()
    assert "not signed" in verify(made, stranger)[1]


def test_checksums_that_were_made_anew_do_not_pass_for_signed(made: Path, sign: Callable[..., Path]) -> None:
    signers = sign()
    change(made)
    sum_up(made)
    assert verify(made)[0] == 0
    assert verify(made, signers)[0] == 1


def test_install_refuses_a_damaged_kit_before_anything_is_done(made: Path, tmp_path: Path) -> None:
    change(made)
    result = subprocess.run([made / "install", tmp_path / "clone"], check=False, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert not (tmp_path / "clone").exists()


@pytest.mark.parametrize(("distribution", "version"), [of for suites in kit.SUITES.values() for of in suites.values()])
def test_packages_of_every_role_are_found(distribution: str, version: str) -> None:
    found = kit.role_packages(distribution, version)
    assert {"nginx", "prometheus", "keepalived", "certbot", "jq", "unattended-upgrades"} <= set(found)
    assert ("promtool" in found) == (version == "13")
    assert {*packages.DAEMONS} <= set(found), "the checkers of the tests come from the kit, too"


def test_packages_that_are_named_otherwise_are_refused(tmp_path: Path) -> None:
    tasks = tmp_path / "odd/tasks"
    tasks.mkdir(parents=True)
    (tasks / "main.yml").write_text('- ansible.builtin.apt:\n    name: "{{ a + b }}"\n')
    with pytest.raises(Problem, match=r"odd/tasks/main.yml: the packages {{ a \+ b }}"):
        kit.role_packages("Debian", "12", tmp_path)


def test_pins_are_those_of_the_python_that_is_asked_for(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text(
        "old==1 ; python_full_version < '3.12' \\\n    --hash=sha256:aa\n    # via x\n"
        "new==2 ; python_version >= '3.12' \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"
        "other==1 ; sys_platform == 'win32' \\\n    --hash=sha256:dd\n"
    )
    two.write_text("new==2 \\\n    --hash=sha256:bb\nboth==3 \\\n    --hash=sha256:ee\n")
    assert kit.pins([one, two], "3.11").splitlines() == [
        "both==3 --hash=sha256:ee",
        "new==2 --hash=sha256:bb",
        "old==1 --hash=sha256:aa",
    ]
    assert kit.pins([one, two], "3.13").splitlines() == [
        "both==3 --hash=sha256:ee",
        "new==2 --hash=sha256:bb --hash=sha256:cc",
    ]


def test_clone_of_a_kit_takes_everything_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "KIT", tmp_path / ".kit")
    assert packages.sources() == {}
    (tmp_path / ".kit").mkdir()
    for name, value in packages.sources().items():
        monkeypatch.setenv(name, value)
    assert packages.sources()["APT_CONFIG"] == f"{tmp_path}/.kit/apt.conf"
    found = packages.index_environment()
    assert (found["UV_OFFLINE"], found["UV_FIND_LINKS"]) == ("1", f"{tmp_path}/.kit/files/wheels")
