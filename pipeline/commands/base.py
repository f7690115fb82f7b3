"""`theodolite base`: tokenizer, pretraining, and a look at a model."""

from dataclasses import dataclass, field
from typing import Literal

from base_model.pretrain_config import PretrainConfig
from pipeline.config import PACKAGED, shipped_model


@dataclass(frozen=True, kw_only=True)
class BaseTokenizer:
    """Trains a SentencePiece tokenizer on the text of conversations.

    Attributes:
        data: rows with `messages`, or "packaged" for the pretraining data that comes inside pip packages.
        out: folder that gets tokenizer.model, and data/ when it is packaged.
        vocab_size: number of ids, control tokens among them.
    """

    data: str = PACKAGED
    out: str = "runs/base"
    vocab_size: int = 4096


@dataclass(frozen=True, kw_only=True)
class BasePretrain:
    """Pretrains the tiny multimodal decoder; a stopped run goes on where it was.

    Attributes:
        start: a model to go on from, or "shipped": its tokenizer and all that it knows are taken, and what the shape or
            the image tokenizer adds is fresh; "" for a model from scratch.
        data: rows with `messages`, or "packaged".
        held_out: rows to measure on, or "packaged".
        tokenizer: a tokenizer.model, if there is no model to go on from; "" trains one on the data first.
        shape: "tiny", which reads text and pictures, or "tiny-omni", which also hears; its packaged rows have sounds,
            clips and drawings, too.
        image_tokenizer: folder of an image tokenizer, or "shipped", for a model that draws; "" for one that does not.
        out: folder that gets tokenizer.model, metrics, states and the checkpoint.
        pretrain: options of the training; its output_dir follows from `out`.
    """

    start: str = ""
    data: str = PACKAGED
    held_out: str = PACKAGED
    tokenizer: str = ""
    shape: Literal["tiny", "tiny-omni"] = "tiny"
    image_tokenizer: str = ""
    out: str = "runs/base"
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)


@dataclass(frozen=True, kw_only=True)
class BaseGenerate:
    """Lets a checkpoint answer a prompt.

    Attributes:
        prompt: the user's turn.
        image: a picture in front of it, or "".
        video: a clip in front of it, or "".
        audio: a sound in front of it, or "".
        image_tokens: soft tokens that the picture may take, from 70 to 1120 (Gemma 4); 0 leaves the model's budget.
        checkpoint: folder of the model; "shipped" is the tiny base model.
        max_new_tokens: length of a reply.
        temperature: 0 takes the most likely token.
        top_p: only the most likely tokens that together have this probability.
        copies: how many replies.
        seed: of the replies.
    """

    prompt: str
    image: str = ""
    video: str = ""
    audio: str = ""
    image_tokens: int = 0
    checkpoint: str = "shipped"
    max_new_tokens: int = 40
    temperature: float = 0.8
    top_p: float = 0.95
    copies: int = 1
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class BaseInfo:
    """Sizes, layers and digest of a checkpoint.

    Attributes:
        checkpoint: folder of the model; "shipped" is the tiny base model.
    """

    checkpoint: str = "shipped"


def model_folder(name: str):
    """The folder of a model, or that of the shipped one."""
    from pathlib import Path

    return shipped_model() if name == "shipped" else Path(name)


def tokenizer(config: BaseTokenizer) -> None:
    """Trains a tokenizer and writes it."""
    from base_model.pretrain import train_tokenizer
    from pipeline.data.paths import packaged_paths
    from pipeline.run_folder import RunFolder
    from training.files import write_whole

    folder = RunFolder.create(config.out)
    with folder.locked():
        data = packaged_paths(folder.path, {"data": (config.data, "pretrain.jsonl")})["data"]
        trained = train_tokenizer(data, vocab_size=config.vocab_size)
        write_whole(folder.path / "tokenizer.model", trained.model)
    print(f"{trained.vocab_size} ids: {folder.path / 'tokenizer.model'}")


