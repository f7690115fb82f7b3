"""The tokenizer of published Gemma 3 and Gemma 4 models, with the interface of base_model/tokenizer.py."""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from base_model.media import Media
from base_model.tokenizer import BOS, END_OF_TURN, EOS, MEDIA, PAD, SOFT, UNK, Tokenizer
from training.errors import BadInput

START_OF_TURN = "<start_of_turn>"

# What our control tokens are called in published vocabularies.
GEMMA_3 = {name: name for name in (START_OF_TURN, END_OF_TURN, *MEDIA[:2], SOFT[0])}
GEMMA_4 = {
    START_OF_TURN: "<|turn>",
    END_OF_TURN: "<turn|>",
    "<start_of_image>": "<|image>",
    "<end_of_image>": "<image|>",
    "<start_of_audio>": "<|audio>",
    "<end_of_audio>": "<audio|>",
    # A frame of a clip stands between the brackets of a picture.
    "<start_of_video>": "<|image>",
    "<end_of_video>": "<image|>",
    "<image_soft_token>": "<|image|>",
    "<audio_soft_token>": "<|audio|>",
    "<video_soft_token>": "<|video|>",
}


class GemmaTokenizer(Tokenizer):
    """Text to ids and back."""

    file_name = "tokenizer.json"

    def __init__(
        self,
        model: bytes,
        *,
        vocab_size: int,
        surroundings: Mapping[str, str] | None = None,
        stops: Sequence[int] = (EOS,),
    ):
        """Takes the bytes of a tokenizer.json.

        Args:
            model: the file.
            vocab_size: rows of the model's embedding, of which the last may stand for nothing.
            surroundings: what the chat template writes on either side of an "image", "audio" or "video".
            stops: ids that end a reply beside the end of turn.

        Raises:
            BadInput: when the bytes are no such file, or lack a control token of Gemma 3 or Gemma 4.
        """
        try:
            self._pieces = tokenizers.Tokenizer.from_buffer(model)
        except Exception as error:  # the library raises a bare Exception
            raise BadInput(f"tokenizer.json is no tokenizer: {error}") from error
        # What a user writes never becomes a control token.
        self._pieces.encode_special_tokens = True
        names = next((names for names in (GEMMA_4, GEMMA_3) if self._pieces.token_to_id(names[END_OF_TURN])), None)
        if names is None:
            raise BadInput("tokenizer.json has no end of turn as Gemma 3 or Gemma 4 know it")
        self._names = names
        numbers = {ours: self._pieces.token_to_id(theirs) for ours, theirs in names.items()}
        self._controls = {piece: number for piece, number in numbers.items() if number is not None}
        special = [self._pieces.token_to_id(piece) for piece in ("<pad>", "<eos>", "<bos>", "<unk>")]
        if special != [PAD, EOS, BOS, UNK] or self._pieces.get_vocab_size() > vocab_size:
            raise BadInput(f"tokenizer.json must have pad, eos, bos and unk first, and at most {vocab_size} pieces")
        self.model, self._rows = model, vocab_size
        self.surroundings = dict(surroundings or {})
        # What is never sampled ends nothing.
        self._stops = tuple(sorted({*stops} - {self.end_of_turn, *self.never_sampled}))

    @classmethod
    def read(cls, path: Path, *, vocab_size: int, settings: Mapping[str, Any] | None = None) -> "GemmaTokenizer":
        """Reads a tokenizer.json, with the settings that a checkpoint's config.json has for it."""
        settings = settings or {}
        surroundings, stops = settings.get("surroundings"), settings.get("stops", (EOS,))
        known = settings.keys() <= {"surroundings", "stops"} and _texts(surroundings) and _ids(stops, vocab_size)
        if not known:
            raise BadInput(f"{path} has settings in config.json that this version does not know: {settings!r:.80}")
        try:
            return cls(path.read_bytes(), vocab_size=vocab_size, surroundings=surroundings, stops=stops)
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}") from error

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint's config.json says of the tokenizer beside its file."""
        return {"surroundings": self.surroundings, "stops": list(self._stops)}

    @property
    def digest(self) -> str:
        """SHA-256 of file and settings."""
        return "sha256:" + hashlib.sha256(self.model + json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of ids, those among them that stand for nothing."""
        return self._rows

    @property
    def controls(self) -> dict[str, int]:
        """The ids of the control tokens that there are, by our names."""
        return self._controls

    def control(self, piece: str) -> int:
        """The id of a control token.

        Raises:
            BadInput: when published models of this kind have none.
        """
        if (number := self._controls.get(piece)) is None:
            raise BadInput(f"this model's vocabulary has no {piece}")
        return number

    @property
    def end_of_turn(self) -> int:
        """The id that ends a turn, and so a reply."""
        return self.control(END_OF_TURN)

    @property
    def stops(self) -> tuple[int, ...]:
        """Further ids that end a reply: a base model knows no end of turn, and ends a text instead."""
        return self._stops

    @property
    def soft_tokens(self) -> Media:
        """The ids that hold the places of soft tokens."""
        image, audio, video = ((number,) if (number := self._controls.get(piece)) else () for piece in SOFT)
        return Media(image + video, audio)

    @property
    def media(self) -> list[int]:
        """The ids that media take: brackets and soft tokens."""
        return [self._controls[piece] for piece in (*MEDIA, *SOFT) if piece in self._controls]

    @property
    def never_sampled(self) -> tuple[int, ...]:
        """Ids that no reply contains: media, padding, the beginning of a text, and rows without a piece.

        All other control tokens are the model's own to write, as those are between which it thinks.
        """
        empty = range(self._pieces.get_vocab_size(), self.vocab_size)
        return tuple(sorted({*self.media, *empty, PAD, BOS}))

    def opening(self, role: str) -> tuple[int, str]:
        """The token and the text before a turn's content; `role` is "system", "user" or "assistant".

        Raises:
            BadInput: for a system turn in Gemma 3, which has none.
        """
        if role == "system" and self._controls[START_OF_TURN] == self._pieces.token_to_id(START_OF_TURN):
            raise BadInput("Gemma 3 has no system turn; put what it says into the user's first turn")
        name = {"assistant": "model"}.get(role, role)
        return self.control(START_OF_TURN), f"{name}\n"

    def around(self, kind: str) -> str:
        """The text on either side of a medium in the chat template."""
        return self.surroundings.get(kind, "")

    def margin(self, kind: str) -> str:
        """What the processor of Gemma 3 adds on either side of a picture and of each crop of it."""
        return "\n\n" if kind == "image" and self._names is GEMMA_3 else ""

    def surrounded(self, surroundings: Mapping[str, str]) -> "GemmaTokenizer":
        """The same tokenizer with other texts around media."""
        changed = copy.copy(self)
        changed.surroundings = dict(surroundings)
        return changed

    @property
    def placeholders(self) -> dict[str, str]:
        """What a published chat template writes where a medium of each kind stands, for the processor to replace."""
        if self._names is GEMMA_3:
            return {"image": "<start_of_image>"}
        kinds = ("image", "audio", "video")
        return {kind: self._names[soft] for kind in kinds if (soft := f"<{kind}_soft_token>") in self._controls}

    @property
    def joins_texts(self) -> bool:
        """Published templates trim texts and join them to one string, which is encoded as a whole."""
        return True

    @property
    def after_turn(self) -> list[int]:
        """A line's end stands behind the end of a turn."""
        return self.encode("\n")

    def _ids(self, text: str) -> list[int]:
        return self._pieces.encode(text, add_special_tokens=False).ids

    def with_controls(self, ids: Iterable[int]) -> str:
        """The text of ids, control tokens by their published names."""
        return self._pieces.decode([int(i) for i in ids], skip_special_tokens=False)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; control tokens leave no trace."""
        return self._pieces.decode([int(i) for i in ids], skip_special_tokens=True)


def _texts(value: Any) -> bool:
    """Whether the value of a setting is one that `surroundings` may have."""
    pairs = value.items() if isinstance(value, Mapping) else ()
    return value is None or (isinstance(value, Mapping) and all(isinstance(x, str) for pair in pairs for x in pair))


def _ids(value: Any, vocab_size: int) -> bool:
    """Whether the value of a setting is a list of ids."""
    return isinstance(value, list | tuple) and all(type(number) is int and 0 <= number < vocab_size for number in value)
