"""Rows with a prompt to examples that a policy continues."""

from collections.abc import Sequence

from base_model.chat import messages_to_segments
from base_model.checkpoint import LanguageModel
from base_model.interleave import Example, interleave, require_fits, require_read
from training.dataset import Row, convert_rows
from training.errors import BadInput


def prompt_examples(
    rows: Sequence[Row], model: LanguageModel, *, max_length: int, on_bad_row: str = "stop"
) -> list[Example]:
    """Each row's `prompt` (messages, or one user turn as a string), ending in an open assistant turn.

    Raises:
        BadInput: with the place of the first row without a prompt or with one beyond max_length.
    """

    def convert(row: Row) -> Example:
        prompt = row.values.get("prompt")
        if not prompt:
            raise BadInput(f"a row needs a `prompt`; this one has {', '.join(row.values) or 'nothing'}")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        segments = messages_to_segments(messages, model.tokenizer, folder=row.folder, ending="reply")
        example = interleave(segments, model.tokenizer, model.config)
        require_read(row.values, [example], model.tokenizer)
        return require_fits(example, max_length, "max_prompt_length")

    return convert_rows(rows, convert, on_bad_row=on_bad_row)
