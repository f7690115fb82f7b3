"""Distillation: a smaller decoder learns from what a larger one makes of the same rows.

`theodolite base distill teacher=shipped student=tiny-quarter` runs it. The teacher reads each example once, and what it
says is kept on disk; while the student learns it is not in memory.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from base_model import checkpoint
from base_model.batch import Batch
from base_model.checkpoint import LanguageModel, build, logical_axes, split, structure_of
from base_model.distill_config import DistillConfig
from base_model.divergence import coarse_log_probs, divergence, taught_loss
from base_model.interleave import Example, digest
from base_model.likelihood import held_out, over_logits, score_logits
from base_model.packed import PackedExamples
from base_model.teacher_cache import Targets, TeacherCache, learned
from training.checkpoint import content_digest
from training.errors import BadInput
from training.masked import masked_sum
from training.minimise import mesh_of, minimise
from training.step import Totals


class Taught(NamedTuple):
    """A batch of rows, and what the teacher says for each of their tokens; 0 where nothing is learned."""

    rows: Batch
    targets: Targets


def distillation(
    structure: nnx.GraphDef, params: Any, batch: Taught, *, teacher_weight: float, temperature: float
) -> Totals:
    """Sums over the tokens to be learned of the loss and of its parts, and how many tokens there are."""
    decoder, rows = nnx.merge(structure, params), batch.rows
    hidden, _ = decoder(rows.tokens, rows.positions, rows.segments, rows.media)

    def score(logits: Float[Array, "B T V"], known: tuple[Array, Targets]) -> dict[str, Array]:
        tokens, targets = known
        scores = score_logits(logits, tokens)
        apart = divergence(targets.log_probs, coarse_log_probs(logits, targets.ids, temperature=temperature))
        loss = taught_loss(apart, scores.nll, teacher_weight=teacher_weight, temperature=temperature)
        return {"loss": loss, "kl": apart, "cross_entropy": scores.nll, "token_accuracy": scores.hit}

    known = rows.tokens[:, 1:], Targets(*(x[:, 1:] for x in batch.targets))
    learn = jnp.asarray(rows.learn[:, 1:])
    scores = over_logits(score, decoder, hidden[:, :-1], known)
    return {name: (masked_sum(value, learn), learn.sum(dtype=jnp.float32)) for name, value in scores.items()}


def require_same_tokenizer(teacher: LanguageModel, student: LanguageModel) -> None:
    """Says so if the two do not mean the same by a token.

    Raises:
        BadInput: they have other tokenizers or chat templates.
    """
    if teacher.fingerprint != student.fingerprint:
        raise BadInput("the student has another tokenizer or chat template than the teacher: a token of the one is "
                       "none of the other. Start the student from a size, which takes the teacher's tokenizer")


def require_same_tokens(teacher: Sequence[Example], student: Sequence[Example]) -> None:
    """Says so if teacher and student do not learn the same tokens; places of pictures may differ.

    Raises:
        BadInput: naming the first example of which they learn others.
    """
    for number, (theirs, own) in enumerate(zip(teacher, student, strict=True), 1):
        if not np.array_equal(theirs.tokens[learned(theirs)], own.tokens[learned(own)]):
            raise BadInput(f"of example {number} the teacher reads other tokens than the student: their encoders take "
                           "different numbers of soft tokens and max_length cuts it. Raise max_length, or cut the row")


def distill(
    config: DistillConfig,
    student: LanguageModel,
    examples: Sequence[Example],
    teacher: TeacherCache,
    held_out_examples: Sequence[Example] = (),
) -> LanguageModel:
    """Trains the student from where it is and writes it to output_dir/checkpoint.

    A run that was stopped goes on from its last saved state.

    Args:
        config: options.
        student: what to train.
        examples: as the student reads them.
        teacher: what the teacher made of the same examples, in the same order.
        held_out_examples: what `eval_loss` (nats a learned token, of the data) is measured on.

    Returns:
        The trained student.
    """
    module = nnx.eval_shape(lambda: build(
        student.config, student.tokenizer,
        dtype=config.matmul_dtype, remat=config.gradient_checkpointing, mesh=mesh_of(config),
    ))  # fmt: skip
    packed = PackedExamples(examples, config.max_length, config.slots, seed=config.seed)

    def batch_at(step: int, count: int) -> Taught:
        rows = packed.rows(step * count, count)
        return Taught(packed.batch(rows), targets_of(rows, examples, teacher, config))

    plain = structure_of(student.config, student.tokenizer)
    loss = partial(
        distillation, split(module)[0], teacher_weight=config.teacher_weight, temperature=config.temperature
    )
    state = minimise(
        loss, student.params, logical_axes(module), batch_at=batch_at, examples=packed.rows_per_epoch, config=config,
        label="distillation",
        identity=(student.config.to_json(), digest(examples), content_digest(student.params), teacher.identity),
        evaluate=(lambda params: _figures(plain, params, held_out_examples)) if held_out_examples else None,
    )  # fmt: skip
    trained, folder = student.with_params(state.params), Path(config.output_dir) / "checkpoint"
    if not folder.exists():
        checkpoint.save(trained, folder)
    return trained


def targets_of(
    packed: Sequence[Sequence[int]], examples: Sequence[Example], teacher: TeacherCache, config: DistillConfig
) -> Targets:
    """What the teacher says for the tokens of packed rows, 0 where nothing is learned."""
    shape = len(packed), config.max_length
    ids = np.zeros((*shape, config.top_k), np.int32)
    log_probs = np.zeros((*shape, config.top_k + 1), np.float16)
    for row, numbers in enumerate(packed):
        start = 0
        for number in numbers:
            places = start + learned(examples[number])
            ids[row, places], log_probs[row, places] = teacher.of(number)
            start += len(examples[number])
    return Targets(ids, log_probs)


def _figures(structure: nnx.GraphDef, params: Any, examples: Sequence[Example]) -> dict[str, float]:
    scores = held_out(structure, params, examples)
    return {"loss": scores.loss, "exact_match": scores.exact_match}
