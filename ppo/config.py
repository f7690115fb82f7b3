"""Options of PPO; field names are TRL's wherever the meaning is the same."""

from dataclasses import dataclass
from typing import Literal, get_args

from training.config import TrainingConfig
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class PPOConfig(TrainingConfig):
    """Options of PPO, beside those of every trainer.

    One step of the loop is a rollout of per_device_train_batch_size * gradient_accumulation_steps * num_mini_batches
    episodes a device, and num_ppo_epochs passes over it.

    Attributes:
        total_episodes: replies to sample in the whole run, unless max_steps (rollouts) is given.
        response_length: longest reply in tokens, its end of turn included.
        max_prompt_length: tokens of a prompt; a longer one is a bad row.
        temperature: of rollouts and of every log-probability.
        num_ppo_epochs: passes over a rollout.
        num_mini_batches: optimizer steps a pass.
        kl_coef: beta, price of a nat of divergence from the reference in the reward.
        kl_estimator: k1, k2 or k3.
        kl_target: nats a reply that the adaptive controller aims at; 0 keeps kl_coef fixed.
        kl_horizon: episodes over which the controller takes effect.
        kl_budget: nats a reply; training ends once the running mean of rollouts' divergence passes it (how far a policy
            can go before it exploits its reward model is a matter of divergence, see Gao et al. 2022); 0 for no limit.
        cliprange: how far the ratio may fall below 1, and rise above it unless cliprange_high is given.
        cliprange_high: how far the ratio may rise above 1; 0 for the same as cliprange.
        dual_clip: the most a bad token's ratio counts; 0 for none.
        cliprange_value: how far the critic may move in one rollout.
        vf_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus.
        ptx_coef: weight of the cross-entropy of supervised rows in every update (PPO-ptx, see ppo/ptx.py), which keeps
            what the reward model does not look at; 0 for none.
        ptx_max_length: tokens of a packed supervised row.
        per_device_ptx_batch_size: packed supervised rows of a micro-batch, on each device.
        result_diversity: share of the SFT model's distinct-2 that the result keeps: a policy that lost more is walked
            back on the straight line between their parameters, see ppo/interpolation.py; 0 takes it as it is.
        gamma: discount.
        lam: lambda of generalised advantage estimation.
        whiten_rewards: scale token rewards to variance 1.
        loss_aggregation: how losses of tokens become one, see ppo.losses.
        normalize_scores: subtract the mean and divide by the standard deviation of the reward model on the reference's
            replies, measured before the first step.
        score_clip: scores are held within plus and minus this; 0 for no limit.
        missing_eos_score: score of every reply that did not end, whatever it says; null for none.
        missing_eos_penalty: subtracted from the score of such a reply instead; needs missing_eos_score=null.
        target_kl: stop a rollout's passes when the approximate KL to the rollout's policy passes it; 0 for never.
        on_bad_row: stop, or skip (counted and reported).
        probe_steps: measure toxicity every so many steps and at the end, on few prompts that no gate uses; 0 never. No
            verdict looks at it.
    """

    learning_rate: float = 1e-4
    lr_scheduler_type: str = "linear"
    warmup_ratio: float = 0.0
    adam_epsilon: float = 1e-5
    adam_beta2: float = 0.999
    per_device_train_batch_size: int = 64
    total_episodes: int = 2048
    response_length: int = 32
    max_prompt_length: int = 96
    temperature: float = 1.0
    num_ppo_epochs: int = 4
    num_mini_batches: int = 1
    kl_coef: float = 0.05
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_target: float = 0.0
    kl_horizon: float = 10_000.0
    kl_budget: float = 0.0
    cliprange: float = 0.2
    cliprange_high: float = 0.0
    dual_clip: float = 0.0
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    entropy_coef: float = 0.0
    ptx_coef: float = 0.0
    ptx_max_length: int = 128
    per_device_ptx_batch_size: int = 8
    result_diversity: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95
    whiten_rewards: bool = False
    loss_aggregation: Literal[
        "token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum", "sequence_mean_token_sum_norm"
    ] = "token_mean"
    normalize_scores: bool = True
    score_clip: float = 5.0
    missing_eos_score: float | None = -1.0
    missing_eos_penalty: float | None = None
    target_kl: float = 0.0
    on_bad_row: str = "stop"
    probe_steps: int = 0

    def __post_init__(self) -> None:
        """Checks the inherited options and the ranges of the algorithm."""
        super().__post_init__()
        self.require_positive(
            "total_episodes", "response_length", "max_prompt_length", "temperature", "num_ppo_epochs",
            "num_mini_batches", "cliprange", "cliprange_value", "kl_horizon", "ptx_max_length",
            "per_device_ptx_batch_size",
        )  # fmt: skip
        for name in ("kl_coef", "kl_target", "kl_budget", "cliprange_high", "vf_coef", "entropy_coef", "score_clip",
                     "ptx_coef", "target_kl", "probe_steps"):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise BadInput(f"{name} must be 0 or above, not {getattr(self, name)}")
        for name in ("gamma", "lam", "result_diversity"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"{name} lies between 0 and 1, not {getattr(self, name)}")
        for name in ("kl_estimator", "loss_aggregation"):
            known = get_args(PPOConfig.__annotations__[name])
            if getattr(self, name) not in known:
                raise BadInput(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.missing_eos_penalty is not None:
            if self.missing_eos_score is not None:
                raise BadInput("a reply without an end gets missing_eos_score or pays missing_eos_penalty, not both: "
                               "set missing_eos_score to null to use the penalty")
            self.require_positive("missing_eos_penalty")
        if self.num_train_epochs != 1 or self.eval_steps:
            raise BadInput("PPO counts replies and evaluates nothing in between: give total_episodes (or max_steps) "
                           "instead of num_train_epochs, and no eval_steps")
        if self.dual_clip and not self.dual_clip > 1:
            raise BadInput(f"dual_clip must be above 1, or 0 for none, not {self.dual_clip}")
