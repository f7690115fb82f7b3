"""What stands beside config.json and the tensors of an exported folder, as transformers reads it."""

from pathlib import Path
from typing import Any

from base_model.checkpoint import IMAGE_TOKENIZER
from base_model.config import ModelConfig
from base_model.drawing_tokenizer import DrawingTokenizer
from base_model.gemma import CONTROLS
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.published.chat_template import template_of
from base_model.published.processors import settings_of
from base_model.published.sentencepiece_json import unigram_json
from base_model.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from training.checkpoint import write_json


def write_companions(folder: Path, tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Writes the tokenizer's files, the chat template, and the settings of generation and of the processor.

    Our own tokenizer stands there twice: as it is, by which an import knows it, and as a tokenizer.json. A model that
    draws takes its image tokenizer along, which transformers does not read.
    """
    text = tokenizer
    if isinstance(tokenizer, DrawingTokenizer):
        text = tokenizer.text
        tokenizer.images.save(folder / IMAGE_TOKENIZER)
    (folder / text.file_name).write_bytes(text.model)
    if not isinstance(text, GemmaTokenizer):
        (folder / GemmaTokenizer.file_name).write_bytes(unigram_json(text.model))
    (folder / "chat_template.jinja").write_text(template_of(text), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", _tokenizer_config(text, config))
    ends = sorted({EOS, tokenizer.end_of_turn, *tokenizer.stops})
    generation = {"bos_token_id": BOS, "pad_token_id": PAD, "eos_token_id": ends}
    write_json(folder / "generation_config.json", generation)
    if (settings := settings_of(config)) is not None:
        write_json(folder / "processor_config.json", settings)


def _tokenizer_config(tokenizer: Tokenizer, config: ModelConfig) -> dict[str, Any]:
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "unk_token": UNK}
    described: dict[str, Any] = {name: tokenizer.with_controls([number]) for name, number in special.items()}
    described |= {"model_max_length": config.max_context, "clean_up_tokenization_spaces": False}
    if not isinstance(tokenizer, GemmaTokenizer):
        return described | {"tokenizer_class": "PreTrainedTokenizerFast"}
    media = {f"{short}_token": tokenizer.with_controls([tokenizer.control(ours)])
             for short, ours in CONTROLS.items() if ours in tokenizer.controls}  # fmt: skip
    return described | {"tokenizer_class": "GemmaTokenizer", "extra_special_tokens": media}
