"""PPO: sample replies, score them, move the policy towards what scored well and the critic towards what was returned.

`theodolite ppo train --config configs/quickstart.yaml out=RUN data.ppo_prompts=PROMPTS.jsonl` runs it. After Ziegler et
al. (2019) and Huang et al., "The N+ Implementation Details of RLHF with PPO" (2024); departures stand at the functions.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from base_model import checkpoint
from base_model.batch import Batch, pad_left
from base_model.checkpoint import LanguageModel, structure_of
from base_model.generate import reply_keys, vocabulary_of
from base_model.interleave import digest
from base_model.sampling import Samples, SamplingConfig, sample
from ppo.config import PPOConfig
from ppo.kl import KLControllerState, update_kl_controller
from ppo.prompts import prompt_examples
from ppo.rollout import Models, ScoreStatistics, assess, join, reward_scores
from ppo.update import ppo_loss
from reward.model import scalar_logical_axes
from training.checkpoint import content_digest, latest_step
from training.dataset import Row, batch_indices, read_rows
from training.errors import BadInput
from training.loop import fit
from training.metrics import read_metrics
from training.minimise import batch_size_of, identity_of, initial_state, mesh_of
from training.optimizer import make_optimizer, make_schedule
from training.sharding import parameter_shardings, shard_batch
from training.step import TrainState, update

Dataset = str | Path | Sequence[Row]


class PPOTrainer:
    """Optimises a language model against a reward model, in the manner of TRL's PPOTrainer.

    Policy, critic, reference and reward model read the same tokens and the same pictures.
    """

    def __init__(
        self,
        model: LanguageModel | str | Path,
        reward_model: LanguageModel | str | Path,
        args: PPOConfig,
        train_dataset: Dataset,
    ):
        """Reads models and prompts.

        Args:
            model: the SFT model: the policy starts from it, and it stays as the reference.
            reward_model: scores replies; the critic starts from it, with a trunk of its own.
            args: options.
            train_dataset: rows with a `prompt`.

        Raises:
            BadInput: when the two models do not share decoder, tokenizer and chat template.
        """
        self.model = checkpoint.load(model) if isinstance(model, (str, Path)) else model
        self.reward_model = (
            checkpoint.load(reward_model, kind="scalar") if isinstance(reward_model, (str, Path)) else reward_model
        )
        if (self.model.kind, self.reward_model.kind) != ("decoder", "scalar"):
            raise BadInput("PPO needs a language model and a reward model, in this order")
        if self.model.fingerprint != self.reward_model.fingerprint:
            raise BadInput("the reward model was trained with another tokenizer or chat template than the policy's: "
                           "it would score other tokens. Train a reward model from this policy's SFT model")
        if self.model.config != self.reward_model.config:
            raise BadInput("policy and reward model are decoders of different shapes; train the reward model from the "
                           "policy's own SFT model")
        self.args = args
        rows = read_rows(train_dataset) if isinstance(train_dataset, (str, Path)) else train_dataset
        self._prompts = prompt_examples(
            rows, self.model, max_length=args.max_prompt_length, on_bad_row=args.on_bad_row
        )
        if args.max_prompt_length + args.response_length > self.model.config.max_context:
            needed = args.max_prompt_length + args.response_length
            raise BadInput(f"max_prompt_length + response_length is {needed}, and the model's context is "
                           f"{self.model.config.max_context}")
        self._models = Models(
            structure_of(self.model.config, self.model.tokenizer, dtype=args.matmul_dtype), vocabulary_of(self.model)
        )
        # One width and one number of pictures for all rollouts: every further shape would compile everything again.
        longest = max(len(prompt) for prompt in self._prompts)
        self._width = min(-(-longest // 16) * 16, args.max_prompt_length)
        self._pictures = max(len(prompt.images) for prompt in self._prompts)
        self._sampling = SamplingConfig(max_new_tokens=args.response_length, temperature=args.temperature)

    def train(self) -> dict[str, float]:
        """Trains, from the newest saved state if there is one, and returns the last rollout's metrics."""
        args = self.args
        mesh = mesh_of(args)
        minibatch = batch_size_of(args, mesh)
        episodes = minibatch * args.num_mini_batches
        if args.kl_target and episodes >= 5 * args.kl_horizon:
            raise BadInput(f"kl_horizon ({args.kl_horizon:g}) must exceed a fifth of a rollout's {episodes} episodes: "
                           "else the KL coefficient could turn negative in one step; raise it")
        total = args.max_steps if args.max_steps > 0 else max(1, args.total_episodes // episodes)
        optimizer = make_optimizer(args, make_schedule(args, total * args.num_ppo_epochs * args.num_mini_batches))
        axes = scalar_logical_axes(self.reward_model)
        place = partial(jax.tree.map, jax.device_put)
        reference = place(self.model.params, parameter_shardings(mesh, axes["trunk"]))
        reward_model = place(self.reward_model.params, parameter_shardings(mesh, axes))
        step = jax.jit(
            partial(update, loss=partial(ppo_loss, self._models, config=args), optimizer=optimizer,
                    micro_batches=args.gradient_accumulation_steps),
            donate_argnums=0,
        )  # fmt: skip

        def rollout_prompts(index: int) -> tuple[Batch, np.ndarray]:
            chosen = batch_indices(index, count=len(self._prompts), batch_size=episodes, seed=args.seed)
            batch = pad_left([self._prompts[i] for i in chosen], self._width, self.model.config, images=self._pictures)
            return shard_batch(batch, mesh), np.arange(index * episodes, (index + 1) * episodes)

        def draw(params: Any, prompts: Batch, numbers: np.ndarray, stream: int) -> Samples:
            keys = reply_keys(jax.random.fold_in(jax.random.key(args.seed), stream), numbers, 1)
            return sample(
                self._models.structure, params, prompts, keys,
                vocabulary=self._models.vocabulary, config=self._sampling,
            )  # fmt: skip

        def reference_statistics() -> ScoreStatistics:
            prompts, numbers = rollout_prompts(0)
            # Another stream of keys than the rollouts': the first rollout is not judged by statistics of itself.
            samples = draw(reference, prompts, numbers, stream=1)
            scores = reward_scores(self._models, reward_model, join(prompts, samples))
            return ScoreStatistics(scores.mean(), scores.std() + 1e-6)

        def rollout_and_update(state: TrainState, index: int) -> tuple[TrainState, Mapping[str, Any]]:
            prompts, numbers = rollout_prompts(index)
            samples = draw(state.params["policy"], prompts, numbers, stream=0)
            rollout, metrics = assess(
                self._models, state.params["policy"], state.params["critic"], reference, reward_model, prompts, samples,
                state.extra["score_statistics"], state.extra["kl_controller"].coefficient, config=args,
            )  # fmt: skip
            updates: list[Mapping[str, Any]] = []
            for epoch in range(args.num_ppo_epochs):
                order = np.random.default_rng((args.seed, index, epoch)).permutation(episodes)
                for rows in order.reshape(args.num_mini_batches, minibatch):
                    part = jax.tree.map(lambda x: x[rows], rollout)  # noqa: B023
                    state, report = step(state, shard_batch(part, mesh))
                    updates.append(report)
                if args.target_kl and float(updates[-1]["approx_kl_k3"]) > args.target_kl:
                    break
            controller = update_kl_controller(
                state.extra["kl_controller"], metrics["kl"], episodes=episodes, target=args.kl_target or 1.0,
                horizon=args.kl_horizon if args.kl_target else None,
            )  # fmt: skip
            state = state._replace(extra={**state.extra, "kl_controller": controller})
            return state, {**metrics, **_mean_of(updates), **{f"first_{k}": updates[0][k] for k in _FIRST}}

        unit = ScoreStatistics(jnp.float32(0), jnp.float32(1))
        fresh = latest_step(Path(args.output_dir) / "state") is None
        extra = {
            "kl_controller": KLControllerState(jnp.float32(args.kl_coef)),
            "score_statistics": reference_statistics() if args.normalize_scores and fresh else unit,
        }
        state = fit(
            initial_state(
                {"policy": self.model.params, "critic": self.reward_model.params},
                {"policy": axes["trunk"], "critic": axes}, optimizer, mesh, extra,
            ),
            rollout_and_update,
            total_steps=total,
            config=args,
            folder=Path(args.output_dir),
            label="PPO",
            identity=identity_of(
                args, digest(self._prompts), content_digest(self.model.params), content_digest(self.reward_model.params)
            ),
        )  # fmt: skip
        self.model = self.model.with_params(state.params["policy"])
        last = read_metrics(Path(args.output_dir) / "metrics.jsonl")[-1]
        return {name: value for name, value in last.items() if name != "step"}

    def save_model(self) -> Path:
        """Writes the policy to output_dir/checkpoint, which must not exist yet, and returns that folder."""
        folder = Path(self.args.output_dir) / "checkpoint"
        checkpoint.save(self.model, folder)
        return folder


# What the first minibatch of a rollout must show, for nothing has been updated yet: ratio 1, clip fraction 0.
_FIRST = ("ratio_mean", "ratio_var", "clip_fraction", "approx_kl_k3")


def _mean_of(updates: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
