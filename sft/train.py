"""Supervised fine-tuning: the decoder learns to write the assistant's turns.

`theodolite sft train --config configs/quickstart.yaml out=RUN data.sft=ROWS.jsonl` runs it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from flax import nnx

from base_model import checkpoint
from base_model.batch import Batch, pack
from base_model.checkpoint import LanguageModel, build, logical_axes, split
from base_model.interleave import Example, digest
from base_model.likelihood import cross_entropy, held_out
from base_model.media import NOTHING, room
from base_model.packed import PackedExamples
from sft.config import SFTConfig
from sft.data import sft_examples
from training.checkpoint import content_digest
from training.dataset import Row, batch_indices, read_rows
from training.loop import probe_of
from training.minimise import mesh_of, minimise

Dataset = str | Path | Sequence[Row]


class SFTTrainer:
    """Fine-tunes a language model on conversations, in the manner of TRL's SFTTrainer."""

    def __init__(
        self,
        model: LanguageModel | str | Path,
        args: SFTConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        probe: Callable[[LanguageModel], Mapping[str, float]] | None = None,
    ):
        """Reads model and data; everything that can be wrong with them is found here, before any training.

        Args:
            model: a language model or its folder.
            args: options.
            train_dataset: path or hub name of the rows, or the rows.
            eval_dataset: held-out rows.
            probe: measures the model every `probe_steps`; logged as `probe_<name>`. Training does not depend on it.
        """
        self.model = checkpoint.load(model, mesh=mesh_of(args)) if isinstance(model, (str, Path)) else model
        self.args = args
        self._probe = probe
        self._examples = self._read(train_dataset, slots=args.slots if args.packing else None)
        self._held_out = self._read(eval_dataset) if eval_dataset is not None else []
        self._module = nnx.eval_shape(lambda: build(
            self.model.config, self.model.tokenizer,
            dtype=args.matmul_dtype, remat=args.gradient_checkpointing, mesh=mesh_of(args),
        ))  # fmt: skip
        self._structure = split(self._module)[0]

    def _read(self, data: Dataset, *, slots: tuple[int, int] | None = None) -> list[Example]:
        rows = read_rows(data, on_bad_row=self.args.on_bad_row) if isinstance(data, (str, Path)) else data
        return sft_examples(rows, self.model, self.args, slots=slots)

    def train(self) -> dict[str, float]:
        """Trains, from the newest saved state if there is one, and returns the held-out figures."""
        args = self.args
        packed = (
            PackedExamples(self._examples, args.max_length, args.slots, seed=args.seed) if args.packing else None
        )
        rows_per_epoch = len(self._examples) if packed is None else packed.rows_per_epoch
        shapes = room([[example.media] for example in self._examples]) if packed is None else NOTHING

        def batch_at(step: int, rows: int) -> Batch:
            if packed is not None:
                return packed.batch(packed.rows(step * rows, rows))
            alone = batch_indices(step, count=rows_per_epoch, batch_size=rows, seed=args.seed)
            return pack([[self._examples[i]] for i in alone], args.max_length, shapes)

        state = minimise(
            partial(cross_entropy, self._structure),
            self.model.params,
            logical_axes(self._module),
            batch_at=batch_at,
            examples=rows_per_epoch,
            config=args,
            label="SFT",
            identity=(digest(self._examples), content_digest(self.model.params)),
            evaluate=self._figures if self._held_out and args.eval_steps else None,
            probe=probe_of(args.probe_steps, self._probe, lambda state: self.model.with_params(state.params)),
        )
        self.model = self.model.with_params(state.params)
        return self.evaluate()

    def evaluate(self) -> dict[str, float]:
        """Held-out loss (nats a learned token) and the share of rows whose learned tokens all are the likeliest."""
        return self._figures(self.model.params) if self._held_out else {}

    def _figures(self, params: object) -> dict[str, float]:
        scores = held_out(self._structure, params, self._held_out)
        return {"loss": scores.loss, "exact_match": scores.exact_match}

    def save_model(self) -> Path:
        """Writes the model to output_dir/checkpoint, which must not exist yet, and returns that folder."""
        folder = Path(self.args.output_dir) / "checkpoint"
        checkpoint.save(self.model, folder)
        return folder
