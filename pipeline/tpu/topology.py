"""TPU chips and how many of them are connected: what libtpu compiles for."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip, as its vendor describes it.

    Attributes:
        flops: bfloat16 operations a second.
        bandwidth: bytes a second between memory and chip.
        memory: bytes that the compiler lets a program use.
    """

    flops: float
    bandwidth: float
    memory: float


CHIPS = {
    "v4": Chip(flops=275e12, bandwidth=1228e9, memory=30.75 * 2**30),
    "v5e": Chip(flops=197e12, bandwidth=819e9, memory=15.75 * 2**30),
    "v5p": Chip(flops=459e12, bandwidth=2765e9, memory=95.73 * 2**30),
    "v6e": Chip(flops=918e12, bandwidth=1640e9, memory=31.24 * 2**30),
}

# libtpu asks the machine what it is, and waits for an answer where there is no TPU. Any answer will do: the topology
# says what is compiled for. A second process beside one that uses libtpu is refused unless it is allowed.
ANSWERS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as v5e:4x4.

    Raises:
        BadInput: when the name does not start with a chip of the table.
    """
    chip, _, sizes = topology.partition(":")
    if chip not in CHIPS or not sizes:
        known = ", ".join(CHIPS)
        raise BadInput(f"a topology is a chip ({known}) and how many are connected, like v5e:4x4, not {topology!r}")
    return CHIPS[chip]


def devices_of(topology: str) -> Sequence[Any]:
    """The devices of a topology, for a mesh to compile for; nothing can be put on them.

    Raises:
        BadInput: when libtpu is missing or does not know the topology.
    """
    chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise BadInput(
            "compiling for TPUs needs the libtpu package, which is not installed and exists for Linux on x86-64 only: "
            "pip install -e '.[tpu]'"
        )
    for name, answer in ANSWERS.items():
        os.environ.setdefault(name, answer)
    from jax.experimental import topologies

    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        return topologies.get_topology_desc(topology_name=topology, platform="tpu", **options).devices
    except Exception as error:  # libtpu raises whatever it likes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"libtpu has no topology {topology!r} ({reason}); try v5e:4x4, v4:2x2x2 or v6e:4x4") from error
