"""A tokenizer for a model that draws: that of its text, with the codes of an image tokenizer behind the last id."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import UInt8

from base_model.image_codes import ImageCodes
from base_model.image_tokenizer import ImageTokenizer
from base_model.media import Media
from base_model.tokenizer import Tokenizer
from training.errors import BadInput

BRACKETS = "<start_of_image>", "<end_of_image>"
# The field of a published config.json that says what `described_codes` does.
CODES = "image_codes"


class DrawingTokenizer(Tokenizer):
    """Text and pictures to ids and back."""

    def __init__(self, text: Tokenizer, images: ImageTokenizer):
        """Puts the two together.

        Args:
            text: its ids stay as they are.
            images: its codes become the ids behind them.
        """
        self.text, self.images = text, images
        self.model, self.file_name = text.model, text.file_name

    @property
    def vocab_size(self) -> int:
        """Number of ids, codes among them."""
        return self.text.vocab_size + self.images.config.codes

    @cached_property
    def digest(self) -> str:
        """SHA-256 over both digests: models that score one another must mean the same picture by the same codes."""
        return "sha256:" + hashlib.sha256((self.text.digest + self.images.digest).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint's config.json says of the tokenizer beside its file."""
        return self.text.settings

    @cached_property
    def image_codes(self) -> ImageCodes:
        """Where the codes stand."""
        begin, end = map(self.control, BRACKETS)
        sizes = self.images.config
        return ImageCodes(begin, end, self.text.vocab_size, sizes.codes, sizes.length)

    @property
    def described_codes(self) -> dict[str, Any]:
        """Ids and image tokenizer of the codes, for a config.json."""
        return {**self.image_codes._asdict(), "tokenizer": self.images.digest}

    @property
    def never_sampled(self) -> tuple[int, ...]:
        """Ids that no reply contains: those of the text but for the brackets, which pictures need."""
        brackets = self.image_codes.begin, self.image_codes.end
        return tuple(number for number in self.text.never_sampled if number not in brackets)

    def draw(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[int]:
        """The ids of a picture that the model says: codes between brackets."""
        begin, end, first, *_ = self.image_codes
        return [begin, *(first + code for code in self.images.encode(picture)), end]

    def pictures(self, ids: Iterable[int]) -> list[UInt8[np.ndarray, "S S 3"]]:
        """The whole pictures among the ids of a reply, which may begin inside of one."""
        begin, end, first, count, length = self.image_codes
        found, open_codes = [], []
        for number in map(int, ids):
            if first <= number < first + count:
                open_codes.append(number - first)
            elif number == end and len(open_codes) == length:
                found.append(self.images.decode(open_codes))
            if not first <= number < first + count:
                open_codes = []
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; control tokens and pictures leave no trace."""
        return self.text.decode(number for number in ids if number < self.text.vocab_size)

    @property
    def controls(self) -> dict[str, int]:
        """The ids of the control tokens."""
        return self.text.controls

    def control(self, piece: str) -> int:
        """The id of a control token."""
        return self.text.control(piece)

    def opening(self, role: str) -> tuple[int, str]:
        """The token and the text before a turn's content."""
        return self.text.opening(role)

    def around(self, kind: str) -> str:
        """The text on either side of a medium."""
        return self.text.around(kind)

    def margin(self, kind: str) -> str:
        """The text on either side of a medium and of each crop of a picture."""
        return self.text.margin(kind)

    @property
    def joins_texts(self) -> bool:
        """Whether the texts of a turn lose the blanks at their ends, and neighbours are encoded as one text."""
        return self.text.joins_texts

    @property
    def after_turn(self) -> list[int]:
        """What stands behind the end of a turn."""
        return self.text.after_turn

    @property
    def end_of_turn(self) -> int:
        """The id that ends a turn, and so a reply."""
        return self.text.end_of_turn

    @property
    def stops(self) -> tuple[int, ...]:
        """Further ids that end a reply."""
        return self.text.stops

    @property
    def soft_tokens(self) -> Media:
        """The ids that hold the places of soft tokens."""
        return self.text.soft_tokens

    @property
    def media(self) -> list[int]:
        """The ids that media take: brackets and soft tokens."""
        return self.text.media

    def with_controls(self, ids: Iterable[int]) -> str:
        """The text of ids, control tokens by their names; pictures leave no trace."""
        return self.text.with_controls(number for number in ids if number < self.text.vocab_size)

    def _ids(self, text: str) -> list[int]:
        return self.text._ids(text)


def require_drawing(tokenizer: Tokenizer) -> DrawingTokenizer:
    """The tokenizer, of a model that draws.

    Raises:
        BadInput: when its vocabulary has no codes of pictures.
    """
    if not isinstance(tokenizer, DrawingTokenizer):
        raise BadInput("this model does not draw: its vocabulary has no codes of pictures; choose one that was "
                       "pretrained with an image tokenizer")
    return tokenizer
