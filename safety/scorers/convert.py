"""A detoxify checkpoint as a folder that JAX runs: model.safetensors, tokenizer.json and config.json.

    theodolite safety convert-detoxify toxic_original.ckpt out/detoxify transformer=bert-base-uncased

A checkpoint has neither the transformer's config nor its tokenizer; both come from a folder or, by name, from the hub.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from safety.scorers.detoxify import read_checkpoint
from safety.scorers.encoder import EncoderConfig
from training.digest import file_digest
from training.errors import BadInput
from training.files import write_whole

KIND, FORMAT = "detoxify classifier", 1
FAMILIES = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
}
# What the package calls the labels of its older checkpoints.
RENAMED = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}
_LAYER = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "output": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense", "down": "output.dense", "mlp_norm": "output.LayerNorm",
}  # fmt: skip


def convert(checkpoint: Path, out: Path, transformer: str | None = None) -> EncoderConfig:
    """Converts a checkpoint to a new folder, whole or not at all.

    Args:
        checkpoint: in detoxify's format; read without running anything in it.
        out: must not exist yet.
        transformer: folder with config.json and tokenizer.json of the transformer that was trained, or its name on the
            hub; None takes the name that the checkpoint gives.

    Raises:
        BadInput: `out` exists, torch is not installed, or the checkpoint, config or tokenizer cannot be used.
    """
    if out.exists():
        raise BadInput(f"{out} exists already; a converted classifier is never overwritten")
    loaded = read_checkpoint(checkpoint)
    arguments = loaded["config"]["arch"]["args"]
    if arguments["model_name"] not in FAMILIES:
        raise BadInput(
            f"{checkpoint} holds a {arguments['model_name']}; converted are BERT, RoBERTa and XLM-R classifiers: "
            f"use this one through its package, with scorer=detoxify:FILE.ckpt"
        )
    family = FAMILIES[arguments["model_name"]]
    source = transformer or arguments["model_type"]
    files = {name: _file_of(source, name) for name in ("config.json", "tokenizer.json")}
    labels = tuple(str(RENAMED.get(name, name)) for name in loaded["config"]["dataset"]["args"]["classes"])
    config = read_transformer(files["config.json"], family, labels)
    config = replace(config, max_tokens=min(config.max_tokens, _longest(files["tokenizer.json"].parent)))
    params = rename({name: value.float().numpy() for name, value in loaded["state_dict"].items()}, config)
    _write(out, config, params, files["tokenizer.json"], file_digest(checkpoint))
    return config


def rename(tensors: Mapping[str, np.ndarray], config: EncoderConfig) -> dict[str, np.ndarray]:
    """The published tensors under our names, kernels transposed and layers stacked.

    Raises:
        BadInput: a tensor is missing, has another shape, is not finite, or is one that we have no use for.
    """
    left = {name.removeprefix("bert.").removeprefix("roberta."): value for name, value in tensors.items()}

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise BadInput(f"the checkpoint has no tensor {name}")
        return np.asarray(left.pop(name), np.float32)

    params = {
        "word": take("embeddings.word_embeddings.weight"),
        "position": take("embeddings.position_embeddings.weight"),
        "type": take("embeddings.token_type_embeddings.weight")[0],
        "norm.weight": take("embeddings.LayerNorm.weight"),
        "norm.bias": take("embeddings.LayerNorm.bias"),
    }
    head = {"bert": ("pooler.dense", "classifier"), "roberta": ("classifier.dense", "classifier.out_proj")}
    for ours, theirs in zip(("head.dense", "head.out"), head[config.family], strict=True):
        params |= {f"{ours}.kernel": take(f"{theirs}.weight").T, f"{ours}.bias": take(f"{theirs}.bias")}
    for ours, theirs in _LAYER.items():
        weights = [take(f"encoder.layer.{number}.{theirs}.weight") for number in range(config.layers)]
        biases = [take(f"encoder.layer.{number}.{theirs}.bias") for number in range(config.layers)]
        kind = "weight" if ours.endswith("norm") else "kernel"
        params[f"layers.{ours}.{kind}"] = np.stack([weight.T for weight in weights])
        params[f"layers.{ours}.bias"] = np.stack(biases)
    # Buffers of older versions, and a pooler that RoBERTa's classifier does not read.
    unread = [name for name in left if not name.endswith("position_ids") and not name.startswith("pooler.")]
    if unread:
        raise BadInput(f"the checkpoint has {len(unread)} tensors that no {config.family} has, such as {unread[0]}")
    require_shapes(params, config)
    return {name: np.ascontiguousarray(value) for name, value in params.items()}


def require_shapes(params: Mapping[str, np.ndarray], config: EncoderConfig) -> None:
    """Checks that parameters are those of a config.

    Raises:
        BadInput: one is missing, unknown, of another shape, or not finite.
    """
    wanted = config.shapes()
    if set(params) != set(wanted):
        raise BadInput(f"a classifier's tensors are missing or unknown: {sorted(set(params) ^ set(wanted))[:3]}")
    for name, shape in wanted.items():
        if params[name].shape != shape:
            raise BadInput(f"the classifier's {name} has the shape {params[name].shape}, and its config says {shape}")
        if not np.isfinite(params[name]).all():
            raise BadInput(f"the classifier's {name} has numbers that are not finite")


def read_transformer(path: Path, family: str, labels: tuple[str, ...]) -> EncoderConfig:
    """What a transformer's config.json says of its shape.

    Raises:
        BadInput: it cannot be read, lacks a size, or asks for something that is not computed here.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        padding, positions = int(content["pad_token_id"]), int(content["max_position_embeddings"])
        config = EncoderConfig(
            family="bert" if family == "bert" else "roberta",
            layers=int(content["num_hidden_layers"]),
            heads=int(content["num_attention_heads"]),
            width=int(content["hidden_size"]),
            hidden=int(content["intermediate_size"]),
            vocab_size=int(content["vocab_size"]),
            positions=positions,
            epsilon=float(content["layer_norm_eps"]),
            padding_id=padding,
            max_tokens=positions - (padding + 1 if family == "roberta" else 0),
            labels=labels,
        )
        asked = (content.get("hidden_act", "gelu"), content.get("position_embedding_type", "absolute"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path} is no config of a BERT or RoBERTa: {type(error).__name__}: {error}") from error
    if asked != ("gelu", "absolute"):
        found = " and ".join(map(str, asked))
        raise BadInput(f"{path} asks for {found} positions; only gelu and absolute are computed")
    return config


def _longest(folder: Path) -> int:
    """How many tokens the package would cut a text to, if the tokenizer's own config says so."""
    path = folder / "tokenizer_config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return int(min(content.get("model_max_length", 1 << 30), 1 << 30))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path} is no config of a tokenizer: {error}") from error


def _file_of(source: str, name: str) -> Path:
    folder = Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise BadInput(f"{folder} has no {name}; it needs config.json and tokenizer.json of the transformer")
        return folder / name
    import huggingface_hub

    try:
        if name == "tokenizer.json":
            huggingface_hub.hf_hub_download(source, "tokenizer_config.json")  # lies beside it then
        return Path(huggingface_hub.hf_hub_download(source, name))
    except Exception as error:  # the hub client has no common base for "not found" and "no network"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{name} of {source} is neither in a folder of that name nor to be had from the hub ({reason}); give "
            "transformer=FOLDER with config.json and tokenizer.json"
        ) from error


def _write(out: Path, config: EncoderConfig, params: Mapping[str, np.ndarray], tokenizer: Path, source: str) -> None:
    from safetensors.numpy import save_file

    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(dict(params), temporary / "model.safetensors")
    write_whole(temporary / "tokenizer.json", tokenizer.read_bytes())
    description: dict[str, Any] = {"kind": KIND, "format": FORMAT, "converted_from": source, "encoder": asdict(config)}
    write_whole(temporary / "config.json", json.dumps(description, indent=1) + "\n")
    temporary.rename(out)
