"""Small tokenizer.json files with the control tokens of published models."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

FIXED = ("<pad>", "<eos>", "<bos>", "<unk>")
GEMMA_3 = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")
GEMMA_4 = (
    "<|turn>", "<turn|>", "<|image>", "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>", "<|video|>"
)  # fmt: skip


def vocabulary(controls, size=310):
    """The bytes of a tokenizer.json with these control tokens behind the fixed ones, all bytes and some words."""
    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    pieces.normalizer = normalizers.Replace(" ", "▁")
    pieces.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [AddedToken(piece, special=True, normalized=False) for piece in (*FIXED, *controls)]
    single = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special, *single], show_progress=False)
    pieces.train_from_iterator(["hello how are you user model system \n"] * 3, trainer)
    # Bytes are ordinary pieces, which the trainer takes in no other way.
    file = json.loads(pieces.to_str())
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] not in single]
    return json.dumps(file).encode()


def placed(controls):
    """The same with the control tokens of media where tests/fixtures/decoder has them: from id 300 on."""
    pieces = Tokenizer.from_buffer(vocabulary(controls[:2], size=300))
    pieces.add_special_tokens([f"<unused{number}>" for number in range(300 - pieces.get_vocab_size())])
    for first in range(2, len(controls), 3):
        *brackets, soft = controls[first : first + 3]
        pieces.add_special_tokens([soft, *brackets])
    return pieces.to_str().encode()
