"""`theodolite base verify`, `import` and `export`: models in the layout of published folders."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import shipped_model
from training.errors import BadInput, GateFailed


@dataclass(frozen=True, kw_only=True)
class BaseVerify:
    """Compares a published model with what another implementation computed for it.

    Attributes:
        folder: with config.json, model.safetensors (or its shards and their index) and golden.npz.
        atol: largest absolute difference that is allowed in any quantity.
    """

    folder: str
    atol: float = 1e-4

    def __post_init__(self) -> None:
        """Checks that there is a tolerance."""
        if not 0 <= self.atol < float("inf"):
            raise BadInput(f"atol is the largest difference that is allowed, 0 or more, and not {self.atol}")


@dataclass(frozen=True, kw_only=True)
class BaseImport:
    """Makes a checkpoint of a published Gemma 3 or Gemma 4 model.

    Attributes:
        source: a folder with config.json, safetensors and tokenizer.json (or tokenizer.model), or the name of a
            repository of the model hub.
        out: folder of the checkpoint.
        data_parallel: mesh size of copies of the parameters.
        tensor_parallel: mesh size of tensor parallelism; all other devices shard the parameters.
    """

    source: str
    out: str
    data_parallel: int = 1
    tensor_parallel: int = 1


@dataclass(frozen=True, kw_only=True)
class BaseExport:
    """Writes a checkpoint as a published folder, which transformers reads; a reward model as a classifier.

    Attributes:
        checkpoint: folder of the model; "shipped" is the tiny base model.
        out: folder to write.
        dtype: of the tensors, bfloat16 or float32.
        shard_bytes: largest file of tensors.
        towers: false leaves the encoders of pictures and sounds behind, for a model of text alone.
    """

    checkpoint: str
    out: str
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    shard_bytes: int = 5_000_000_000
    towers: bool = True


def verify(config: BaseVerify) -> None:
    """Prints the largest difference in every quantity of every case, and what could not be compared."""
    from pathlib import Path

    from base_model.published.golden import differences

    case, largest, where, left_out = "", -1.0, "", []
    for found in differences(Path(config.folder)):
        name = f"{found.case}/{found.quantity}".lstrip("/")
        if found.largest is None:
            left_out.append(name)
            continue
        if found.case != case:
            case = found.case
            print(case)
        print(f"  {found.quantity:24s} {found.largest:9.2e}{'' if found.largest <= config.atol else '  above atol'}")
        if found.largest > largest:
            largest, where = found.largest, name
    if left_out:
        print(f"not compared, for they are no quantities that are known: {', '.join(left_out)}")
    if not where:
        raise BadInput(f"{config.folder}/golden.npz holds nothing that can be compared")
    print(f"largest: {largest:.2e} in {where}, atol {config.atol:g}")
    if not largest <= config.atol:
        raise GateFailed(f"{where} is off by {largest:.2e}, more than atol={config.atol:g}")


def import_(config: BaseImport) -> None:
    """Reads the folder and writes the checkpoint."""
    from pathlib import Path

    from base_model import checkpoint
    from base_model.published.importing import import_model, local_folder
    from training.sharding import make_mesh

    out = Path(config.out)
    if out.exists():
        raise BadInput(f"{out} exists already; a checkpoint is never overwritten")
    mesh = make_mesh(data=config.data_parallel, tensor=config.tensor_parallel)
    model = import_model(local_folder(config.source), mesh=mesh)
    checkpoint.save(model, out)
    print(f"Model: {out}")


def export(config: BaseExport) -> None:
    """Reads the checkpoint and writes the folder."""
    from pathlib import Path

    from base_model import checkpoint
    from base_model.published.exporting import export_model

    folder = shipped_model() if config.checkpoint == "shipped" else Path(config.checkpoint)
    model = checkpoint.load(folder, kind=checkpoint.kind_of(folder))
    out = Path(config.out)
    export_model(model, out, dtype=config.dtype, shard_bytes=config.shard_bytes, towers=config.towers)
    print(f"Folder: {config.out}")
