"""Who makes rollouts: draws prompts, has the policy answer them, and has the answers assessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from base_model.batch import Batch, cuts_of, pad_left
from base_model.generate import reply_keys
from base_model.interleave import Example
from base_model.media import Media, room
from base_model.sampling import Samples, SamplingConfig, sample
from ppo.config import PPOConfig
from ppo.rollout import Models, Rollout, ScoreStatistics, assess
from training.dataset import batch_indices
from training.sharding import shard_batch

# Streams of random keys: the first rollout is not judged by statistics of itself.
_ROLLOUTS, _STATISTICS = 0, 1


@dataclass(frozen=True, kw_only=True)
class RolloutWorker:
    """All that a rollout needs and no update changes. Rollouts are pure functions of their number and the parameters.

    Attributes:
        models: structure and vocabulary of the decoder.
        reference: parameters of the frozen SFT model, on the mesh.
        reward_model: parameters of the frozen reward model, on the mesh.
        prompts: to draw from.
        episodes: replies of one rollout, over all devices.
        mesh: where everything lies.
        config: options.
    """

    models: Models
    reference: Any
    reward_model: Any
    prompts: Sequence[Example]
    episodes: int
    mesh: Mesh
    config: PPOConfig

    def rollout(
        self, params: Mapping[str, Any], extra: Mapping[str, Any], index: int
    ) -> tuple[Rollout, dict[str, jax.Array]]:
        """Replies of the policy with their advantages and returns, and the rollout's metrics.

        Args:
            params: "policy" and "critic".
            extra: "score_statistics" and "kl_controller".
            index: number of the rollout, which says what is asked and drawn.
        """
        return self._rollout(params, extra, index, stream=_ROLLOUTS)

    def score_statistics(self, extra: Mapping[str, Any]) -> ScoreStatistics:
        """The reward model's mean and standard deviation on the reference's replies to the first rollout's prompts."""
        # A rollout like any other, of which the rest is thrown away: one program less to compile.
        params = {"policy": self.reference, "critic": self.reward_model}
        _, metrics = self._rollout(params, extra, 0, stream=_STATISTICS)
        return ScoreStatistics(metrics["score"], metrics["score_std"] + 1e-6)

    def _rollout(
        self, params: Mapping[str, Any], extra: Mapping[str, Any], index: int, *, stream: int
    ) -> tuple[Rollout, dict[str, jax.Array]]:
        prompts, cuts, numbers = self._draw_prompts(index)
        samples = self._answer(params["policy"], prompts, cuts, numbers, stream=stream)
        return assess(
            self.models, params["policy"], params["critic"], self.reference, self.reward_model, prompts, samples,
            extra["score_statistics"], extra["kl_controller"].coefficient, config=self.config,
        )  # fmt: skip

    def _draw_prompts(self, index: int) -> tuple[Batch, tuple[int, ...], np.ndarray]:
        """Prompts of a rollout, left-padded, and where long ones are cut to be read in parts.

        With them the numbers of its episodes, from which their random keys follow.
        """
        width, media = self._shape
        chosen = batch_indices(index, count=len(self.prompts), batch_size=self.episodes, seed=self.config.seed)
        batch = pad_left([self.prompts[i] for i in chosen], width, media)
        cuts = cuts_of(batch.tokens, self._soft_tokens)
        return shard_batch(batch, self.mesh), cuts, np.arange(index * self.episodes, (index + 1) * self.episodes)

    @cached_property
    def _soft_tokens(self) -> tuple[int, ...]:
        images, sounds = nnx.merge(self.models.structure, self.reference).soft_tokens
        return images + sounds

    @cached_property
    def _shape(self) -> tuple[int, Media]:
        """One width and one room for media for all rollouts: every further shape would compile everything again."""
        longest = max(len(prompt) for prompt in self.prompts)
        width = min(-(-longest // 16) * 16, self.config.max_prompt_length)
        return width, room([[prompt.media] for prompt in self.prompts])

    def _answer(
        self, policy: Any, prompts: Batch, cuts: tuple[int, ...], numbers: np.ndarray, *, stream: int
    ) -> Samples:
        keys = reply_keys(jax.random.fold_in(jax.random.key(self.config.seed), stream), numbers, 1)
        config = SamplingConfig(max_new_tokens=self.config.response_length, temperature=self.config.temperature)
        return sample(
            self.models.structure, policy, prompts, keys, vocabulary=self.models.vocabulary, config=config, cuts=cuts
        )
