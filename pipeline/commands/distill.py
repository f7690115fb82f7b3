"""`theodolite base distill`: a smaller model out of a larger one."""

from dataclasses import dataclass, field
from typing import Literal

from base_model.distill_config import DistillConfig
from pipeline.config import PACKAGED


@dataclass(frozen=True, kw_only=True)
class BaseDistill:
    """Lets a smaller model learn from what a larger one makes of the same rows; a stopped run goes on where it was.

    Attributes:
        student: a size to start fresh, like "tiny-quarter" (docs/tpu.md lists them), or a YAML file with the fields of
            config.json's `model`; or the folder of a model to go on with.
        teacher: folder of the larger model; "shipped" is the tiny base model.
        data: rows, or "packaged" for the pretraining data that comes inside pip packages.
        held_out: rows to measure on, "packaged", or "" for none.
        rows: "pretraining" learns every token and cuts long text into pieces; "sft" learns the assistant's, of
            `messages` or `prompt` and `completion`.
        cache: folder for what the teacher says; "" is teacher/ in `out`. Runs may share it.
        out: folder that gets metrics, states and the checkpoint.
        distill: options of the training; its output_dir follows from `out`.
    """

    student: str
    teacher: str = "shipped"
    data: str = PACKAGED
    held_out: str = PACKAGED
    rows: Literal["pretraining", "sft"] = "pretraining"
    cache: str = ""
    out: str = "runs/distilled"
    distill: DistillConfig = field(default_factory=DistillConfig)


def distill(config: BaseDistill) -> None:
    """Lets the teacher read, trains the student and writes it."""
    from dataclasses import replace
    from pathlib import Path

    from base_model import checkpoint
    from base_model.distill import distill as run
    from base_model.distill import require_same_tokenizer, require_same_tokens
    from base_model.teacher_cache import TeacherCache, write_cache
    from pipeline.commands.base import model_folder
    from pipeline.data.paths import packaged_paths
    from pipeline.run_folder import RunFolder
    from training.dataset import read_rows

    folder = RunFolder.create(config.out)
    with folder.locked():
        wanted = {"data": (config.data, "pretrain.jsonl"), "held_out": (config.held_out, "pretrain_heldout.jsonl")}
        paths = packaged_paths(folder.path, wanted)
        options = replace(config.distill, output_dir=str(folder.path))
        teacher = checkpoint.load(model_folder(config.teacher))
        student = student_of(config.student, teacher, seed=options.seed)
        require_same_tokenizer(teacher, student)
        length = min(options.max_length, teacher.config.max_context, student.config.max_context)
        bad = options.on_bad_row
        rows = read_rows(paths["data"], on_bad_row=bad)
        held_out_rows = read_rows(paths["held_out"], on_bad_row=bad) if config.held_out else []
        read = lambda rows, model: examples_of(rows, model, config.rows, length, options.slots, bad)  # noqa: E731
        examples, held_out = read(rows, student), read(held_out_rows, student) if held_out_rows else []
        theirs = examples if _read_alike(teacher.config, student.config) else read(rows, teacher)
        require_same_tokens(theirs, examples)
        cache = Path(config.cache) if config.cache else folder.path / "teacher"
        write_cache(cache, teacher, theirs, options)
        del teacher, theirs  # the student has the memory to itself
        run(options, student, examples, TeacherCache(cache, examples), held_out)
    print(f"Model: {folder.path / 'checkpoint'}")


def student_of(name: str, teacher, *, seed: int):
    """A fresh model of a size with the teacher's tokenizer, or the one in a folder.

    Raises:
        BadInput: when it is none of these.
    """
    from dataclasses import replace
    from pathlib import Path

    from base_model.checkpoint import LanguageModel, build, load, split
    from base_model.config_json import model_config_of
    from base_model.presets import SIZES
    from pipeline.options import read_yaml

    ids = teacher.tokenizer.vocab_size
    if name in SIZES:
        shape = replace(SIZES[name](), vocab_size=ids)
    elif name.endswith((".yaml", ".yml")):
        shape = model_config_of({**read_yaml(name), "vocab_size": ids})
    else:
        return load(Path(name))
    params = split(build(shape, teacher.tokenizer, seed=seed))[1]
    return LanguageModel(config=shape, tokenizer=teacher.tokenizer, params=params, statistics={})


def examples_of(rows, model, kind: str, length: int, slots: tuple[int, int], on_bad_row: str) -> list:
    """Rows as a model reads them, with the tokens to be learned marked as SFT or pretraining does."""
    from base_model.interleave import require_slots
    from base_model.pretrain import pretraining_examples
    from sft.config import SFTConfig
    from sft.data import sft_examples

    if kind == "sft":
        return sft_examples(rows, model, SFTConfig(max_length=length, on_bad_row=on_bad_row), slots=slots)
    examples = pretraining_examples(rows, model.tokenizer, model.config, max_length=length, on_bad_row=on_bad_row)
    for example in examples:
        require_slots([example.media], slots)
    return examples


def _read_alike(one, other) -> bool:
    """Whether two models take the same tokens and media of a row."""
    return (one.vision, one.audio, one.clips) == (other.vision, other.audio, other.clips)
