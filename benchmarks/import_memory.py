"""Host memory while a published model is read: is there ever a second copy of its parameters?

    python benchmarks/import_memory.py --out DIR [--gigabytes N]

Writes a random bfloat16 checkpoint of a Gemma 3 text model below DIR, reads it with `read_params` in a process of its
own and watches that process's memory. Where the device is the CPU, the parameters themselves stand in host memory, in
float32; what counts is what stands there beside them. Figures go to benchmarks/results/import_memory.json.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from base_model.config import read_config  # noqa: E402
from base_model.gemma import model_config, soft_tokens  # noqa: E402
from base_model.published.model import abstract_model, dotted, model_tensors, read_params  # noqa: E402
from base_model.published.safetensors_files import Written, write_tensors  # noqa: E402
from benchmarks.parts import result  # noqa: E402

TEXT = {
    "model_type": "gemma3_text", "vocab_size": 65_536, "hidden_size": 2048, "intermediate_size": 16_384,
    "num_attention_heads": 8, "num_key_value_heads": 1,
}  # fmt: skip
LAYER_GIGABYTES = 0.22


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint goes")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of its files")
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(watch(given.out)))
        return
    layers = max(1, round((given.gigabytes - 0.27) / LAYER_GIGABYTES))
    written = write(given.out, TEXT | {"num_hidden_layers": layers})
    child = [sys.executable, __file__, "--out", str(given.out), "--read"]
    seen = json.loads(subprocess.run(child, check=True, cwd=ROOT, stdout=subprocess.PIPE).stdout)
    print(result.write("import_memory", {"files_bytes": written, **seen}))


def write(folder: Path, description: dict) -> int:
    """Writes a checkpoint of random bits in several files, and returns its size."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(description), encoding="utf-8")
    config = model_config(description)
    table = model_tensors(config)
    block = np.random.default_rng(0).normal(0, 0.02, 2**20).astype(jnp.bfloat16)
    tensors = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_model(config, soft_tokens(description))[1]):
        name, layout = table[dotted(path)]
        shape = jax.eval_shape(layout.to_published, leaf).shape
        tensors.append(Written(f"model.{name}", shape, lambda shape=shape: np.resize(block, shape)))
    write_tensors(folder, tensors, dtype=block.dtype, shard_bytes=500_000_000)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def watch(folder: Path) -> dict[str, int]:
    """Reads the checkpoint, and says how much memory there was before, at most, and in the end."""
    description = read_config(folder / "config.json")
    config = model_config(description)
    like = abstract_model(config, soft_tokens(description))[1]
    before, peak, done = anonymous(), [0], threading.Event()

    def look() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.005)

    looking = threading.Thread(target=look)
    looking.start()
    params = jax.block_until_ready(read_params(folder, config, like))
    done.set()
    looking.join()
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(params)]
    return {
        "parameters_bytes": sum(sizes),
        "largest_parameter_bytes": max(sizes),
        "peak_bytes_above_start": peak[0] - before,
        "bytes_above_start_in_the_end": anonymous() - before,
        "peak_bytes_beside_the_parameters": peak[0] - before - sum(sizes),
    }


def anonymous() -> int:
    """Memory of this process that no file backs; pages of a mapped file are the system's to take back."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
