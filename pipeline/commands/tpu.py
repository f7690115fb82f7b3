"""`theodolite tpu`: what the trainers' programs would need on TPUs, found without one."""

from dataclasses import dataclass
from typing import Literal

from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class TpuCompile:
    """Compiles the programs of SFT, reward model and PPO ahead of time and prints memory, FLOPs and collectives.

    Attributes:
        topology: chip and how many are connected: v5e:4x4, v4:2x2x2, v5p:4x4x4, v6e:16x16.
        preset: a size with a name (docs/tpu.md lists them): tiny is the shipped model's, nano-1 a text decoder of 1.8
            billion parameters. Published models are compiled without their encoders.
        programs: which, separated by commas: sft, reward, rollout, score, ppo.
        length: tokens of a row, prompt and reply together; 0 for 512 (tiny) or 2048.
        response: tokens of a reply; 0 for half the length.
        batch: rows of a step on each device.
        data_parallel: mesh size of pure data parallelism.
        tensor_parallel: mesh size of tensor parallelism; all other devices shard the parameters.
        matmul_dtype: operands of matrix products.
        gradient_checkpointing: the backward pass computes each layer again.
        lora_r: rank of adapters that sft, reward and ppo train instead of the parameters; 0 trains everything.
        json: a file for the figures, or "".
    """

    topology: str = "v5e:4x4"
    preset: str = "tiny"
    programs: str = "sft,reward,rollout,score,ppo"
    length: int = 0
    response: int = 0
    batch: int = 4
    data_parallel: int = 1
    tensor_parallel: int = 1
    matmul_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    gradient_checkpointing: bool = True
    lora_r: int = 0
    json: str = ""

    def __post_init__(self) -> None:
        """Checks the sizes."""
        if min(self.length, self.response, self.lora_r) < 0 or self.batch < 1:
            raise BadInput(
                f"length, response and lora_r are 0 or above and batch is above 0, "
                f"not {self.length}, {self.response}, {self.lora_r} and {self.batch}"
            )


def compile(config: TpuCompile) -> None:
    """Compiles and prints, one program after the other."""
    import json
    import os
    from dataclasses import replace
    from importlib import metadata
    from pathlib import Path

    import jax

    from base_model.presets import SIZES
    from base_model.vision import VisionConfig
    from pipeline.tpu.programs import Workload
    from pipeline.tpu.report import PROGRAMS, STEPS, as_json, described, examine
    from pipeline.tpu.topology import chip_of, devices_of
    from training.files import write_whole
    from training.sharding import make_mesh

    names = [name.strip() for name in config.programs.split(",")]
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise BadInput(f"programs are {', '.join(PROGRAMS)}, separated by commas, not {unknown[0]!r}")
    if config.lora_r and not set(names) <= set(STEPS):
        raise BadInput(f"lora_r is about what trains: give programs={','.join(STEPS)} or some of them with it")
    if config.preset not in SIZES:
        raise BadInput(f"preset is one of {', '.join(SIZES)}, not {config.preset!r}")
    shape = replace(SIZES[config.preset](), audio=None)
    if not isinstance(shape.vision, VisionConfig):  # whose operations are not counted
        shape = replace(shape, vision=None)
    length = config.length or min(2048, shape.max_context)
    response = config.response or length // 2
    if not 0 < response < length <= shape.max_context:
        raise BadInput(
            f"{config.preset} reads up to {shape.max_context} tokens, of which the reply is a part: "
            f"length={length} response={response} is not possible"
        )
    path = Path(config.json)
    if config.json and (path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK)):
        # Found here, and not after minutes of compiling.
        raise BadInput(f"cannot write the figures to {path}; give json=FILE, in a folder that is there and writable")
    jax.config.update("jax_platforms", "cpu")  # nothing runs, and a TPU that is here is left to others
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot keep programs for devices that are not here
    devices = devices_of(config.topology)
    mesh = make_mesh(data=config.data_parallel, tensor=config.tensor_parallel, devices=devices)
    work = Workload(
        shape=shape, mesh=mesh, rows=config.batch, length=length, response=response,
        dtype=config.matmul_dtype, remat=config.gradient_checkpointing, lora_r=config.lora_r,
    )  # fmt: skip
    sizes = " x ".join(f"{size} {axis}" for axis, size in mesh.shape.items())
    print(
        f"{config.preset} on {config.topology}: {len(devices)} devices ({sizes}), "
        f"{work.batch} rows of {length} tokens, replies of {response}",
        flush=True,
    )
    options = {"topology": config.topology, "preset": config.preset, "length": length, "response": response}
    options |= {"batch": config.batch, "mesh": dict(mesh.shape), "matmul_dtype": config.matmul_dtype}
    options |= {"gradient_checkpointing": config.gradient_checkpointing, "lora_r": config.lora_r}
    options |= {"libtpu": metadata.version("libtpu")}
    findings = []
    for name in names:
        findings.append(examine(name, work, chip_of(config.topology)))
        print(described(findings[-1]), flush=True)
        if config.json:  # after each: the next may take long, and be stopped
            content = json.dumps({**options, "programs": as_json(findings)}, indent=1)
            write_whole(path, content + "\n")
    if config.json:
        print(f"Figures: {config.json}")
