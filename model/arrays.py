"""The arrays of a compiled model, as app.engines maps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.linear import NotCompilable

Arrays = dict[str, NDArray[Any]]


def save(directory: Path, compile_model: Callable[[], tuple[dict[str, Any], Arrays]]) -> dict[str, Any]:
    """Write the arrays that `compile_model` returns into `directory`, each as NAME.npy, and return its manifest's entry `scorer`.

    Raises NotCompilable, whatever it is that the arrays cannot express, before anything is written.
    """
    try:
        scorer, arrays = compile_model()
    except NotCompilable:
        raise
    except Exception as error:  # an estimator whose attributes are not the usual ones of its class
        raise NotCompilable(f"what raises {type(error).__name__}: {' '.join(str(error).split())}") from None
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
    return scorer
