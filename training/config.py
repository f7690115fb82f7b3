"""What every trainer can be told; field names are those of TRL and transformers where the meaning is the same."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from training.errors import BadInput

SCHEDULES = ("linear", "cosine", "constant", "warmup_stable_decay")
_NOT_IN_RECIPE = (
    "output_dir", "eval_steps", "probe_steps", "save_steps", "save_total_limit", "gradient_checkpointing",
)  # fmt: skip
_LORA = ("lora_r", "lora_alpha", "lora_target_modules")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation, bookkeeping and placement shared by all trainers.

    Attributes:
        output_dir: folder of metrics, training states and the finished checkpoint.
        seed: every random choice follows from it.
        learning_rate: peak of the schedule.
        lr_scheduler_type: linear, cosine, constant or warmup_stable_decay, each after a linear warm-up.
        warmup_ratio: share of all steps spent warming up.
        decay_ratio: share of all steps spent decaying (warmup_stable_decay only).
        weight_decay: decoupled, on matrices only (not on norms, biases or embeddings).
        adam_beta1: decay of the first moment.
        adam_beta2: decay of the second moment.
        adam_epsilon: added to the root of the second moment.
        max_grad_norm: gradients are scaled down to this global norm.
        per_device_train_batch_size: rows a device sees in one micro-batch.
        gradient_accumulation_steps: micro-batches of one optimizer step; equal to the big batch.
        num_train_epochs: passes over the data, unless max_steps is given.
        max_steps: optimizer steps; -1 leaves it to num_train_epochs.
        eval_steps: evaluate every so many steps; 0 only at the end.
        save_steps: save the training state every so many steps; 0 only at the end.
        save_total_limit: training states kept.
        data_parallel: mesh size of pure data parallelism.
        tensor_parallel: mesh size of tensor parallelism; all other devices shard the parameters.
        matmul_dtype: float32 or bfloat16, the operands of matrix products; sums and parameters are float32 either way.
        gradient_checkpointing: the backward pass computes each layer again instead of keeping what it needs of it: less
            memory, more time, equal gradients.
        lora_r: rank of adapters that are trained instead of the parameters, see training/lora.py; 0 trains everything.
        lora_alpha: adapters count alpha / r times.
        lora_target_modules: names of the layers' matrices that have adapters, with commas between, or "all".
    """

    output_dir: str = "runs/model"
    seed: int = 0
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.03
    decay_ratio: float = 0.3
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    per_device_train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    num_train_epochs: float = 1.0
    max_steps: int = -1
    eval_steps: int = 0
    save_steps: int = 0
    save_total_limit: int = 1
    data_parallel: int = 1
    tensor_parallel: int = 1
    matmul_dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    lora_r: int = 0
    lora_alpha: float = 32.0
    lora_target_modules: str = "all"

    def __post_init__(self) -> None:
        """Checks ranges that would otherwise fail late or silently.

        Raises:
            BadInput: naming the field, what it takes and what it was given.
        """
        if self.lr_scheduler_type not in SCHEDULES:
            raise BadInput(f"lr_scheduler_type is one of {', '.join(SCHEDULES)}, not {self.lr_scheduler_type!r}")
        self.require_positive(
            "learning_rate", "adam_epsilon", "max_grad_norm", "per_device_train_batch_size",
            "gradient_accumulation_steps", "num_train_epochs", "save_total_limit", "data_parallel", "tensor_parallel",
            "lora_alpha",
        )  # fmt: skip
        if self.max_steps != -1 and self.max_steps < 1:
            raise BadInput(f"max_steps is above 0, or -1 to follow num_train_epochs, not {self.max_steps}")
        for name in ("seed", "weight_decay", "eval_steps", "save_steps", "lora_r"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"{name} must be 0 or above, not {getattr(self, name)}")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if self.matmul_dtype not in ("float32", "bfloat16"):
            raise BadInput(f"matmul_dtype is float32 or bfloat16, not {self.matmul_dtype!r}")
        for name in ("warmup_ratio", "decay_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"{name} is a share between 0 and 1, not {getattr(self, name)}")

    def require_positive(self, *names: str) -> None:
        """Raises BadInput for the first of these fields that is not above zero (NaN included)."""
        for name in names:
            if not getattr(self, name) > 0:
                raise BadInput(f"{name} must be above 0, not {getattr(self, name)}")

    def recipe(self) -> dict[str, Any]:
        """The options on which the trained parameters depend: not where and how often a run writes, or how it fits."""
        without = _NOT_IN_RECIPE if self.lora_r else (*_NOT_IN_RECIPE, *_LORA)
        return {name: value for name, value in asdict(self).items() if name not in without}

    def total_steps(self, examples: int, batch_size: int) -> int:
        """Optimizer steps for a data set of so many rows."""
        if self.max_steps > 0:
            return self.max_steps
        return max(1, int(self.num_train_epochs * examples / batch_size))
