"""The commands of README.md and README.fr.md, as the tests run them."""

from __future__ import annotations

import re

from tests.paths import ROOT

READMES = ("README.md", "README.fr.md")


def command_lines(readme: str) -> list[str]:
    """Return the lines of every ``sh`` block, in order, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / readme).read_text(), re.MULTILINE | re.DOTALL)
    return [line.partition("   #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def commands(program: str) -> list[str]:
    """Return the lines that call ``program``, of all READMEs, each once."""
    lines = dict.fromkeys(line for readme in READMES for line in command_lines(readme))
    return [line for line in lines if line.startswith(f"{program} ")]
