"""`theodolite base draw`: a picture from words."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BaseDraw:
    """Lets a model whose vocabulary has codes of pictures draw one.

    Attributes:
        prompt: the user's turn.
        checkpoint: folder of the model.
        out: PNG to write; of several copies the number stands before its ending.
        temperature: 0 takes the most likely code. Where a shape may begin anywhere, plain ground is the most likely
            everywhere: far below 1, pictures stay empty.
        top_p: only the most likely codes that together have this probability.
        copies: how many pictures.
        seed: of the pictures.
    """

    prompt: str
    checkpoint: str
    out: str = "picture.png"
    temperature: float = 1.0
    top_p: float = 0.95
    copies: int = 1
    seed: int = 0


def draw(config: BaseDraw) -> None:
    """Draws and writes the pictures."""
    from pathlib import Path

    from base_model import checkpoint
    from base_model.chat import messages_to_segments
    from base_model.drawing import draw_pictures
    from base_model.drawing_tokenizer import require_drawing
    from base_model.interleave import interleave
    from pipeline.commands.image_tokenizer import write_picture

    model, out = checkpoint.load(config.checkpoint), Path(config.out)
    require_drawing(model.tokenizer)
    messages = [{"role": "user", "content": config.prompt}]
    segments = messages_to_segments(messages, model.tokenizer, folder=Path(), ending="reply")
    prompt = interleave(segments, model.tokenizer, model.config)
    pictures = draw_pictures(
        model, [prompt], temperature=config.temperature, top_p=config.top_p, copies=config.copies, seed=config.seed
    )[0]
    for number, picture in enumerate(pictures):
        write_picture(out if config.copies == 1 else out.with_stem(f"{out.stem}-{number}"), picture)
