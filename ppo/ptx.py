"""PPO-ptx: every update also learns from supervised rows, which hold what the reward model does not look at.

Ouyang et al., "Training language models to follow instructions with human feedback" (2022), equation 2, with the rows
of supervised fine-tuning where they have those of pretraining.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from base_model.batch import Batch
from base_model.checkpoint import LanguageModel
from base_model.interleave import digest
from base_model.packed import PackedExamples
from ppo.config import PPOConfig
from ppo.losses import loss_denominator
from ppo.rollout import Rollout
from sft.config import SFTConfig
from sft.data import sft_examples
from training.dataset import Row


class Mixed(NamedTuple):
    """A minibatch of a rollout with supervised rows beside it.

    Attributes:
        rollout: episodes.
        supervised: packed rows.
        weight: what the rollout's loss is divided by for each learned token of the supervised rows. Sums over
            micro-batches are divided by the first of these counts alone, and so both become means.
    """

    rollout: Rollout
    supervised: Batch
    weight: Float[Array, "B"]


class SupervisedRows:
    """Packed rows of conversations; which of them stand in a minibatch follows from its number."""

    def __init__(self, rows: Sequence[Row], model: LanguageModel, config: PPOConfig, *, row_shards: int):
        """Reads the rows as supervised fine-tuning does.

        Args:
            rows: conversations, or prompts with completions.
            model: for its tokenizer and its encoders.
            config: options.
            row_shards: over how many devices the rows of a batch are spread.
        """
        options = SFTConfig(max_length=config.ptx_max_length, seed=config.seed, on_bad_row=config.on_bad_row)
        examples = sft_examples(rows, model, options, slots=options.slots)
        self.digest = digest(examples)
        self._packed = PackedExamples(examples, options.max_length, options.slots, seed=config.seed)
        self._rows = config.per_device_ptx_batch_size * config.gradient_accumulation_steps * row_shards
        self._config = config

    def beside(self, rollout: Rollout, number: int) -> Mixed:
        """A minibatch with the supervised rows of its number, counted from 0 over the whole training."""
        batch = self._packed.batch(self._packed.rows(number * self._rows, self._rows))
        counted = loss_denominator(jnp.asarray(rollout.mask), aggregation=self._config.loss_aggregation)
        weight = float(counted) / max(int(batch.learn.sum()), 1)
        return Mixed(rollout, batch, jnp.full(self._rows, weight, jnp.float32))
