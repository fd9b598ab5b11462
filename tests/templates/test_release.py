"""The archive of a release: the same inputs give the same id, everything that matters gives another."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from release.seal import seal
from roles.api.library import vmlops_release as release
from tests.paths import ROOT
from tests.templates.render import evaluate, render

TARGET = {"python_version": "3.11", "architecture": "x86_64"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the least that a release is made from; its requirements name no package."""
    files = {
        "app/main.py": "app = 1\n",
        "app/__pycache__/main.pyc": "never shipped",
        "model/artifacts/manifest.json": json.dumps({"engine": "compiled"}),
        "model/artifacts/weights.npy": "weights",
        "requirements/api.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for package in ("host", "release"):
        (tmp_path / package).symlink_to(ROOT / package)
    return tmp_path


def files(archive: tarfile.TarFile) -> list[str]:
    return [member.name for member in archive if member.isfile()]


def make(project: Path, **target: str) -> tuple[bool, str, Path]:
    result: tuple[bool, str, Path] = release.make_release(project, project / "out", {**TARGET, **target}, False)
    return result


def test_archive_holds_application_model_and_identity(project: Path) -> None:
    changed, identity, path = make(project)
    assert changed
    with tarfile.open(path) as archive:
        names = [name for name in archive.getnames() if not name.startswith(f"{identity}/venv")]
        stored = archive.extractfile(f"{identity}/release.json")
        assert stored is not None
        about = json.load(stored)
        assert {key: about[key] for key in ("id", *TARGET)} == {"id": identity, **TARGET}
        assert set(about["files"]) == {name.partition("/")[2] for name in files(archive)} - {"release.json"}
    assert f"{identity}/app/main.py" in names
    assert f"{identity}/model/weights.npy" in names
    assert not [name for name in names if "__pycache__" in name]


def test_same_inputs_are_not_made_again_and_give_the_same_bytes(project: Path) -> None:
    _, identity, path = make(project)
    first = path.read_bytes()
    assert make(project) == (False, identity, path)
    path.unlink()
    assert make(project) == (True, identity, path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", ["app/main.py", "model/artifacts/weights.npy", "requirements/api.txt"])
def test_every_input_changes_the_id(project: Path, name: str) -> None:
    _, identity, _ = make(project)
    (project / name).write_text((project / name).read_text() + "# more\n")
    assert make(project)[1] != identity


def test_another_python_or_architecture_is_another_release(project: Path) -> None:
    identities = {make(project)[1], make(project, python_version="3.12")[1]}
    identities.add(make(project, architecture="aarch64")[1])
    assert len(identities) == 3


def test_missing_model_names_the_command_that_makes_it(project: Path) -> None:
    (project / "model/artifacts/manifest.json").unlink()
    with pytest.raises(release.ReleaseError, match="run `make model` first"):
        make(project)


def test_unavailable_wheel_leaves_no_archive(project: Path) -> None:
    (project / "requirements/api.txt").write_text("vmlops-there-is-no-such-wheel==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(release.ReleaseError, match="could not be fetched"):
        make(project)
    assert list((project / "out").iterdir()) == []


def test_two_builds_in_two_places_at_two_times_are_the_same_bytes(tmp_path: Path) -> None:
    """The real application and its wheels; the folder, the umask, the times and the order of files differ."""
    archives = []
    for place, umask, moment in (("one", 0o022, 1_000_000_000), ("a longer/path", 0o077, 1_900_000_000)):
        before = os.umask(umask)
        try:
            project = tmp_path / place
            names = [path.relative_to(ROOT) for path in (ROOT / "app").rglob("*.py")] + [Path("requirements/api.txt")]
            for name in sorted(names, reverse=umask == 0o077):
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, project / name)
            (project / "model/artifacts").mkdir(parents=True)
            manifest = {"engine": "compiled", "model_version": "0123"}
            (project / "model/artifacts/manifest.json").write_text(json.dumps(manifest))
            for package in ("host", "release"):
                (project / package).symlink_to(ROOT / package)
            for path in (project / "app").rglob("*"):
                os.utime(path, (moment, moment))
            archives.append(release.make_release(project, project / "out", TARGET, False)[2])
        finally:
            os.umask(before)
    with tarfile.open(archives[0]) as one, tarfile.open(archives[1]) as other:
        names_of = [member.name for member in one], [member.name for member in other]
        assert any("gunicorn/" in name for name in names_of[0])
        assert names_of[0] == names_of[1]
        for stored in files(one):
            first, second = one.extractfile(stored), other.extractfile(stored)
            assert first
            assert second
            assert first.read() == second.read(), stored
    assert archives[0].read_bytes() == archives[1].read_bytes()


# --- signed, and verified by vmlops-api anywhere ---


@pytest.fixture
def key(tmp_path: Path) -> Path:
    key = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "release test", "-f", str(key)]
    subprocess.run(command, check=True)
    return key


@pytest.fixture
def signers(key: Path) -> Path:
    file = key.with_name("signers")
    file.write_text(f"ann@example.org {key.with_suffix('.pub').read_text()}")
    return file


def vmlops_api(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "roles/api/files/vmlops_api.py", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    return done


def rebuilt(path: Path, change: Callable[[Path], None]) -> Path:
    """The archive with something changed in it."""
    tree = path.with_name("changed")
    tree.mkdir()
    # Debian 12's Python has no filters for it.
    subprocess.run(["tar", "-xf", path, "-C", tree], check=True)
    (inner,) = tree.iterdir()
    change(inner)
    other = path.with_name("changed.tar.gz")
    release.write_archive(inner, inner.name, other)
    return other


def test_a_signed_release_says_who_signed_it_and_is_the_same_every_time(
    project: Path, key: Path, signers: Path
) -> None:
    _, identity, path = release.make_release(project, project / "out", TARGET, False, key)
    done = vmlops_api("verify", path, "--signers", signers)
    assert done.returncode == 0
    assert done.stdout.startswith(f"release {identity} for Python 3.11 on x86_64: ")
    assert done.stdout.endswith("files as they were, signed by ann@example.org\n")
    first = path.read_bytes()
    path.unlink()
    release.make_release(project, project / "out", TARGET, False, key)
    assert path.read_bytes() == first
    unsigned = make(project)[1]
    assert unsigned != identity
    # Without a list of signers, the key is named.
    assert "signed by ED25519 key SHA256:" in vmlops_api("verify", path, "--signers", "/nonexistent").stdout


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tree: (tree / "app/main.py").write_text("evil = 1"), "app/main.py: not as it was"),
        (lambda tree: (tree / "app/more.py").write_text(""), "app/more.py: not named in release.json"),
        (lambda tree: (tree / "model/weights.npy").unlink(), "model/weights.npy: missing"),
        (lambda tree: (tree / "app/link.py").symlink_to("main.py"), "neither a file nor a directory"),
        (lambda tree: (tree / "release.json").unlink(), "no release.json"),
        (lambda tree: (tree / "release.json.sig").unlink(), "is not signed"),
        (
            lambda tree: (tree / "release.json").write_text((tree / "release.json").read_text() + " "),
            "signature is not",
        ),
    ],
    ids=["changed", "added", "removed", "link", "no list", "unsigned", "list changed"],
)
def test_whatever_was_altered_is_found(
    change: Callable[[Path], None], why: str, project: Path, key: Path, signers: Path
) -> None:
    path = release.make_release(project, project / "out", TARGET, False, key)[2]
    done = vmlops_api("verify", rebuilt(path, change), "--signers", signers)
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_another_key_and_a_torn_file_are_refused(project: Path, key: Path, signers: Path) -> None:
    path = release.make_release(project, project / "out", TARGET, False, key)[2]
    signers.write_text(signers.read_text().replace("AAAAC3NzaC1lZDI1NTE5AAAAI", "AAAAC3NzaC1lZDI1NTE5AAAAII", 1)[:-1])
    assert vmlops_api("verify", path, "--signers", signers).returncode == 1
    torn = path.with_name("torn.tar.gz")
    torn.write_bytes(path.read_bytes()[:-100])
    assert "torn.tar.gz cannot be read" in vmlops_api("verify", torn, "--signers", "/nonexistent").stderr


