"""An endless stream of packed rows of examples; which of them stand in a row follows from its number."""

from collections.abc import Sequence

from base_model.batch import Batch, pack
from base_model.interleave import Example
from base_model.media import count, room
from training.packing import PackedStream


class PackedExamples:
    """Several examples share a row, without seeing each other; every row has room for as many media."""

    def __init__(self, examples: Sequence[Example], length: int, slots: tuple[int, int], *, seed: int):
        """Plans the first epoch.

        Args:
            examples: what stands in the rows.
            length: tokens of a row.
            slots: pictures and sounds of a row.
            seed: of the order.

        Raises:
            BadInput: when there is no example, or one does not fit in a row.
        """
        sizes = [(len(example), *count([example.media])) for example in examples]
        self._stream = PackedStream(sizes, (length, *slots), seed=seed)
        self._examples, self._length = examples, length
        self._room = room([[example.media] for example in examples], slots=slots)
        self.rows_per_epoch = self._stream.rows_per_epoch

    def rows(self, first: int, number: int) -> list[list[int]]:
        """Which examples stand in rows `first` to `first + number - 1`."""
        return self._stream.rows(first, number)

    def batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Rows of these examples."""
        return pack([[self._examples[i] for i in row] for row in rows], self._length, self._room)
