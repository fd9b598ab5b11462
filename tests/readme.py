"""The commands of README.md, as the tests run them."""

from __future__ import annotations

import re

from tests.paths import ROOT


def shell_blocks() -> list[str]:
    """Return the text of every ``sh`` block, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """Return the lines of the blocks that call ``program``, without their comments."""
    lines = [line.partition("   #")[0].strip() for block in shell_blocks() for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]
