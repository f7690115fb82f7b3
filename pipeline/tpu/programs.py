"""The jitted programs of the trainers, with shapes and shardings in the place of arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.stages import Lowered

from base_model.batch import Batch
from base_model.checkpoint import HEAD_AXES, logical_axes, split
from base_model.config import ModelConfig
from base_model.decoder import Decoder
from base_model.likelihood import cross_entropy
from base_model.media import Media
from base_model.sampling import Samples, SamplingConfig, Vocabulary, sample
from base_model.towers import room_of_one
from ppo.config import PPOConfig
from ppo.rollout import Models, Rollout, ScoreStatistics, assess
from ppo.update import ppo_loss
from reward.config import RewardConfig
from reward.model import head_params
from reward.train import PairBatch, pair_loss
from sft.config import SFTConfig
from training.config import TrainingConfig
from training.lora import Frozen, fresh_adapters
from training.minimise import abstract_state
from training.optimizer import make_optimizer, make_schedule
from training.sharding import named_sharding, placed, replicated, row_shards
from training.step import TrainState, update

# Ids like those of the tokenizer; which ones they are makes no difference to a program.
SOFT_TOKENS, VOCABULARY = Media((18, 20), (19,)), Vocabulary(end_of_turn=7, never_sampled=tuple(range(7)))
STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained, on what mesh, with rows of what size.

    Attributes:
        shape: the decoder.
        mesh: of a topology's devices.
        rows: rows of a step a device (tensor-parallel devices share theirs).
        length: tokens of a row; of a prompt and its reply together.
        response: tokens of a reply.
        dtype: operands of matrix products.
        remat: see Decoder.
        lora_r: rank of adapters that steps train instead of the parameters; 0 for these.
    """

    shape: ModelConfig
    mesh: Mesh
    rows: int
    length: int
    response: int
    dtype: str
    remat: bool
    lora_r: int = 0

    @property
    def batch(self) -> int:
        """Rows of a step over all devices."""
        return self.rows * row_shards(self.mesh)

    @property
    def pictures(self) -> int:
        """Pictures of a row."""
        return 0 if self.shape.vision is None else 1

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder without its arrays."""
        return nnx.eval_shape(
            lambda: Decoder(
                self.shape, soft_tokens=SOFT_TOKENS, dtype=self.dtype, remat=self.remat, mesh=self.mesh,
                rngs=nnx.Rngs(0),
            )
        )

    @cached_property
    def structure(self) -> nnx.GraphDef:
        """The decoder's static structure."""
        return split(self.decoder)[0]

    @property
    def models(self) -> Models:
        """What PPO's programs know of the decoder."""
        return Models(self.structure, VOCABULARY)

    @cached_property
    def language_model(self) -> tuple[Any, Any]:
        """Shapes and logical axes of a language model's parameters."""
        return split(self.decoder)[1], logical_axes(self.decoder)

    @cached_property
    def scalar_model(self) -> tuple[Any, Any]:
        """Shapes and logical axes of a reward model's or critic's parameters."""
        trunk, axes = self.language_model
        head = jax.eval_shape(lambda: head_params(self.shape, seed=0))
        return {"trunk": trunk, "head": head}, {"trunk": axes, "head": HEAD_AXES}

    def on_mesh(self, model: tuple[Any, Any]) -> Any:
        """Parameters as trainers place them."""
        return placed(self.mesh, model[1], model[0])

    def whole(self, shape: tuple[int, ...] = (), dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        """An array that every device holds."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated(self.mesh))

    def split_rows(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        """An array of which every device holds its rows."""
        return jax.ShapeDtypeStruct((self.batch, *shape), dtype, sharding=named_sharding(self.mesh, ("batch",)))

    def texts(self, length: int) -> Batch:
        """Rows of tokens, with a picture where there is an encoder, so that it is compiled too."""
        ids = self.split_rows((length,), np.int32)
        media = jax.tree.map(lambda leaf: self.split_rows(leaf.shape, leaf.dtype), room_of_one(self.shape))
        return Batch(ids, ids, ids, self.split_rows((length,), bool), media)  # type: ignore[arg-type]

    def samples(self) -> Samples:
        """Replies as the sampler returns them."""
        reply = partial(self.split_rows, (self.response,))
        return Samples(reply(jnp.int32), reply(bool), reply())  # type: ignore[arg-type]

    def ppo(self) -> PPOConfig:
        """Options of PPO for these sizes."""
        prompt = self.length - self.response
        return PPOConfig(response_length=self.response, max_prompt_length=prompt, lora_r=self.lora_r)

    @property
    def policy_and_critic(self) -> tuple[Any, Any]:
        """Shapes and logical axes of what PPO trains."""
        (policy, policy_axes), (critic, critic_axes) = self.language_model, self.scalar_model
        return {"policy": policy, "critic": critic}, {"policy": policy_axes, "critic": critic_axes}

    def start(self, model: tuple[Any, Any], config: TrainingConfig) -> tuple[TrainState, Frozen | None]:
        """A trainer's state at step 0, and what its adapters adapt if it has any."""
        trained, axes = model
        frozen = None
        if config.lora_r:
            named = []

            def fresh(params: Any) -> Any:
                adapters, its_axes = fresh_adapters(params, axes, config)
                named.append(its_axes)
                return adapters

            trained = jax.eval_shape(fresh, model[0])
            frozen = Frozen(self.on_mesh(model), self.whole())  # type: ignore[arg-type]
            (axes,) = named
        return abstract_state(trained, axes, _optimizer(config), self.mesh), frozen


def _optimizer(config: TrainingConfig) -> Any:
    return make_optimizer(config, make_schedule(config, STEPS))


def _step(
    work: Workload, loss: Callable[..., Any], model: tuple[Any, Any], batch: Any, config: TrainingConfig
) -> Lowered:
    step = jax.jit(partial(update, loss=loss, optimizer=_optimizer(config), micro_batches=1), donate_argnums=0)
    state, frozen = work.start(model, config)
    return step.lower(state, batch, frozen)


def sft_step(work: Workload) -> Lowered:
    """An optimizer step of SFT."""
    config, loss = SFTConfig(max_length=work.length, lora_r=work.lora_r), partial(cross_entropy, work.structure)
    return _step(work, loss, work.language_model, work.texts(work.length), config)


def reward_step(work: Workload) -> Lowered:
    """An optimizer step of the reward model, with one pair in each row."""
    config = RewardConfig(max_length=work.length, lora_r=work.lora_r)
    loss = partial(
        pair_loss, work.structure, centring=config.center_rewards_coefficient, label_smoothing=config.label_smoothing
    )
    pairs = PairBatch(work.texts(work.length), work.split_rows((1,)), work.split_rows((1,), bool))  # type: ignore[arg-type]
    return _step(work, loss, work.scalar_model, pairs, config)


def rollout(work: Workload) -> Lowered:
    """Prompts read and replies sampled."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), work.batch))
    return sample.lower(
        work.structure, work.on_mesh(work.language_model), work.texts(work.length - work.response),
        work.whole(keys.shape, keys.dtype),
        vocabulary=VOCABULARY, config=SamplingConfig(max_new_tokens=work.response),
    )  # fmt: skip


def score(work: Workload) -> Lowered:
    """Replies assessed by policy, reference, critic and reward model."""
    language_model, scalar_model = work.on_mesh(work.language_model), work.on_mesh(work.scalar_model)
    statistics = ScoreStatistics(work.whole(), work.whole())  # type: ignore[arg-type]
    return assess.lower(
        work.models, language_model, scalar_model, language_model, scalar_model,
        work.texts(work.length - work.response), work.samples(), statistics, work.whole(), config=work.ppo(),
    )  # fmt: skip


def ppo_update(work: Workload) -> Lowered:
    """An optimizer step of PPO on policy and critic."""
    reply = partial(work.split_rows, (work.response,))
    floats = [reply() for _ in range(4)]
    batch = Rollout(work.texts(work.length), reply(bool), *floats)  # type: ignore[arg-type]
    loss = partial(ppo_loss, work.models, config=work.ppo())
    return _step(work, loss, work.policy_and_critic, batch, work.ppo())
