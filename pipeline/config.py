"""The config of a run: what its stages read, how they train, and what their gates demand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from ppo.config import PPOConfig
from reward.config import RewardConfig
from safety import policy, reward_policy
from safety.fields import made
from safety.policy import GatePolicy
from safety.reward_policy import RewardGatePolicy
from safety.scorers import understood
from sft.config import SFTConfig
from training.errors import BadInput

PACKAGED = "packaged"


class Profile(NamedTuple):
    """What a name stands for: the policy of the generating gates and that of the reward model's."""

    gate: Callable[[], GatePolicy]
    reward: Callable[[], RewardGatePolicy]


PROFILES = {
    "quickstart": Profile(policy.quickstart, reward_policy.quickstart),
    "smoke": Profile(policy.smoke, reward_policy.smoke),
    "standard": Profile(policy.standard, reward_policy.standard),
    "release": Profile(policy.release, reward_policy.release),
}
KEYS = ("signing_key", "trusted_keys")  # the user's, and never the run's


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Files (JSONL or Parquet) or hub names; "packaged" takes the data that comes inside pip packages.

    Attributes:
        sft: conversations to fine-tune on.
        sft_held_out: conversations to measure on.
        preferences: pairs for the reward model.
        preferences_held_out: pairs to measure on.
        ppo_prompts: prompts that PPO answers.
        evaluation_prompts: prompts that no stage trains on, for the held-out reward.
        gate_prompts: prompts of the safety gates, disjoint from all others.
        picture_questions: questions about pictures with one right answer, for exact match.
    """

    sft: str = PACKAGED
    sft_held_out: str = PACKAGED
    preferences: str = PACKAGED
    preferences_held_out: str = PACKAGED
    ppo_prompts: str = PACKAGED
    evaluation_prompts: str = PACKAGED
    gate_prompts: str = PACKAGED
    picture_questions: str = PACKAGED


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run depends on.

    Attributes:
        out: the run's folder.
        base: folder of the base model, or "shipped".
        data: what the stages read.
        gate: profile of the gates behind base, SFT and PPO (quickstart, smoke, standard, release), or a YAML file.
        reward_gate: profile of the reward model's gate, of the same names, or a YAML file.
        scorer: who scores toxicity; lexical, or another of docs/scorers.md.
        signing_key: file of the private key that signs verdicts; without it your own, made at its first use.
        trusted_keys: public keys whose verdicts count, files or ed25519:HEX, with commas between; without it your own.
        sft: options of supervised fine-tuning; its output_dir follows from `out`.
        reward: options of the reward model's training; likewise.
        ppo: options of PPO; likewise.
    """

    out: str = "runs/run"
    base: str = "shipped"
    data: DataConfig = field(default_factory=DataConfig)
    gate: str = "standard"
    reward_gate: str = "standard"
    scorer: str = "lexical"
    signing_key: str = ""
    trusted_keys: str = ""
    sft: SFTConfig = field(default_factory=SFTConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)

    def __post_init__(self) -> None:
        """Resolves the profiles once, so that a wrong name is found before any work.

        Raises:
            BadInput: an unknown profile or scorer, or no name where a folder's is wanted.
        """
        for name in ("out", "base"):  # "" would be the folder that the command is started in
            if not getattr(self, name).strip():
                raise BadInput(f"{name} is the name of a folder, not {getattr(self, name)!r}")
        _ = self.gate_policy, self.reward_gate_policy
        understood(self.scorer)

    @property
    def run_folder(self) -> Path:
        """The run whose options stand in for the defaults."""
        return Path(self.out).expanduser()

    # Read once: a file that is changed while a run goes on changes nothing in it.
    @cached_property
    def gate_policy(self) -> GatePolicy:
        """The policy of the generating gates."""
        return gate_policy(self.gate)

    @cached_property
    def reward_gate_policy(self) -> RewardGatePolicy:
        """The policy of the reward model's gate."""
        return reward_gate_policy(self.reward_gate)

    @property
    def base_checkpoint(self) -> Path:
        """Folder of the base model."""
        return shipped_model() if self.base == "shipped" else Path(self.base)


def gate_policy(name: str) -> GatePolicy:
    """A policy by the name of its profile, or from a YAML file.

    Raises:
        BadInput: no such profile or file, or a file that is no policy.
    """
    if name in PROFILES:
        return PROFILES[name].gate()
    if not name.endswith((".yaml", ".yml")):
        raise BadInput(f"gate is one of {', '.join(PROFILES)}, or a YAML file, not {name!r}")
    return _of_file(name, GatePolicy.from_dict)


def reward_gate_policy(name: str) -> RewardGatePolicy:
    """A policy of the reward model's gate by the name of its profile, or from a YAML file.

    Raises:
        BadInput: no such profile or file, or a file that is no policy.
    """
    if name in PROFILES:
        return PROFILES[name].reward()
    if not name.endswith((".yaml", ".yml")):
        raise BadInput(f"reward_gate is one of {', '.join(PROFILES)}, or a YAML file, not {name!r}")
    return _of_file(name, lambda values: made(RewardGatePolicy, values, "not a policy of the reward model's gate"))


def _of_file(name: str, policy: Callable[[dict[str, Any]], Any]) -> Any:
    """The policy that a YAML file describes; an error names the file."""
    from pipeline.options import read_yaml

    values = read_yaml(Path(name))
    try:
        return policy(values)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error


def shipped_model() -> Path:
    """Folder of the tiny base model that comes with the package."""
    return Path(str(resources.files("base_model") / "tiny"))
