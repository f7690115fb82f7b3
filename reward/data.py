"""Preference rows to pairs of examples."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from base_model.chat import messages_to_segments, reply_messages
from base_model.checkpoint import LanguageModel
from base_model.interleave import Example, interleave_all, kinds, require_fits, require_read, require_slots
from training.dataset import Row, convert_rows
from training.errors import BadInput

# Speaker marks of Anthropic's hh-rlhf transcripts.
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two replies to one prompt, the better one first.

    Attributes:
        chosen: prompt and preferred reply, up to the reply's end of turn; `learn` marks the reply.
        rejected: prompt and the other reply.
        margin: by how much the chosen one should lead.
        source: where the pair comes from, for figures by source.
        modality: what decides the pair: the row's own word, or "image", "video" or "audio" when the prompt has such a
            thing ("image+audio" for both), else "text".
    """

    chosen: Example
    rejected: Example
    margin: float
    source: str
    modality: str

    def __len__(self) -> int:
        """Tokens of both."""
        return len(self.chosen) + len(self.rejected)


def preference_pairs(
    rows: Sequence[Row],
    model: LanguageModel,
    *,
    max_length: int,
    slots: tuple[int, int] | None = None,
    on_bad_row: str = "stop",
) -> list[Pair]:
    """Rows with `chosen` and `rejected` (and `prompt`, unless they are whole conversations or transcripts) as pairs.

    Args:
        rows: the rows.
        model: for its tokenizer and its encoder of pictures.
        max_length: tokens of a pair at most.
        slots: pictures and sounds of a pair at most, where pairs are to be packed.
        on_bad_row: stop, or skip.

    Raises:
        BadInput: with the place of the first row that is no pair or does not fit.
    """

    def convert(row: Row) -> Pair:
        texts = [
            messages_to_segments(
                _conversation(row.values, side), model.tokenizer, folder=row.folder, loss_on="last", ending="turn"
            )
            for side in ("chosen", "rejected")
        ]
        chosen, rejected = interleave_all(texts, model.tokenizer, model.config)
        require_read(row.values, [chosen, rejected], model.tokenizer)
        if len(chosen) + len(rejected) > max_length:
            raise BadInput(
                f"a pair of {len(chosen)} and {len(rejected)} tokens does not fit in max_length ({max_length}); "
                "raise it or shorten the row"
            )
        for text in (chosen, rejected):
            require_fits(text, model.config.max_context, "the model's context")
        require_slots([chosen.media, rejected.media], slots)
        margin = row.values.get("margin")
        # JSON knows numbers of any size, and Python's reader Infinity too; a loss would make NaN of them.
        if margin is not None and not (type(margin) in (int, float) and 0 <= margin <= 1e6):
            raise BadInput(f"a margin is a number from 0 to 1e6, not {margin!r:.40}")
        return Pair(
            chosen=chosen,
            rejected=rejected,
            margin=float(margin or 0),
            source=str(row.values.get("source", "unnamed")),
            modality=str(row.values.get("modality") or "+".join(kinds(chosen, model.tokenizer)) or "text"),
        )

    return convert_rows(rows, convert, on_bad_row=on_bad_row)


def _conversation(values: Mapping[str, Any], side: str) -> list[Mapping[str, Any]]:
    reply = values.get(side)
    if not reply:
        raise BadInput(f"a preference row needs `{side}`; this one has {', '.join(values) or 'nothing'}")
    if "prompt" in values:
        return reply_messages(values["prompt"], reply)
    return reply_messages([], parse_transcript(reply) if isinstance(reply, str) else reply)


def parse_transcript(text: str) -> list[Mapping[str, Any]]:
    r"""An hh-rlhf transcript, "\n\nHuman: ...\n\nAssistant: ...", as messages.

    Raises:
        BadInput: when it does not start with a speaker mark.
    """
    before, *turns = _TURN.split(text)
    if before.strip() or not turns:
        raise BadInput(f"a transcript starts with a blank line and 'Human:' or 'Assistant:', not {text[:40]!r}")
    pairs = zip(turns[::2], turns[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": said.strip()} for speaker, said in pairs]
