"""PPO: sample replies, score them, move the policy towards what scored well and the critic towards what was returned.

`theodolite ppo train --config configs/quickstart.yaml out=RUN data.ppo_prompts=PROMPTS.jsonl` runs it. After Ziegler et
al. (2019) and Huang et al., "The N+ Implementation Details of RLHF with PPO" (2024); departures stand at the functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from base_model import checkpoint
from base_model.checkpoint import LanguageModel, structure_of
from base_model.generate import vocabulary_of
from base_model.interleave import digest
from base_model.sampling import SamplingConfig
from ppo.config import PPOConfig
from ppo.interpolation import walked_back
from ppo.kl import KLControllerState, update_kl_controller
from ppo.learner import Learner
from ppo.prompts import prompt_examples
from ppo.ptx import SupervisedRows
from ppo.rollout import Models, ScoreStatistics
from ppo.worker import RolloutWorker
from reward.model import scalar_logical_axes
from training.checkpoint import content_digest, latest_step
from training.dataset import Row, read_rows
from training.errors import BadInput
from training.loop import fit, probe_of
from training.lora import adapt, merged
from training.metrics import read_metrics
from training.minimise import batch_size_of, identity_of, initial_state, mesh_of
from training.optimizer import make_optimizer, make_schedule
from training.sharding import parameter_shardings, replicated, row_shards
from training.step import TrainState

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
        probe: Callable[[LanguageModel], Mapping[str, float]] | None = None,
        supervised_dataset: Dataset | None = None,
    ):
        """Reads models and prompts.

        Args:
            model: the SFT model: the policy starts from it, and it stays as the reference.
            reward_model: scores replies; the critic starts from it, with a trunk of its own.
            args: options.
            train_dataset: rows with a `prompt`.
            probe: measures the policy every `probe_steps`; logged as `probe_<name>`. Training does not depend on it.
            supervised_dataset: conversations that updates learn from, too, if ptx_coef is not 0 (ppo/ptx.py).

        Raises:
            BadInput: when the two models do not share decoder, tokenizer and chat template.
        """
        read = partial(checkpoint.load, mesh=mesh_of(args))
        self.model = read(model) if isinstance(model, (str, Path)) else model
        self.reward_model = read(reward_model, kind="scalar") if isinstance(reward_model, (str, Path)) else reward_model
        if (self.model.kind, self.reward_model.kind) != ("decoder", "scalar"):
            raise BadInput("PPO needs a language model and a reward model, in this order")
        if self.model.fingerprint != self.reward_model.fingerprint:
            raise BadInput("the reward model was trained with another tokenizer or chat template than the policy's: "
                           "it would score other tokens. Train a reward model from this policy's SFT model")
        if self.model.config != self.reward_model.config:
            raise BadInput("policy and reward model are decoders of different shapes; train the reward model from the "
                           "policy's own SFT model")
        self.args = args
        self._probe = probe
        self._prompts = prompt_examples(
            self._read(train_dataset), self.model, max_length=args.max_prompt_length, on_bad_row=args.on_bad_row
        )
        self._supervised = None
        if args.ptx_coef:
            if supervised_dataset is None:
                raise BadInput("ptx_coef asks for supervised rows beside the prompts, and none were given: name them "
                               "(data.sft on the command line), or set ptx_coef=0")
            self._supervised = SupervisedRows(
                self._read(supervised_dataset), self.model, args, row_shards=row_shards(mesh_of(args))
            )
        if args.max_prompt_length + args.response_length > self.model.config.max_context:
            needed = args.max_prompt_length + args.response_length
            raise BadInput(f"max_prompt_length + response_length is {needed}, and the model's context is "
                           f"{self.model.config.max_context}")
        self._models = Models(
            structure_of(
                self.model.config, self.model.tokenizer,
                dtype=args.matmul_dtype, remat=args.gradient_checkpointing, mesh=mesh_of(args),
            ),
            vocabulary_of(self.model),
        )

    def _read(self, data: Dataset) -> Sequence[Row]:
        return read_rows(data, on_bad_row=self.args.on_bad_row) if isinstance(data, (str, Path)) else data

    def train(self) -> dict[str, float]:
        """Trains, from the newest saved state if there is one, and returns the last rollout's metrics."""
        # It says what is made of the trained policy, not how that comes about.
        args, limit = replace(self.args, result_diversity=0.0), self.args.result_diversity
        folder = Path(args.output_dir)
        mesh = mesh_of(args)
        minibatch = batch_size_of(args, mesh)
        episodes = minibatch * args.num_mini_batches
        if args.kl_target and episodes >= 5 * args.kl_horizon:
            raise BadInput(f"kl_horizon ({args.kl_horizon:g}) must exceed a fifth of a rollout's {episodes} episodes: "
                           "else the KL coefficient could turn negative in one step; raise it")
        total = args.max_steps if args.max_steps > 0 else max(1, args.total_episodes // episodes)
        optimizer = make_optimizer(args, make_schedule(args, total * args.num_ppo_epochs * args.num_mini_batches))
        start = {"policy": self.model.params, "critic": self.reward_model.params}
        critic_axes = scalar_logical_axes(self.reward_model)
        axes = {"policy": critic_axes["trunk"], "critic": critic_axes}
        trained, trained_axes, frozen = adapt(start, axes, args, mesh)
        whole = partial(merged, frozen)
        # What adapters adapt are the reference and the reward model, which are in memory but once.
        still = frozen.params if frozen else jax.tree.map(jax.device_put, start, parameter_shardings(mesh, axes, start))
        worker = RolloutWorker(
            models=self._models,
            reference=still["policy"],
            reward_model=still["critic"],
            prompts=self._prompts,
            episodes=episodes,
            mesh=mesh,
            config=args,
        )
        learner = Learner(
            self._models, optimizer, mesh, minibatch=minibatch, config=args, frozen=frozen, supervised=self._supervised
        )

        def rollout_and_update(state: TrainState, index: int) -> tuple[TrainState, Mapping[str, Any]]:
            rollout, metrics = worker.rollout(whole(state.params), state.extra, index)
            state, updates = learner.learn(state, rollout, index)
            controller = update_kl_controller(
                state.extra["kl_controller"], metrics["kl"], episodes=episodes, target=args.kl_target or 1.0,
                horizon=args.kl_horizon if args.kl_target else None,
            )  # fmt: skip
            return state._replace(extra={**state.extra, "kl_controller": controller}), {**metrics, **updates}

        def policy(state: TrainState) -> LanguageModel:
            return self.model.with_params(whole(state.params)["policy"])

        beginning = {
            "kl_controller": KLControllerState(jnp.float32(args.kl_coef), jnp.float32(0)),
            "score_statistics": ScoreStatistics(jnp.float32(0), jnp.float32(1)),
        }
        # Placed as steps will find it: assess would be compiled a second time for values that lie elsewhere.
        extra = jax.device_put(beginning, replicated(mesh))
        if args.normalize_scores and latest_step(folder / "state") is None:  # else they come with the state
            extra["score_statistics"] = worker.score_statistics(extra)
        state = fit(
            initial_state(trained, trained_axes, optimizer, mesh, extra),
            rollout_and_update,
            total_steps=total,
            config=args,
            folder=folder,
            label="PPO",
            ended=lambda state: bool(args.kl_budget) and float(state.extra["kl_controller"].spent) > args.kl_budget,
            identity=identity_of(
                args, digest(self._prompts), content_digest(self.model.params),
                content_digest(self.reward_model.params), *([self._supervised.digest] if self._supervised else []),
            ),
            probe=probe_of(args.probe_steps, self._probe, policy),
        )  # fmt: skip
        written = read_metrics(folder / "metrics.jsonl")
        last = written[-1] if written else {}  # somebody may have removed the file of a finished run
        found = {name: value for name, value in last.items() if name != "step" and not name.startswith("probe_")}
        self.model = policy(state)
        if limit:
            sampling = SamplingConfig(max_new_tokens=args.response_length, temperature=args.temperature)
            reference = self.model.with_params(still["policy"])
            self.model, walked = walked_back(reference, self.model, self._prompts, sampling, limit=limit)
            found |= walked
        return found

    def save_model(self) -> Path:
        """Writes the policy to output_dir/checkpoint, which must not exist yet, and returns that folder."""
        folder = Path(self.args.output_dir) / "checkpoint"
        checkpoint.save(self.model, folder)
        return folder
