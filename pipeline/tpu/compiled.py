"""What a compiled program says about itself: memory of a device, and collectives in its text."""

import math
import re
from collections import Counter
from typing import Any, NamedTuple

from jax.stages import Compiled, Lowered

from training.errors import BadInput

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?[\w.\-]+ = (.*?) ({'|'.join(KINDS)})(?:-start)?\(", re.MULTILINE)
_ARRAY = re.compile(r"\b(pred|[a-z]+?)(\d*)\[([\d,]*)\]")
_OUT_OF_MEMORY = re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM|Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm")


class Memory(NamedTuple):
    """Bytes on each device.

    Attributes:
        arguments: what the program is given.
        outputs: what it leaves behind, those parts included that take the place of arguments.
        aliased: those parts.
        temporaries: what exists in between.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int

    @property
    def peak(self) -> int:
        """All of it, counted once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


class OutOfMemory(NamedTuple):
    """What the compiler said of a program that it could not fit: bytes that it wanted, 0 if it gave no figure."""

    wanted: int


def compile_program(lowered: Lowered) -> Compiled | OutOfMemory:
    """Compiles a program.

    Raises:
        BadInput: when the compiler refuses it for another reason than memory.
    """
    try:
        return lowered.compile()
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise BadInput(f"the TPU compiler refused the program: {str(error).strip().splitlines()[0]}") from error
        found = _OUT_OF_MEMORY.search(str(error))
        if found is None:
            return OutOfMemory(0)
        number, unit = (part for part in found.groups() if part is not None)
        return OutOfMemory(int(float(number) * 1024 ** ("KMGT".index(unit) + 1)))


def memory_of(compiled: Compiled) -> Memory:
    """What a device holds while the program runs."""
    sizes: Any = compiled.memory_analysis()
    return Memory(
        sizes.argument_size_in_bytes, sizes.output_size_in_bytes, sizes.alias_size_in_bytes, sizes.temp_size_in_bytes
    )


def collectives_of(compiled: Compiled) -> dict[str, int] | None:
    """How many collectives of each kind stand in the optimised program, loops counted once; None if it has no text."""
    text = _text(compiled)
    return None if text is None else dict(Counter(kind for _, kind in _INSTRUCTION.findall(text)))


def largest_collective(compiled: Compiled) -> int | None:
    """Bytes of the largest array that a collective takes part in; None if the program has no text."""
    text = _text(compiled)
    if text is None:
        return None
    return max((_bytes(array) for types, _ in _INSTRUCTION.findall(text) for array in _ARRAY.findall(types)), default=0)


def _text(compiled: Compiled) -> str | None:
    try:
        return compiled.as_text()
    except Exception:  # some programs for v5p cannot be written out
        return None


def _bytes(array: tuple[str, str, str]) -> int:
    _, bits, sizes = array
    return math.prod(int(size) for size in sizes.split(",") if size) * max(8, int(bits or 8)) // 8
