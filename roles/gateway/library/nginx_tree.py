"""Ansible module: put nginx's configuration in place as a whole, tested as a whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: nginx_tree
short_description: Puts nginx's configuration in place as a whole, tested as a whole
description:
  - Writes the files into a directory beside the live ones, has nginx test them there, and only then exchanges the two.
    A tree that nginx refuses never becomes the live one; the module fails with nginx's own message.
  - Includes must be relative, since nginx resolves them from the directory of the file that it is started with.
  - The directory O(directory) below O(path) belongs to the module. Files in it that are not among O(files) are removed.
options:
  path:
    description: The directory of nginx.conf.
    type: path
    default: /etc/nginx
  directory:
    description: Name of the directory below O(path) that holds every file but nginx.conf.
    type: str
    required: true
  files:
    description: Contents by name relative to O(path). One is C(nginx.conf), the others lie in O(directory).
    type: dict
    required: true
  mains:
    description: The files that nginx is started with, and so tests, relative to O(path).
    type: list
    elements: str
    default: [nginx.conf]
  nginx:
    description: The program that tests the tree.
    type: str
    default: nginx
"""
MAIN = "nginx.conf"


def read(path: Path, directory: str) -> dict[str, str]:
    """The live files by relative name."""
    files = [path / MAIN, *sorted((path / directory).rglob("*"))]
    return {str(file.relative_to(path)): file.read_text() for file in files if file.is_file()}


def write(stage: Path, directory: str, files: dict[str, str]) -> None:
    """The files below stage, readable by everyone: none of them holds a secret."""
    (stage / directory).mkdir()
    for name, content in files.items():
        (stage / name).write_text(content)
        (stage / name).chmod(0o644)
    (stage / directory).chmod(0o755)


def exchange(stage: Path, path: Path, directory: str) -> None:
    """Swap the staged tree and the live one. What fails half-way is undone."""
    old = stage / "old"
    old.mkdir()
    live = path / directory
    if live.exists():
        live.rename(old / directory)
    try:
        (stage / directory).rename(live)
        (stage / MAIN).rename(path / MAIN)
    except OSError:
        shutil.rmtree(live, ignore_errors=True)
        if (old / directory).exists():
            (old / directory).rename(live)
        raise


def render(files: dict[str, str]) -> str:
    """One text of all files, for --diff."""
    return "".join(f"# {name}\n{content}\n" for name, content in sorted(files.items()))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/nginx"},
            "directory": {"type": "str", "required": True},
            "files": {"type": "dict", "required": True},
            "mains": {"type": "list", "elements": "str", "default": [MAIN]},
            "nginx": {"type": "str", "default": "nginx"},
        },
        supports_check_mode=True,
    )
    path, directory = Path(module.params["path"]), module.params["directory"]
    files: dict[str, str] = module.params["files"]
    strays = sorted(name for name in files if name != MAIN and Path(name).parent != Path(directory))
    if strays or MAIN not in files:
        module.fail_json(msg=f"files must be {MAIN} and files in {directory}/, not {', '.join(strays) or 'without it'}")

    if module.check_mode and not path.is_dir():  # nginx is not installed yet
        module.exit_json(changed=True, diff={"before": "", "after": render(files)})
    live = read(path, directory)
    if live == files:
        module.exit_json(changed=False)
    diff = {"before": render(live), "after": render(files)}

    # Beside the live tree, so that the exchange is a rename.
    stage = Path(tempfile.mkdtemp(prefix=".staged-", dir=path))
    try:
        write(stage, directory, files)
        for main in module.params["mains"]:
            command = [module.params["nginx"], "-t", "-q", "-e", "stderr", "-p", str(stage), "-c", str(stage / main)]
            code, _, error = module.run_command(command, cwd=str(stage))
            if code:
                reason = error.replace(f"{stage}/", "").strip()
                module.fail_json(msg=f"nginx refuses the new configuration; the present one stays. {reason}", diff=diff)
        if not module.check_mode:
            exchange(stage, path, directory)
            os.sync()
    except OSError as error:
        module.fail_json(msg=f"the new configuration cannot be put in place; the present one stays: {error}")
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    module.exit_json(changed=True, diff=diff)


if __name__ == "__main__":
    main()
