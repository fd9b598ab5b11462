"""The verbs that the Makefile calls. What a person sets for them comes in the environment, so that no shell reads it."""

from __future__ import annotations

import sys


def main(arguments):  # type: ignore[no-untyped-def]  # an old Python reads this file too, and is to say what it is
    """Run a verb and return its exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036
        found = ".".join(map(str, sys.version_info[:3]))
        print(
            f"vmlops: Python 3.11 or newer is needed, this is {found}: install it, put it first in PATH as python3",
            file=sys.stderr,
        )
        return 1
    from host.verbs import run_verb

    return run_verb(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # type: ignore[no-untyped-call]
