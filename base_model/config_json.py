"""The shape of a decoder out of parsed JSON, with the encoders that stand in it."""

from base_model.config import UNNAMED, ClipsConfig, ExpertsSpec, LayerSpec, ModelConfig, TowerConfig
from base_model.towers import TOWERS
from training.errors import BadInput


def model_config_of(values: dict) -> ModelConfig:
    """What ModelConfig.to_json wrote, parsed, as a config again.

    Raises:
        BadInput: for a field that is missing, unknown or of a wrong shape.
    """
    try:
        values = dict(values)
        values["layers"] = tuple(_layer(layer) for layer in values["layers"])
        for name in ("vision", "audio"):
            if tower := values.get(name):
                values[name] = _tower(tower)
        values["clips"] = ClipsConfig(**values.get("clips", {}))
        return ModelConfig(**values)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise BadInput(f"config.json does not describe a model that this version knows: {error}") from error


def _layer(values: dict) -> LayerSpec:
    experts = values.get("experts")
    return LayerSpec(**{**values, "experts": None if experts is None else ExpertsSpec(**experts)})


def _tower(values: dict) -> TowerConfig:
    values = dict(values)
    kind = values.get("kind", UNNAMED)
    known = {config.KIND: config for config in TOWERS}
    if kind not in known:
        raise BadInput(f"config.json: an encoder's kind is one of {', '.join(known)}, not {kind!r:.40}")
    listed = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return known[kind](**{name: value for name, value in listed.items() if name != "kind"})
