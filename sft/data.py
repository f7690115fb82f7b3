"""Rows to examples for supervised fine-tuning."""

from collections.abc import Sequence

from base_model.chat import messages_to_segments, reply_messages
from base_model.checkpoint import LanguageModel
from base_model.interleave import Example, interleave, require_read, require_slots, truncate
from sft.config import SFTConfig
from training.dataset import Row, convert_rows
from training.errors import BadInput


def sft_examples(
    rows: Sequence[Row], model: LanguageModel, config: SFTConfig, *, slots: tuple[int, int] | None = None
) -> list[Example]:
    """Conversational (`messages`) or `prompt` / `completion` rows as examples.

    The loss stands on the assistant's tokens and their ends of turn (on every token without assistant_only_loss); of a
    prompt / completion row only the completion is learned.

    Text beyond max_length or the model's context is cut off; a picture never is.

    Args:
        rows: the rows.
        model: for its tokenizer and its encoder of pictures.
        config: options.
        slots: pictures and sounds of a row at most, where rows are to be packed.

    Raises:
        BadInput: with the place of the first row that has neither form, whose picture would be cut, that has too many
            pictures or nothing to learn.
    """
    context = model.config.max_context
    length, option = min((config.max_length, "max_length"), (context, "the model's context"), key=lambda most: most[0])

    def convert(row: Row) -> Example:
        values = row.values
        loss_on = "assistant" if config.assistant_only_loss else "all"
        if values.get("messages"):
            messages = values["messages"]
        elif "prompt" in values and "completion" in values:
            messages, loss_on = reply_messages(values["prompt"], values["completion"]), "last"
        else:
            given = ", ".join(values) or "nothing"
            raise BadInput(f"a row needs `messages`, or `prompt` and `completion`; this one has {given}")
        segments = messages_to_segments(messages, model.tokenizer, folder=row.folder, loss_on=loss_on)
        whole = interleave(segments, model.tokenizer, model.config)
        require_read(values, [whole], model.tokenizer)
        example = truncate(whole, length, model.tokenizer, option)
        require_slots([example.media], slots)
        if not example.learn.any():
            raise BadInput(f"a row has no assistant message to learn from within {option} ({length})")
        return example

    return convert_rows(rows, convert, on_bad_row=config.on_bad_row)
