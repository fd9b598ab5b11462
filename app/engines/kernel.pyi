from collections.abc import Sequence

from _typeshed import ReadableBuffer

class Kernel:
    """Raises ValueError where the arrays do not fit together."""

    def __init__(
        self,
        children: ReadableBuffer,
        steps: ReadableBuffer,
        idf: ReadableBuffer,
        weights: ReadableBuffer,
        intercept: ReadableBuffer,
        binary: bool,
        sublinear: bool,
        norm: str | None,
    ) -> None: ...
    def logits(self, numbers: Sequence[Sequence[int]], longest: Sequence[int]) -> list[float]: ...
