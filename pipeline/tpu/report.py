"""Compiles the trainers' programs for a topology and says what was found, for people and for scripts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
from jax.stages import Lowered

from pipeline.tpu import programs
from pipeline.tpu.compiled import OutOfMemory, collectives_of, compile_program, largest_collective, memory_of
from pipeline.tpu.costs import floor_seconds, forward_flops
from pipeline.tpu.programs import Workload
from pipeline.tpu.topology import Chip

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One program, compiled or not. Sizes are bytes on each device.

    Attributes:
        program: its name.
        arguments: what it is given; None where it did not fit.
        temporaries: what exists while it runs; None where it did not fit.
        peak: arguments, outputs and temporaries, what shares a place counted once; where the program did not fit, what
            the compiler wanted for temporaries alone, or 0.
        beside: what else lies on the device meanwhile (PPO keeps four models).
        memory: what the chip has for programs.
        fits: whether peak and beside stay within memory.
        model_flops: see pipeline.tpu.costs; of a whole step over all devices.
        floor_seconds: see pipeline.tpu.costs.
        collectives: how many of each kind, loops counted once; None where they could not be read.
        largest_collective: the largest array in one of them; None where it could not be read.
        compile_seconds: processor time of tracing and compiling.
    """

    program: str
    arguments: int | None
    temporaries: int | None
    peak: int
    beside: int
    memory: int
    fits: bool
    model_flops: float
    floor_seconds: float
    collectives: dict[str, int] | None
    largest_collective: int | None
    compile_seconds: float


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program and what is known of it without compiling.

    Attributes:
        lower: traces it.
        flops: of a whole step.
        beside: bytes on each device of what PPO keeps there meanwhile.
        reads: how often its arguments are read at least.
    """

    lower: Callable[[Workload], Lowered]
    flops: Callable[[Workload], float]
    beside: Callable[[Workload], int] = lambda work: 0
    reads: Callable[[Workload], int] = lambda work: 1


def _forward(work: Workload, logits: int) -> float:
    return forward_flops(work.shape, rows=work.batch, length=work.length, logits=logits, pictures=work.pictures)


def _held(tree: Any) -> int:
    """Bytes of a tree of placed shapes on each device."""
    return sum(x.dtype.itemsize * _size(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))


def _size(shape: Sequence[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _frozen(work: Workload) -> int:
    return _held(work.on_mesh(work.language_model)) + _held(work.on_mesh(work.scalar_model))


def _trained(work: Workload) -> int:
    return _held(work.start(work.policy_and_critic, work.ppo())[0])


def _passes(work: Workload) -> int:
    """How many forward passes a step costs at least."""
    # A backward pass has two products for each: one for activations, one for the matrix, which adapters can do without.
    return 2 if work.lora_r else 3


PROGRAMS = {
    "sft": Program(lower=programs.sft_step, flops=lambda work: _passes(work) * _forward(work, work.length - 1)),
    "reward": Program(lower=programs.reward_step, flops=lambda work: _passes(work) * _forward(work, 0)),
    "rollout": Program(
        lower=programs.rollout,
        flops=lambda work: _forward(work, work.response),
        beside=lambda work: _trained(work) + _frozen(work) - _held(work.on_mesh(work.language_model)),
        reads=lambda work: work.response,
    ),
    "score": Program(
        lower=programs.score,
        flops=lambda work: 2 * _forward(work, work.response) + 2 * _forward(work, 0),
        beside=lambda work: _trained(work) - _frozen(work),
    ),
    "ppo": Program(
        lower=programs.ppo_update,
        flops=lambda work: _passes(work) * (_forward(work, work.response) + _forward(work, 0)),
        # What adapters adapt are the reference and the reward model.
        beside=lambda work: 0 if work.lora_r else _frozen(work),
    ),
}


# What trains, and so may train adapters.
STEPS = ("sft", "reward", "ppo")


def examine(name: str, work: Workload, chip: Chip) -> Finding:
    """Compiles one program of the table."""
    program, start = PROGRAMS[name], time.process_time()
    compiled = compile_program(program.lower(work))
    flops, beside = program.flops(work), program.beside(work)
    fixed = {"program": name, "beside": beside, "memory": int(chip.memory), "model_flops": flops}
    spent = round(time.process_time() - start, 1)
    if isinstance(compiled, OutOfMemory):
        floor = floor_seconds(chip, flops=flops, devices=work.mesh.size, moved=0)
        return Finding(
            **fixed, arguments=None, temporaries=None, peak=compiled.wanted, fits=False, floor_seconds=floor,
            collectives=None, largest_collective=None, compile_seconds=spent,
        )  # fmt: skip
    memory = memory_of(compiled)
    moved = memory.arguments * program.reads(work) + memory.outputs
    return Finding(
        **fixed, arguments=memory.arguments, temporaries=memory.temporaries, peak=memory.peak,
        fits=memory.peak + beside <= chip.memory,
        floor_seconds=floor_seconds(chip, flops=flops, devices=work.mesh.size, moved=moved),
        collectives=collectives_of(compiled), largest_collective=largest_collective(compiled), compile_seconds=spent,
    )  # fmt: skip


def described(finding: Finding) -> str:
    """Some lines for people."""
    if finding.arguments is None or finding.temporaries is None:
        wanted = f"wants {finding.peak / GIB:.2f} GiB" if finding.peak else "wants more than that"
        held = f"does not fit {finding.memory / GIB:.2f} GiB: the compiler {wanted} for what it computes"
    else:
        verdict = "fits" if finding.fits else "does not fit"
        beside = f" + {finding.beside / GIB:.2f} GiB beside it" if finding.beside else ""
        held = (
            f"{finding.peak / GIB:.2f} GiB{beside}: {verdict} {finding.memory / GIB:.2f} GiB "
            f"({finding.arguments / GIB:.2f} arguments, {finding.temporaries / GIB:.2f} temporaries)"
        )
    lines = [
        f"{finding.program}",
        f"  memory per device  {held}",
        f"  model FLOPs        {finding.model_flops:.3g}",
        f"  floor on step time {finding.floor_seconds:.3g} s (a floor, not a forecast)",
    ]
    if finding.collectives is None:
        lines.append("  collectives        not readable" if finding.arguments is not None else "  collectives        -")
    else:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(finding.collectives.items())) or "none"
        largest = (finding.largest_collective or 0) / GIB
        lines.append(f"  collectives        {kinds} (loops counted once; the largest array {largest:.3f} GiB)")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The same for scripts."""
    return [asdict(finding) for finding in findings]
