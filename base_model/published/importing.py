"""A published folder as a model of ours."""

from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from base_model.checkpoint import IMAGE_TOKENIZER, LanguageModel
from base_model.config import ModelConfig, read_config
from base_model.drawing_tokenizer import CODES, DrawingTokenizer
from base_model.gemma import CONTROLS, model_config, soft_tokens
from base_model.gemma_tokenizer import GEMMA_3, GEMMA_4, GemmaTokenizer
from base_model.image_tokenizer import ImageTokenizer
from base_model.media import Media
from base_model.published.chat_template import require_same_turns, surroundings
from base_model.published.model import abstract_model, read_params
from base_model.published.processors import as_prepared
from base_model.published.sentencepiece_json import tokenizer_json
from base_model.tokenizer import EOS, Tokenizer
from training.errors import BadInput


def import_model(folder: Path, *, mesh: Mesh | None = None) -> LanguageModel:
    """Reads a published folder; no parameter stands in host memory beside what the devices hold of it.

    Args:
        folder: with config.json, safetensors, and tokenizer.json or tokenizer.model. A chat template and the settings
            of a processor are compared with what is done here.
        mesh: devices over which the parameters are sharded; None for one.

    Raises:
        BadInput: when a file is missing or damaged, or the model is none that this decoder is.
    """
    config, tokenizer, places = read_shape(folder)
    _, like = abstract_model(config, places, mesh)
    params = read_params(folder, config, like)
    return LanguageModel(config=config, tokenizer=tokenizer, params=params, statistics={})


def read_shape(folder: Path) -> tuple[ModelConfig, Tokenizer, Media]:
    """All of a published folder but its tensors: the model's shape, its tokenizer, and the ids of soft tokens.

    Raises:
        BadInput: as import_model does.
    """
    description = read_config(folder / "config.json")
    config = as_prepared(model_config(description), folder)
    images = ImageTokenizer.load(folder / IMAGE_TOKENIZER) if (folder / IMAGE_TOKENIZER).exists() else None
    rows = config.vocab_size - (images.config.codes if images else 0)
    tokenizer = _own(folder) or _tokenizer(folder, config, description, rows)
    require_same_turns(folder, tokenizer)
    places = soft_tokens(description)
    if (config.vision or config.audio) and tokenizer.soft_tokens != places:
        raise BadInput(f"{folder}: the tokenizer and config.json give soft tokens different ids")
    if isinstance(tokenizer, GemmaTokenizer):
        encoders = {"image": config.vision, "video": config.vision, "audio": config.audio}
        kinds = [kind for kind in tokenizer.placeholders if encoders[kind]]
        # Nothing where no template says more: what is exported has one that says so, and must come back as it was.
        tokenizer = tokenizer.surrounded(dict.fromkeys(kinds, "") | surroundings(folder, tokenizer, kinds))
    return config, _drawing(folder, tokenizer, images, description.get(CODES)), places


def _drawing(folder: Path, text: Tokenizer, images: ImageTokenizer | None, wanted: Any) -> Tokenizer:
    """The tokenizer with the codes of an image tokenizer, if there is one, where config.json says that they stand."""
    tokenizer = text if images is None else DrawingTokenizer(text, images)
    found = tokenizer.described_codes if isinstance(tokenizer, DrawingTokenizer) else None
    if wanted not in (None, found):
        given = "is missing" if images is None else "is another one"
        raise BadInput(
            f"{folder}: config.json speaks of codes of pictures ({CODES}), and the image tokenizer that they are of, "
            f"in {IMAGE_TOKENIZER}/, {given}; copy that folder from where the model was exported"
        )
    return tokenizer


def _own(folder: Path) -> Tokenizer | None:
    """A tokenizer.model that this program trained, which an export of ours has; None if it is of another kind."""
    path = folder / Tokenizer.file_name
    try:
        return Tokenizer.load(path) if path.exists() else None
    except BadInput:
        return None


def _tokenizer(folder: Path, config: ModelConfig, description: dict[str, Any], rows: int) -> GemmaTokenizer:
    """The folder's tokenizer.json, or one made of its tokenizer.model and the ids of media in config.json."""
    path, older = folder / GemmaTokenizer.file_name, folder / "tokenizer.model"
    stops = _stops(folder, rows)
    if path.exists() or not older.exists():
        return GemmaTokenizer.read(path, vocab_size=rows, settings={"stops": stops})
    names = GEMMA_3 if config.norm_offset else GEMMA_4
    given = {names.get(ours): description.get(f"{name}_token_id", description.get(f"{name}_token_index"))
             for name, ours in CONTROLS.items()}  # fmt: skip
    added = {name: number for name, number in given.items() if name is not None and type(number) is int}
    return GemmaTokenizer(tokenizer_json(older.read_bytes(), added), vocab_size=rows, stops=stops)


def _stops(folder: Path, rows: int) -> list[int]:
    """Ids that end a text or a reply: that of the end of a text, and those of generation_config.json."""
    path = folder / "generation_config.json"
    given = read_config(path).get("eos_token_id") if path.exists() else None
    ids = given if isinstance(given, list) else [] if given is None else [given]
    if not all(type(number) is int and 0 <= number < rows for number in ids):
        raise BadInput(f"{path}: eos_token_id is an id or a list of ids below {rows}, not {given!r:.60}")
    return sorted({EOS, *ids})


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
