"""A model learns to draw four pictures by name, from rows in which the assistant shows them."""

from dataclasses import replace
from pathlib import Path

import drawings
import pytest
from tiny_world import one_layer, turn

from base_model.chat import messages_to_segments
from base_model.drawing import draw_pictures
from base_model.interleave import interleave
from sft.config import SFTConfig
from sft.train import SFTTrainer


def test_pictures_are_drawn_by_name(tiny_model, image_tokenizer, tmp_path):
    model = drawings.drawing(one_layer(tiny_model), image_tokenizer)
    config = SFTConfig(
        output_dir=str(tmp_path), max_length=48, packing=False, per_device_train_batch_size=4, max_steps=80,
        learning_rate=2e-2,
    )  # fmt: skip
    trainer = SFTTrainer(model, config, drawings.drawing_rows(), drawings.drawing_rows())

    def drawn(model):
        prompts = [
            interleave(
                messages_to_segments([turn(name)], model.tokenizer, folder=Path(), ending="reply"),
                model.tokenizer, model.config,
            )
            for name in drawings.PICTURES
        ]  # fmt: skip
        return [pictures[0] for pictures in draw_pictures(model, prompts, temperature=0)]

    assert [drawings.nearest(picture) for picture in drawn(model)] != list(drawings.PICTURES)
    assert trainer.train()["exact_match"] == pytest.approx(1), "every code, and the brackets around them"
    assert [drawings.nearest(picture) for picture in drawn(trainer.model)] == list(drawings.PICTURES)
    assert replace(trainer.model).tokenizer.image_codes == model.tokenizer.image_codes