def test_a_key_that_does_not_sign_leaves_no_archive(project: Path, tmp_path: Path) -> None:
    with pytest.raises(release.ReleaseError, match=r"nothing\.pub cannot be read"):
        release.make_release(project, project / "out", TARGET, False, tmp_path / "nothing")
    (tmp_path / "broken").write_text("no key")
    (tmp_path / "broken.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(release.ReleaseError, match="does not sign"):
        release.make_release(project, project / "out", TARGET, False, tmp_path / "broken")
    assert list((project / "out").iterdir()) == []


def test_nothing_tells_where_a_release_was_made(tmp_path: Path) -> None:
    """Commands name the interpreter of the computer that installed them; nobody on the target calls them."""
    site_packages = tmp_path / "venv/lib/python3.11/site-packages"
    (site_packages / "bin").mkdir(parents=True)
    (site_packages / "bin/gunicorn").write_text(f"#!{sys.executable}")
    (site_packages / ".lock").touch()
    info = site_packages / "some_thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: some_thing\nVersion: 1.0\nLicense-Expression: MIT\n")
    (info / "RECORD").write_text("bin/gunicorn,sha256=x,1\nsome_thing.py,sha256=y,1\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/manifest.json").write_text(json.dumps({"model_version": "0123"}))
    seal(tmp_path, {"id": "abc", **TARGET})
    names = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(names) == ["METADATA", "RECORD", "manifest.json", "release.json", "sbom.cdx.json"]
    assert (info / "RECORD").read_text() == "some_thing.py,sha256=y,1\n"
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert [(part["type"], part["name"], part["version"]) for part in bill["components"]] == [
        ("library", "some_thing", "1.0"),
        ("machine-learning-model", "model", "0123"),
    ]
    assert bill["components"][0]["purl"] == "pkg:pypi/some-thing@1.0"
    assert bill["components"][0]["licenses"] == [{"expression": "MIT"}]


