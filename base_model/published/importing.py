"""A published folder as a model of ours."""

from pathlib import Path

from jax.sharding import Mesh

from base_model.checkpoint import LanguageModel
from base_model.config import read_config
from base_model.gemma import model_config, soft_tokens
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.published.model import abstract_model, read_params
from training.errors import BadInput


def import_model(folder: Path, *, mesh: Mesh | None = None) -> LanguageModel:
    """Reads a published folder; no parameter stands in host memory beside what the devices hold of it.

    Args:
        folder: with config.json, safetensors and tokenizer.json.
        mesh: devices over which the parameters are sharded; None for one.

    Raises:
        BadInput: when a file is missing or damaged, or the model is none that this decoder is.
    """
    description = read_config(folder / "config.json")
    config = model_config(description)
    tokenizer = GemmaTokenizer.read(folder / GemmaTokenizer.file_name, vocab_size=config.vocab_size)
    places = soft_tokens(description)
    if (config.vision or config.audio) and tokenizer.soft_tokens != places:
        raise BadInput(f"{folder}: tokenizer.json and config.json give soft tokens different ids")
    _, like = abstract_model(config, places, mesh)
    params = read_params(folder, config, like)
    return LanguageModel(config=config, tokenizer=tokenizer, params=params, statistics={})


def local_folder(name: str) -> Path:
    """The folder itself, or the files of a repository of the model hub, downloaded.

    Raises:
        BadInput: when there is no such folder and no such repository that can be reached.
    """
    if (path := Path(name)).is_dir():
        return path
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.safetensors", "*.model", "*.jinja"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises what its transport does
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(f"{name!r} is no folder, and could not be downloaded from the model hub: {reason}") from error
