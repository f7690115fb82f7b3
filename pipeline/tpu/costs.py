"""Operations that a model needs by its shape, and the floor on a step's time that follows from them.

A compiler's own figures would not do: it counts the body of a loop once, and what is computed again twice.
"""

from base_model.config import ModelConfig
from base_model.vision import VisionConfig
from pipeline.tpu.topology import Chip


def forward_flops(shape: ModelConfig, *, rows: int, length: int, logits: int, pictures: int = 0) -> float:
    """Operations of the matrix products of one forward pass, a multiply and an add each.

    Every token passes the projections of attention, those of the MLP and of the experts that read it, and those of a
    layer's own embeddings: 2 x parameters. Every query meets the
    keys that it sees, once in its scores and once in its mixture: 4 x heads x head_dim x pairs. The head: 2 x embed_dim
    x vocab_size for each token whose logits are wanted. Norms, softmax and positions are left out.

    Args:
        shape: the decoder.
        rows: of a batch.
        length: tokens of a row, of one example.
        logits: tokens of a row whose logits are wanted.
        pictures: of a row.
    """
    total = 2.0 * shape.embed_dim * shape.vocab_size * logits
    for layer in shape.layers:
        own_keys = 0 if layer.kv_source is not None else 1 if layer.key_is_value else 2
        projections = (2 * layer.heads + own_keys * layer.kv_heads) * layer.head_dim + 3 * layer.mlp_dim
        projections += 3 * shape.per_layer_dim
        if experts := layer.experts:
            projections += experts.count + 3 * experts.chosen * experts.mlp_dim
        total += 2.0 * shape.embed_dim * projections * length
        total += 4.0 * layer.heads * layer.head_dim * seen_pairs(length, layer.window)
    return rows * (total + pictures * _encoder_flops(shape))


def seen_pairs(length: int, window: int | None) -> int:
    """Pairs of a query and a key that it sees, in a row of one example."""
    reach = length if window is None else min(window, length)
    return reach * (reach + 1) // 2 + (length - reach) * reach


def _encoder_flops(shape: ModelConfig) -> float:
    if not isinstance(vision := shape.vision, VisionConfig):
        return 0.0
    total, side, inside = 0.0, vision.image_size, 4
    for outside in vision.channels:
        side //= 2
        total += 2.0 * 9 * inside * outside * side * side
        inside = outside
    return total + 2.0 * side * side * inside * shape.embed_dim


def floor_seconds(chip: Chip, *, flops: float, devices: int, moved: float) -> float:
    """The least time of a step: what its model FLOPs, or the bytes that a chip must move, take at the chip's peak.

    No program reaches it; how far off one is cannot be known without the hardware.

    Args:
        chip: its peaks.
        flops: model FLOPs of the step over all devices.
        devices: chips.
        moved: bytes between memory and chip, on each.
    """
    return max(flops / (devices * chip.flops), moved / chip.bandwidth)
