"""Host memory of `theodolite base import`: is there ever a second copy of a model's parameters?

    python benchmarks/import_memory.py [--out DIR] [--gigabytes N]

Writes a random bfloat16 checkpoint of a Gemma 3 text model, imports it with the command, on one device and on
two, and watches the command's memory. Where devices are CPUs the parameters themselves stand in host memory, in
float32; what counts is what stands there beside them and beside the program, which is measured with a tiny model.
Figures go to benchmarks/results/import_memory.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from base_model.gemma import model_config, soft_tokens  # noqa: E402
from base_model.published.model import abstract_model, dotted, model_tensors  # noqa: E402
from base_model.published.safetensors_files import Written, write_tensors  # noqa: E402
from benchmarks.parts import result  # noqa: E402

TEXT = {
    "model_type": "gemma3_text", "vocab_size": 65_536, "hidden_size": 2048, "intermediate_size": 16_384,
    "num_attention_heads": 8, "num_key_value_heads": 1,
}  # fmt: skip
TINY = {"num_hidden_layers": 1, "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "head_dim": 4}
LAYER_GIGABYTES = 0.22


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "import_memory", help="where the checkpoints go")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the files")
    given = parser.parse_args()
    layers = max(1, round((given.gigabytes - 0.27) / LAYER_GIGABYTES))
    figures: dict = write(given.out / "published", TEXT | {"num_hidden_layers": layers})
    write(given.out / "tiny", TEXT | TINY)
    for devices in (1, 2):
        program, peak = (peak_memory(given.out / name, given.out / "ours", devices) for name in ("tiny", "published"))
        beside = peak - program - figures["parameters_bytes"]
        figures[f"devices_{devices}"] = {
            "peak_bytes": peak, "program_bytes": program, "bytes_beside_parameters_and_program": beside
        }  # fmt: skip
    print(result.write("import_memory", figures))


def write(folder: Path, description: dict) -> dict:
    """Writes a checkpoint of random bits in several files, and returns sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(description), encoding="utf-8")
    (folder / "tokenizer.json").write_text(vocabulary(), encoding="utf-8")
    config = model_config(description)
    table = model_tensors(config)
    block = np.random.default_rng(0).normal(0, 0.02, 2**20).astype(jnp.bfloat16)
    tensors, sizes = [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_model(config, soft_tokens(description))[1]):
        name, layout = table[dotted(path)]
        shape = jax.eval_shape(layout.to_published, leaf).shape
        tensors.append(Written(f"model.{name}", shape, lambda shape=shape: np.resize(block, shape)))
        sizes.append(4 * leaf.size)
    write_tensors(folder, tensors, dtype=block.dtype, shard_bytes=500_000_000)
    files = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {"files_bytes": files, "parameters_bytes": sum(sizes), "largest_parameter_bytes": max(sizes)}


def vocabulary() -> str:
    """A tokenizer.json of control tokens and nothing else."""
    pieces = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    pieces.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"])
    return pieces.to_str()


def peak_memory(source: Path, out: Path, devices: int) -> int:
    """Imports a folder, and returns the most memory that the command took and that no file backs.

    Pages of a mapped file do not count: they are the system's to take back.
    """
    shutil.rmtree(out, ignore_errors=True)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "pipeline.cli", "base", "import", str(source), f"out={out}"]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    peak = 0
    while running.poll() is None:
        lines = Path(f"/proc/{running.pid}/status").read_text(encoding="utf-8").splitlines()
        peak = max([peak, *(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.005)
    if running.returncode:
        raise SystemExit(running.returncode)
    return peak


if __name__ == "__main__":
    main()
