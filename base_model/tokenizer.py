"""SentencePiece text tokenizer whose control tokens cannot be spelled by a user."""

import hashlib
import io
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece

from base_model.image_codes import ImageCodes
from base_model.media import Media
from training.errors import BadInput

PAD, EOS, BOS, UNK = 0, 1, 2, 3

# Control symbols in SentencePiece's sense: they have an id, and no text encodes to them.
SYSTEM, USER, MODEL, END_OF_TURN = "<system>", "<user>", "<model>", "<end_of_turn>"
ROLES = {"system": SYSTEM, "user": USER, "assistant": MODEL}
MEDIA = tuple(f"<{edge}_of_{kind}>" for kind in ("image", "audio", "video") for edge in ("start", "end"))
SOFT = ("<image_soft_token>", "<audio_soft_token>", "<video_soft_token>")
CONTROLS = (SYSTEM, USER, MODEL, END_OF_TURN, *MEDIA, *SOFT)


class Tokenizer:
    """Text to ids and back."""

    file_name = "tokenizer.model"

    def __init__(self, model: bytes):
        """Takes the bytes of a tokenizer.model file.

        Raises:
            BadInput: when the bytes are no SentencePiece model or lack a control token.
        """
        try:
            # No bytes at all would give a processor without a model.
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model or b"empty")
        except (RuntimeError, OSError, ValueError) as error:  # a ValueError when a message quotes damaged bytes
            raise BadInput(f"tokenizer.model is not a SentencePiece model: {error}") from error
        self.model = model
        missing = [piece for piece in CONTROLS if self._pieces.piece_to_id(piece) == self._pieces.unk_id()]
        if missing:
            raise BadInput(f"tokenizer.model has no control token {', '.join(missing)}: train one with this version")
        pieces = self._pieces
        if (pieces.pad_id(), pieces.eos_id(), pieces.bos_id(), pieces.unk_id()) != (PAD, EOS, BOS, UNK):
            raise BadInput(f"tokenizer.model must have pad, eos, bos and unk at {PAD}, {EOS}, {BOS} and {UNK}")

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Reads a tokenizer.model file."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}") from error

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int) -> "Tokenizer":
        """Trains a unigram model with byte fallback: every text survives a round trip.

        One character does not: SentencePiece writes a space as U+2581, so that one comes back as a space.

        Args:
            texts: a sample of the whole corpus.
            vocab_size: number of ids, the control tokens among them.
        """
        out = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=out,
                model_type="unigram",
                vocab_size=vocab_size,
                byte_fallback=True,
                split_digits=True,
                allow_whitespace_only_pieces=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                character_coverage=0.9995,
                pad_id=PAD,
                eos_id=EOS,
                bos_id=BOS,
                unk_id=UNK,
                control_symbols=list(CONTROLS),
                num_threads=2,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise BadInput(f"the tokenizer could not be trained with {vocab_size} pieces: {error}") from error
        return cls(out.getvalue())

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._pieces.vocab_size()

    @property
    def digest(self) -> str:
        """SHA-256 of the model file."""
        return "sha256:" + hashlib.sha256(self.model).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint's config.json says of the tokenizer beside its file."""
        return {}

    @property
    def controls(self) -> dict[str, int]:
        """The ids of the control tokens."""
        return {piece: self.control(piece) for piece in CONTROLS}

    def control(self, piece: str) -> int:
        """The id of a control token."""
        return self._pieces.piece_to_id(piece)

    def opening(self, role: str) -> tuple[int, str]:
        """The token and the text before a turn's content; `role` is "system", "user" or "assistant"."""
        return self.control(ROLES[role]), ""

    def around(self, kind: str) -> str:
        """The text on either side of a medium; `kind` is "image", "audio" or "video"."""
        return ""

    def margin(self, kind: str) -> str:
        """The text on either side of a medium and of each crop of a picture, inside of `around`."""
        return ""

    @property
    def joins_texts(self) -> bool:
        """Whether the texts of a turn lose the blanks at their ends, and neighbours are encoded as one text."""
        return False

    @property
    def after_turn(self) -> list[int]:
        """What stands behind the end of a turn."""
        return []

    @property
    def end_of_turn(self) -> int:
        """The id that ends a turn, and so a reply."""
        return self.control(END_OF_TURN)

    @property
    def stops(self) -> tuple[int, ...]:
        """Further ids that end a reply."""
        return ()

    @property
    def soft_tokens(self) -> Media:
        """The ids that hold the places of soft tokens."""
        image, audio, video = (self.control(piece) for piece in SOFT)
        return Media((image, video), (audio,))

    @property
    def media(self) -> list[int]:
        """The ids that media take: brackets and soft tokens."""
        return [self.control(piece) for piece in (*MEDIA, *SOFT)]

    @property
    def image_codes(self) -> ImageCodes | None:
        """Where the codes of pictures stand; None if the vocabulary has none."""
        return None

    @property
    def never_sampled(self) -> tuple[int, ...]:
        """Ids that no reply contains: soft tokens, brackets, roles, padding; all but text and the end of turn."""
        controls = {self.control(piece) for piece in CONTROLS if piece != END_OF_TURN}
        return tuple(sorted(controls | {PAD, EOS, BOS, UNK}))

    def encode(self, text: str) -> list[int]:
        """The ids of a text; control tokens that it spells are ordinary characters.

        Raises:
            BadInput: for half a surrogate pair, which JSON can spell and UTF-8 cannot.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"a text holds half a surrogate pair at character {error.start}: {text[:40]!a}") from error
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return self._pieces.encode(text)

    def with_controls(self, ids: Iterable[int]) -> str:
        """The text of ids, control tokens by their names."""
        text = ""
        for control, run in itertools.groupby(map(int, ids), lambda i: self._pieces.is_control(i) or i == UNK):
            numbers = list(run)
            text += "".join(map(self._pieces.id_to_piece, numbers)) if control else self._pieces.decode(numbers)
        return text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; control tokens leave no trace."""
        return self._pieces.decode([int(i) for i in ids])