# --- what the role makes of it ---


def test_a_given_release_is_named_by_what_verify_says() -> None:
    said = {"stdout": "release 0123456789ab for Python 3.11 on x86_64: 748 files as they were, signed by nobody"}
    found = evaluate("_api_release", "api", api_release_file="/some/file.tar.gz", __api_verified=said)
    assert found == {"id": "0123456789ab", "path": "/some/file.tar.gz"}


@pytest.mark.parametrize(
    ("address", "url"), [("127.0.0.1", "http://127.0.0.1:9090"), ("fd00::1", "http://[fd00::1]:9090")]
)
def test_prometheus_is_asked_at_its_address(address: str, url: str) -> None:
    assert evaluate("_api_prometheus", "api", vmlops_address=address) == url


@pytest.mark.parametrize("wanted", [["v1", "v2"], ["v2", "v1"]])
def test_the_debug_version_is_rolled_out_first(wanted: list[str]) -> None:
    """The goal, too, has them in this order: the rollout is a loop over it."""
    assert evaluate("_api_rolled_versions", "api", api_deploy_versions=wanted) == ["v2", "v1"]
    back: Any = {"_api_fleet": {v: {"release": "new"} for v in wanted}, "_api_told": dict.fromkeys(wanted, "bad")}
    assert evaluate("_api_changed", "api", _api_failures=[], api_deploy_versions=wanted, **back) == ["v2", "v1"]


FLEET = {"v1": {"release": "old", "previous": "older"}, "v2": {"release": "new", "previous": ""}}


@pytest.mark.parametrize(
    ("told", "fleet", "failures", "changed"),
    [
        ({"v1": "new", "v2": "new"}, FLEET, [], ["v1"]),
        ({"v1": "new"}, FLEET, [], ["v1"]),
        ({"v1": "old", "v2": "new"}, FLEET, [], []),
        ({"v1": "new"}, FLEET, ["host failed"], []),
        ({"v1": "new"}, {**FLEET, "v1": {"release": "", "previous": ""}}, [], []),
    ],
    ids=["one of two", "one was told", "nothing new", "it went back already", "the first release"],
)
def test_what_bakes_is_what_runs_another_release_and_can_go_back(
    told: dict[str, str], fleet: Any, failures: list[str], changed: list[str]
) -> None:
    given: Any = {"_api_told": told, "_api_fleet": fleet, "_api_failures": failures}
    assert evaluate("_api_changed", "api", **given) == changed


def test_decisions_are_what_prometheus_can_read() -> None:
    decision = {"decision": "forced promotion", "version": "v1", "release": "abc", "reason": 'wait: "5" \\ more'}
    text = render("api", "decision.prom.j2", _api_decision=decision)
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert sample.labels == {**decision, "reason": "wait: '5' / more"}
    assert sample.value > 1_700_000_000


def test_objective_and_verdict_have_one_limit_for_what_is_slow() -> None:
    for limit in (0.25, 2):
        command = evaluate("_api_verdict_command", "api", vmlops_promised_seconds=limit)
        assert command[command.index("--promised") + 1] == str(limit)
        counted = render("mtail", "etc/mtail/edge.mtail.j2", vmlops_promised_seconds=limit)
        assert set(re.findall(r"\$(?:seconds|took) [<>]=? (\S+) ", counted)) == {str(limit)}
    bake = yaml.safe_load((ROOT / "roles/api/tasks/bake.yml").read_text())
    (watch,) = [task for task in bake[0]["block"] if "async" in task]
    made = {"_api_rolled": "0", "_api_changed": ["v2"], "vmlops_promised_seconds": 2}
    argv = watch["ansible.builtin.command"]["argv"].removeprefix("{{").removesuffix("}}")
    assert evaluate(argv, "api", **made)[-3:] == ["--promised", "2", "v2"]
