import numpy as np
import pytest

from base_model.config import LayerSpec, ModelConfig
from base_model.gemma4_vision import Gemma4VisionConfig, prepare, soft_tokens
from base_model.image_budget import with_image_budget
from base_model.patches import PatchesConfig
from base_model.siglip import SiglipConfig
from base_model.vision import VisionConfig
from training.errors import BadInput


def model(vision):
    layer = LayerSpec(heads=1, kv_heads=1, head_dim=8, mlp_dim=8)
    return ModelConfig(vocab_size=8, embed_dim=8, layers=(layer,), vision=vision)


@pytest.mark.parametrize(("budget", "count"), [(70, 66), (140, 120), (280, 264), (560, 527), (1120, 1100)])
def test_a_budget_is_spent_on_a_picture(budget, count):
    config = with_image_budget(model(Gemma4VisionConfig()), budget).vision
    assert soft_tokens(prepare(np.zeros((1080, 1920, 3), np.uint8), config), config) == count
    assert with_image_budget(model(PatchesConfig()), budget).vision == PatchesConfig(max_soft_tokens=budget)


@pytest.mark.parametrize("vision", [None, VisionConfig(), SiglipConfig()])
def test_models_whose_pictures_all_cost_the_same_have_no_budget(vision):
    with pytest.raises(BadInput, match="image_tokens needs a model that keeps the shape of pictures"):
        with_image_budget(model(vision), 140)


@pytest.mark.parametrize("budget", [0, 69, 1121])
def test_a_budget_out_of_bounds_is_refused(budget):
    with pytest.raises(BadInput, match=f"from 70 to 1120, not {budget}"):
        with_image_budget(model(PatchesConfig()), budget)
