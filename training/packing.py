"""Which examples share a row: first fit, so that few slots are padding and no example is cut."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from training.dataset import epoch_order
from training.errors import BadInput


def first_fit(
    lengths: Sequence[int], capacity: int, *, pictures: Sequence[int] | None = None, most_pictures: int = 0
) -> list[list[int]]:
    """Assigns items to rows of `capacity`, each to the first open row that has room.

    Only the last 64 rows are tried, which keeps the work linear and costs under one percent of the slots.

    Args:
        lengths: tokens of each item, in the order in which they are to be seen.
        capacity: tokens of a row.
        pictures: pictures of each item, when a row's number of pictures is limited too.
        most_pictures: pictures of a row.

    Returns:
        Rows of item indices; every index stands in exactly one row.

    Raises:
        BadInput: when an item does not fit in an empty row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    frames: list[int] = []
    for index, length in enumerate(lengths):
        count = 0 if pictures is None else pictures[index]
        if length > capacity:
            raise BadInput(f"example {index} has {length} tokens and cannot be packed into rows of {capacity}")
        if count > most_pictures:
            raise BadInput(f"example {index} has {count} pictures, and a row at most {most_pictures}; raise max_images")
        first = max(0, len(rows) - 64)
        for row in range(first, len(rows)):
            if room[row] >= length and frames[row] >= count:
                break
        else:
            row = len(rows)
            rows.append([])
            room.append(capacity)
            frames.append(most_pictures)
        rows[row].append(index)
        room[row] -= length
        frames[row] -= count
    return rows


class PackedStream:
    """An endless stream of packed rows: every epoch a fresh order, packed anew, a pure function of the row's number."""

    def __init__(
        self,
        lengths: Sequence[int],
        capacity: int,
        *,
        seed: int,
        pictures: Sequence[int] | None = None,
        most_pictures: int = 0,
    ):
        """Takes the tokens of each example and of a row, and likewise the pictures where they are limited.

        Raises:
            BadInput: when there is no example, or one does not fit in a row.
        """
        self._pictures = None if pictures is None else np.asarray(pictures)
        self._most_pictures = most_pictures
        self._lengths = np.asarray(lengths)
        if not len(self._lengths):
            raise BadInput("there is no example to pack")
        # An example that fits no row is refused here: a plan knows it by its place in a shuffled order alone.
        first_fit(lengths, capacity, pictures=pictures, most_pictures=most_pictures)
        self._capacity, self._seed = capacity, seed
        self._starts = [0]  # number of the first row of each epoch planned so far
        self._plans: dict[int, list[list[int]]] = {}
        self.rows_per_epoch = len(self._plan(0))

    def _plan(self, epoch: int) -> list[list[int]]:
        if epoch not in self._plans:
            order = epoch_order(len(self._lengths), seed=self._seed, epoch=epoch)
            pictures = None if self._pictures is None else self._pictures[order].tolist()
            rows = first_fit(
                self._lengths[order].tolist(), self._capacity, pictures=pictures, most_pictures=self._most_pictures
            )
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
