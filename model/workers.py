"""Where joblib's tasks are done when a model is made: in this process, or with ON=cluster by the environment's workers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on", choices=["cluster"], help="cross-validate on the workers of the environment ENVIRONMENT"
    )


@contextmanager
def joblib_workers(on: str | None) -> Iterator[None]:
    """Ends the program with a line that says why, where the workers cannot be used."""
    if not on:
        yield
        return
    from batch import cluster  # which needs .venv/batch

    try:
        with cluster.joblib_workers():
            yield
    except (cluster.ClusterError, *cluster.LOST) as error:
        sys.exit(f"vmlops: {error or 'the workers were lost: start again'}")