def pretrain(config: BasePretrain) -> None:
    """Pretrains and writes the model."""
    from dataclasses import replace
    from pathlib import Path

    from base_model import checkpoint
    from base_model.drawing_tokenizer import DrawingTokenizer
    from base_model.presets import SIZES
    from base_model.pretrain import pretrain as run
    from base_model.pretrain import train_tokenizer
    from base_model.tokenizer import Tokenizer
    from pipeline.commands.image_tokenizer import image_tokenizer
    from pipeline.data.paths import packaged_paths
    from pipeline.run_folder import RunFolder
    from training.errors import BadInput
    from training.files import write_whole

    folder = RunFolder.create(config.out)
    with folder.locked():
        rows = "omni" if config.shape == "tiny-omni" else "pretrain"
        wanted = {"data": (config.data, f"{rows}.jsonl"), "held_out": (config.held_out, f"{rows}_heldout.jsonl")}
        paths = packaged_paths(folder.path, wanted)
        start = checkpoint.load(model_folder(config.start)) if config.start else None
        if start is not None and config.tokenizer:
            raise BadInput("a model to go on from has its own tokenizer: leave out start, or tokenizer")
        vocabulary = Path(config.tokenizer or folder.path / "tokenizer.model")
        if start is None and not config.tokenizer and not vocabulary.exists():
            bad = config.pretrain.on_bad_row
            write_whole(vocabulary, train_tokenizer(paths["data"], vocab_size=4096, on_bad_row=bad).model)
        pieces = Tokenizer.load(vocabulary) if start is None else start.tokenizer
        if config.image_tokenizer and pieces.image_codes:
            raise BadInput("the model to go on from draws already, with an image tokenizer of its own: set "
                           'image_tokenizer=""')
        if config.image_tokenizer:
            pieces = DrawingTokenizer(pieces, image_tokenizer(config.image_tokenizer))
        options = replace(config.pretrain, output_dir=str(folder.path))
        shape = replace(SIZES[config.shape](), vocab_size=pieces.vocab_size)
        run(options, shape, pieces, data=paths["data"], held_out_data=paths["held_out"], start=start)
    print(f"Model: {folder.path / 'checkpoint'}")


def generate(config: BaseGenerate) -> None:
    """Prints the replies."""
    from dataclasses import replace
    from pathlib import Path

    from base_model import checkpoint
    from base_model.chat import messages_to_segments
    from base_model.generate import generate as draw
    from base_model.image_budget import with_image_budget
    from base_model.interleave import interleave
    from base_model.sampling import SamplingConfig

    model = checkpoint.load(model_folder(config.checkpoint))
    if config.image_tokens:
        model = replace(model, config=with_image_budget(model.config, config.image_tokens))
    media = {"image": config.image, "video": config.video, "audio": config.audio}
    content = [{"type": kind, kind: str(Path(path).absolute())} for kind, path in media.items() if path]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": config.prompt}]}]
    folder = Path(Path.cwd().anchor)  # what stands on the command line may lie anywhere
    segments = messages_to_segments(messages, model.tokenizer, folder=folder, ending="reply")
    options = SamplingConfig(
        max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p
    )
    prompt = interleave(segments, model.tokenizer, model.config)
    for reply in draw(model, [prompt], options, copies=config.copies, seed=config.seed)[0]:
        print(reply)


def info(config: BaseInfo) -> None:
    """Prints what a checkpoint is."""
    import jax

    from base_model import checkpoint
    from training.digest import folder_digest

    folder = model_folder(config.checkpoint)
    kind = checkpoint.kind_of(folder)
    model = checkpoint.load(folder, kind=kind)
    count = lambda params: sum(leaf.size for leaf in jax.tree.leaves(params))  # noqa: E731
    shape = model.config
    print(f"{folder}\n  kind        {kind}\n  parameters  {count(model.params):,}")
    trunk = model.params["trunk"] if kind == "scalar" else model.params
    for part in sorted(trunk):
        print(f"    {part:10s} {count(trunk[part]):,}")
    print(f"  width {shape.embed_dim}, vocabulary {shape.vocab_size}, context {shape.max_context}")
    for number, layer in enumerate(shape.layers):
        window = f"window {layer.window}" if layer.window else "global"
        heads = f"{layer.heads}/{layer.kv_heads} heads of {layer.head_dim}"
        print(f"  layer {number}: {heads}, {window}, MLP {layer.mlp_dim}")
    for what, encoder in (("pictures", shape.vision), ("sounds", shape.audio)):
        if encoder is not None:
            print(f"  {what:10s}  {encoder}")
    print(f"  fingerprint {model.fingerprint}\n  digest      {folder_digest(folder)}")
