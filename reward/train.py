"""Training of the reward model on preferences (Bradley-Terry), starting from the SFT model.

`theodolite reward train --config configs/quickstart.yaml out=RUN data.preferences=PAIRS.jsonl` runs it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float

from base_model import checkpoint
from base_model.batch import Batch, pack
from base_model.checkpoint import LanguageModel, structure_of
from base_model.interleave import digest
from base_model.media import count, room
from reward.config import RewardConfig
from reward.data import Pair, preference_pairs
from reward.evaluation import evaluate_pairs
from reward.losses import bradley_terry_loss
from reward.model import initial_params, scalar_logical_axes, segment_scores, token_values
from training.checkpoint import content_digest
from training.dataset import Row, read_rows
from training.minimise import mesh_of, minimise
from training.packing import PackedStream
from training.step import Totals

Dataset = str | Path | Sequence[Row]


class PairBatch(NamedTuple):
    """Packed pairs: segments 2 k - 1 and 2 k of a row are the chosen and the rejected text of its k-th pair.

    Attributes:
        rows: the packed texts.
        margin: of each pair of each row.
        real: false where a row has fewer pairs than the fullest.
    """

    rows: Batch
    margin: Float[np.ndarray, "B K"]
    real: Bool[np.ndarray, "B K"]


def pair_loss(
    structure: nnx.GraphDef, params: Any, batch: PairBatch, *, centring: float, label_smoothing: float
) -> Totals:
    """Bradley-Terry loss and accuracy summed over the pairs of a packed batch."""
    segments, real, margin = (jnp.asarray(x) for x in (batch.rows.segments, batch.real, batch.margin))
    scores = segment_scores(token_values(structure, params, batch.rows), segments, 2 * real.shape[1])
    result = bradley_terry_loss(
        scores[:, ::2].reshape(-1), scores[:, 1::2].reshape(-1), real.reshape(-1),
        margin=margin.reshape(-1), centring=centring, label_smoothing=label_smoothing,
    )  # fmt: skip
    count = real.sum().astype(result.loss.dtype)
    return {name: (value * count, count) for name, value in result._asdict().items()}


class RewardTrainer:
    """Trains a scalar head and its trunk on preferences, in the manner of TRL's RewardTrainer."""

    def __init__(
        self,
        model: LanguageModel | str | Path,
        args: RewardConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
    ):
        """Reads model and data.

        Args:
            model: the language model whose trunk is taken, or its folder.
            args: options.
            train_dataset: preference rows, see reward.data.
            eval_dataset: held-out preference rows.
        """
        parent = checkpoint.load(model, mesh=mesh_of(args)) if isinstance(model, (str, Path)) else model
        self.args = args
        self.model = replace(parent, kind="scalar", params=initial_params(parent, seed=args.seed))
        self._pairs = self._read(train_dataset, slots=args.slots)
        self._held_out = self._read(eval_dataset) if eval_dataset is not None else []

    def _read(self, data: Dataset, *, slots: tuple[int, int] | None = None) -> list[Pair]:
        bad = self.args.on_bad_row
        rows = read_rows(data, on_bad_row=bad) if isinstance(data, (str, Path)) else data
        return preference_pairs(rows, self.model, max_length=self.args.max_length, slots=slots, on_bad_row=bad)

    def train(self) -> dict[str, Any]:
        """Trains, from the newest saved state if there is one, and returns the evaluation."""
        args, config = self.args, self.model.config
        media = [[pair.chosen.media, pair.rejected.media] for pair in self._pairs]
        sizes = [(len(pair), *count(both)) for pair, both in zip(self._pairs, media, strict=True)]
        stream = PackedStream(sizes, (args.max_length, *args.slots), seed=args.seed)
        shapes = room(media, slots=args.slots)
        # Room to spare, so that a later epoch's packing seldom needs another shape and another compilation.
        most = max(len(row) for row in stream.rows(0, stream.rows_per_epoch)) + 1

        def batch_at(step: int, rows: int) -> PairBatch:
            packed = [[self._pairs[i] for i in row] for row in stream.rows(step * rows, rows)]
            texts = [[text for pair in row for text in (pair.chosen, pair.rejected)] for row in packed]
            width = max(most, *(len(row) for row in packed))
            margin, real = np.zeros((rows, width), np.float32), np.zeros((rows, width), bool)
            for index, row in enumerate(packed):
                margin[index, : len(row)], real[index, : len(row)] = [pair.margin for pair in row], True
            return PairBatch(pack(texts, args.max_length, shapes), margin, real)

        state = minimise(
            partial(
                pair_loss,
                structure_of(
                    config, self.model.tokenizer,
                    dtype=args.matmul_dtype, remat=args.gradient_checkpointing, mesh=mesh_of(args),
                ),
                centring=args.center_rewards_coefficient,
                label_smoothing=args.label_smoothing,
            ),
            self.model.params,
            scalar_logical_axes(self.model),
            batch_at=batch_at,
            examples=stream.rows_per_epoch,
            config=args,
            label="reward model",
            identity=(
                digest([pair.chosen for pair in self._pairs]),
                digest([pair.rejected for pair in self._pairs]),
                str([pair.margin for pair in self._pairs]),
                content_digest(self.model.params),
            ),
            evaluate=self._figures if self._held_out and args.eval_steps else None,
        )
        self.model = self.model.with_params(state.params)
        return self.evaluate()

    def evaluate(self) -> dict[str, Any]:
        """Figures on the held-out pairs, see reward.evaluation."""
        return self._measured(self.model.params) if self._held_out else {}

    def _figures(self, params: Any) -> dict[str, float]:
        report = self._measured(params)
        return {"accuracy": report["accuracy"]["share"], "margin": report["margins"]["mean"]}

    def _measured(self, params: Any) -> dict[str, Any]:
        model, args = self.model.with_params(params), self.args
        return evaluate_pairs(model, self._held_out, seed=args.seed, dtype=args.matmul_dtype)

    def save_model(self) -> Path:
        """Writes the reward model to output_dir/checkpoint, which must not exist yet, and returns that folder."""
        folder = Path(self.args.output_dir) / "checkpoint"
        checkpoint.save(self.model, folder)
        return folder
