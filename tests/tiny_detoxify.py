"""Tiny random classifiers in detoxify's own format, and what its package says of some texts.

    python tests/tiny_detoxify.py

writes tests/fixtures/detoxify again: for each family a checkpoint is made here, scored by the package `detoxify`,
converted by this project, and kept as converted, with the package's logits in golden.json. Needs the extra `detoxify`;
without it the tests read what is kept.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures" / "detoxify"
FAMILIES = ("bert", "roberta", "xlmr")
LABELS = {
    "bert": ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"),
    "roberta": ("toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit"),
    "xlmr": ("toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit"),
}
CORPUS = (
    "You are a fine person and I like to read books about gardens.",
    "The train to the coast leaves at nine, what a helpful answer.",
    "I will never go there again; it was cold, wet and far away!",
    "Shut up, you silly goose, said the old man to his neighbour's cat.",
    "Bücher über Gärten, Straßen und Flüsse; où est la gare, s'il vous plaît ?",
    "Numbers like 12, 345 and 6789 occur, and symbols such as @ # % & too.",
)
# Short and long, empty, with the tokens' own names (a hostile text may spell them), other scripts, and one to be cut.
TEXTS = (
    "You silly goose!", "", " ", "the [PAD] train <pad> leaves </s> [SEP] <s> [CLS] <mask>", "Où est la gare ?",
    "我喜欢书 👍🏽 e\u0301", "a", "The train to the coast leaves at nine. " * 3, "\u0000\u202e\t\n odd",
    "cold and wet " * 60,
)  # fmt: skip
MOST_TOKENS = 62


def build(folder: Path, family: str, *, width: int = 32, layers: int = 2, heads: int = 4, vocab: int = 300,
          positions: int = MOST_TOKENS, corpus: Sequence[str] = CORPUS) -> Path:  # fmt: skip
    """Writes classifier.ckpt with the transformer's config and tokenizer beside it, and returns the checkpoint."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    name = {"bert": "Bert", "roberta": "Roberta", "xlmr": "XLMRoberta"}[family]
    tokenizer = _tokenizer(family, vocab, corpus)
    special = {"bert": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                        "mask_token": "[MASK]"}}.get(family, {
        "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "bos_token": "<s>",
        "eos_token": "</s>", "mask_token": "<mask>"})  # fmt: skip
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=positions, **special)
    wrapped.save_pretrained(folder)
    described = json.loads((folder / "tokenizer_config.json").read_text())
    described["tokenizer_class"] = f"{name}Tokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    roberta = family != "bert"
    config = getattr(transformers, f"{name}Config")(
        vocab_size=max(vocab, tokenizer.get_vocab_size()), hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=2 * width if width < 100 else 4 * width,
        max_position_embeddings=positions + 2 * roberta, type_vocab_size=1 if roberta else 2,
        pad_token_id=1 if roberta else 0, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5 if roberta else 1e-12,
        num_labels=len(LABELS[family]),
    )  # fmt: skip
    config.save_pretrained(folder)
    torch.manual_seed(FAMILIES.index(family))
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for value in model.state_dict().values():  # away from zeros and ones, so that a forgotten one shows
            if value.is_floating_point():
                value.add_(torch.randn_like(value) * (0.2 if width < 100 else 0.02))
    arguments = {"num_classes": len(LABELS[family]), "model_type": "some-hub/name",
                 "model_name": f"{name}ForSequenceClassification", "tokenizer_name": f"{name}Tokenizer"}  # fmt: skip
    checkpoint = folder / "classifier.ckpt"
    torch.save(
        {
            "state_dict": model.state_dict(),
            "config": {"arch": {"args": arguments}, "dataset": {"args": {"classes": list(LABELS[family])}}},
        },
        checkpoint,
    )
    return checkpoint


def _tokenizer(family: str, vocab: int, corpus: Sequence[str]):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if family == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=vocab, special_tokens=special))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        return tokenizer
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if family == "roberta":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=max(vocab, 300), special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        # As transformers builds it from any vocabulary; a published one has SentencePiece's normaliser, too.
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=vocab, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def package_logits(checkpoint: Path, texts: list[str]) -> np.ndarray:
    """What the package's own model says, all texts in one padded batch."""
    import torch

    from safety.scorers.detoxify import load_classifier

    classifier = load_classifier(str(checkpoint), "cpu", local=True)
    classifier.model.eval()
    with torch.no_grad():
        inputs = classifier.tokenizer(texts, return_tensors="pt", truncation=True, padding=True)
        return classifier.model(**inputs)[0].numpy()


def on_devices(count: int, folder: str, out: str) -> None:
    """Scores the golden texts in this process, which has so many devices: rows over some, heads over the others."""
    import os

    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    import jax

    from safety.scorers.detoxify_jax import DetoxifyJaxScorer
    from training.sharding import make_mesh

    assert len(jax.devices()) == count
    texts = json.loads(Path(f"{folder}.json").read_text())["texts"]
    for name, mesh in (("all", None), ("tensor", make_mesh(data=2, fsdp=2, tensor=2))):
        scores = DetoxifyJaxScorer(folder, mesh=mesh).score(texts)
        np.save(f"{out}/{name}.npy", np.stack([*scores.values()], 1))


def main() -> None:
    import shutil

    from safety.scorers.convert import convert

    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as made:
            checkpoint = build(Path(made), family)
            shutil.rmtree(FIXTURES / family, ignore_errors=True)
            convert(checkpoint, FIXTURES / family, made)
            golden = {"texts": list(TEXTS), "logits": package_logits(checkpoint, list(TEXTS)).tolist()}
        (FIXTURES / f"{family}.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
