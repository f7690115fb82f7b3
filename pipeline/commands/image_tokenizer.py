"""`theodolite base image-tokenizer`: pictures to codes and back, and what learns it."""

from dataclasses import dataclass, field

from base_model.image_tokenizer_config import AutoencoderConfig, ImageTokenizerConfig
from pipeline.config import PACKAGED


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerTrain:
    """Trains an image tokenizer on the pictures of rows; a stopped run goes on where it was.

    Attributes:
        data: rows with `messages` in which pictures stand, or "packaged" for those that come inside pip packages.
        held_out: rows to measure on, or "packaged".
        out: folder that gets metrics, states and the checkpoint.
        autoencoder: sizes.
        training: options of the training; its output_dir follows from `out`.
    """

    data: str = PACKAGED
    held_out: str = PACKAGED
    out: str = "runs/image-tokenizer"
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    training: ImageTokenizerConfig = field(default_factory=ImageTokenizerConfig)


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerEncode:
    """Prints the codes of a picture.

    Attributes:
        image: the picture.
        tokenizer: folder of the image tokenizer; "shipped" is the one that comes with the package.
    """

    image: str
    tokenizer: str = "shipped"


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerDecode:
    """Writes the picture that codes stand for.

    Attributes:
        codes: file with the codes, as `encode` prints them.
        out: PNG to write.
        tokenizer: folder of the image tokenizer; "shipped" is the one that comes with the package.
    """

    codes: str
    out: str = "picture.png"
    tokenizer: str = "shipped"


def train(config: ImageTokenizerTrain) -> None:
    """Trains, writes the checkpoint, and prints held-out figures."""
    from dataclasses import replace

    from base_model.image_tokenizer_training import Pictures, figures
    from base_model.image_tokenizer_training import train as run
    from pipeline.data.paths import packaged_paths
    from pipeline.run_folder import RunFolder
    from training.dataset import read_rows

    folder = RunFolder.create(config.out)
    with folder.locked():
        wanted = {"data": (config.data, "pretrain.jsonl"), "held_out": (config.held_out, "pretrain_heldout.jsonl")}
        paths = packaged_paths(folder.path, wanted)
        size = config.autoencoder.image_size
        pictures, held_out = (Pictures.read(read_rows(paths[name]), size) for name in ("data", "held_out"))
        trained = run(replace(config.training, output_dir=str(folder.path)), config.autoencoder, pictures, held_out)
    for name, found in figures(trained, held_out).items():
        print(f"{name:10s} PSNR {found['psnr']:.1f} dB, {found['used']:.0%} of the codes used, "
              f"perplexity {found['perplexity']:.0f}")
    print(f"Image tokenizer: {folder.path / 'checkpoint'}")


def encode(config: ImageTokenizerEncode) -> None:
    """Prints the codes on one line."""
    from pathlib import Path

    from base_model.images import load_image

    path = Path(config.image).absolute()
    print(*image_tokenizer(config.tokenizer).encode(load_image(path.name, path.parent)))


def decode(config: ImageTokenizerDecode) -> None:
    """Reads the codes and writes the picture."""
    from pathlib import Path

    from training.errors import BadInput

    try:
        codes = [int(word) for word in Path(config.codes).read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "codes are whole numbers with spaces between them"
        raise BadInput(f"{config.codes} cannot be read: {reason}") from error
    write_picture(Path(config.out), image_tokenizer(config.tokenizer).decode(codes))


def image_tokenizer(folder: str):
    """The image tokenizer of a folder, or the shipped one."""
    from importlib import resources

    from base_model.image_tokenizer import ImageTokenizer

    shipped = str(resources.files("base_model") / "tiny_image_tokenizer")
    return ImageTokenizer.load(shipped if folder == "shipped" else folder)


def write_picture(path, pixels) -> None:
    """Writes a PNG, and says so.

    Raises:
        BadInput: when the name is not one of a PNG.
    """
    import io

    from PIL import Image

    from training.errors import BadInput
    from training.files import write_whole

    if path.suffix != ".png":
        raise BadInput(f"a picture is written as PNG, and {path} does not end in .png")
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, encoded.getvalue())
    print(path)
