"""Which examples share a row: first fit, so that few slots are padding and no example is cut."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from training.dataset import epoch_order
from training.errors import BadInput

# What a row has only so much of, in the order in which sizes are given.
SIZES = ("tokens", "pictures", "sounds")
# Of one item or row: its tokens, or as many numbers as SIZES has names.
Size = int | Sequence[int]


def first_fit(sizes: Sequence[Size] | np.ndarray, capacity: Size) -> list[list[int]]:
    """Assigns items to rows of `capacity`, each to the first open row that has room.

    Only the last 64 rows are tried, which keeps the work linear and costs under one percent of the slots.

    Args:
        sizes: of each item, in the order in which they are to be seen: its tokens, or [items, up to 3] as in SIZES.
        capacity: of a row, likewise.

    Returns:
        Rows of item indices; every index stands in exactly one row.

    Raises:
        BadInput: when an item does not fit in an empty row.
    """
    items, whole = _columns(sizes), np.atleast_1d(capacity)
    for index, column in np.argwhere(items > whole)[:1]:
        raise BadInput(
            f"example {index} has {items[index, column]} {SIZES[column]} and cannot be packed into rows of "
            f"{whole[column]}"
        )
    rows: list[list[int]] = []
    room = np.tile(whole, (len(items), 1))
    for index, size in enumerate(items):
        first = max(0, len(rows) - 64)
        # One row more than there are: the new one, which has room for anything.
        row = first + int((room[first : len(rows) + 1] >= size).all(1).argmax())
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        room[row] -= size
    return rows


def _columns(sizes: Sequence[Size] | np.ndarray) -> np.ndarray:
    items = np.asarray(sizes)
    return items[:, None] if items.ndim == 1 else items


class PackedStream:
    """An endless stream of packed rows: every epoch a fresh order, packed anew, a pure function of the row's number."""

    def __init__(self, sizes: Sequence[Size] | np.ndarray, capacity: Size, *, seed: int):
        """Takes the sizes of each example and of a row, see first_fit.

        Raises:
            BadInput: when there is no example, or one does not fit in a row.
        """
        self._sizes = _columns(sizes)
        if not len(self._sizes):
            raise BadInput("there is no example to pack")
        # An example that fits no row is refused here: a plan knows it by its place in a shuffled order alone.
        first_fit(self._sizes, capacity)
        self._capacity, self._seed = capacity, seed
        self._starts = [0]  # number of the first row of each epoch planned so far
        self._plans: dict[int, list[list[int]]] = {}
        self.rows_per_epoch = len(self._plan(0))

    def _plan(self, epoch: int) -> list[list[int]]:
        if epoch not in self._plans:
            order = epoch_order(len(self._sizes), seed=self._seed, epoch=epoch)
            rows = first_fit(self._sizes[order], self._capacity)
            # A batch reaches into two epochs at most as long as it is smaller than one: only the last two are kept.
            self._plans = {number: plan for number, plan in self._plans.items() if number == epoch - 1}
            self._plans[epoch] = [[int(order[i]) for i in row] for row in rows]
            if epoch + 1 == len(self._starts):
                self._starts.append(self._starts[-1] + len(rows))
        return self._plans[epoch]

    def rows(self, first: int, count: int) -> list[list[int]]:
        """The example indices of rows `first` to `first + count - 1`."""
        picked = []
        for number in range(first, first + count):
            while self._starts[-1] <= number:
                self._plan(len(self._starts) - 1)
            epoch = bisect_right(self._starts, number) - 1
            picked.append(self._plan(epoch)[number - self._starts[epoch]])
        return picked
