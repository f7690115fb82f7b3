"""What a trained stage was made of, as the ledger keeps it: options, data and parents."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import ledger
from pipeline.config import RunConfig
from pipeline.quarantine import checkpoint_of
from pipeline.run_folder import RunFolder
from training.errors import BadInput

_DATA = {
    "sft": ("sft", "sft_held_out"),
    "reward": ("preferences", "preferences_held_out"),
    "ppo": ("ppo_prompts",),
}


def recipe(config: RunConfig, stage: str) -> dict[str, Any]:
    """The options of a stage on which its checkpoint depends, and the names of its data."""
    names = _DATA[stage] + (("sft",) if stage == "ppo" and config.ppo.ptx_coef else ())
    data = {f"data.{name}": getattr(config.data, name) for name in names}
    return {f"{stage}.{name}": value for name, value in getattr(config, stage).recipe().items()} | data


def made(folder: RunFolder, stage: str) -> Mapping[str, Any] | None:
    """The ledger's last event about the making of a stage's checkpoint: "trained", or "adopted" from elsewhere."""
    if not folder.ledger.exists():
        return None
    events = [event for event in ledger.verify(folder.ledger) if event.get("stage") == stage]
    return next((event for event in reversed(events) if event["event"].endswith(("trained", "adopted"))), None)


def require_same(config: RunConfig, folder: RunFolder, stages: Sequence[str]) -> None:
    """Refuses options that differ from those which a stage of the folder was trained with.

    Raises:
        BadInput: naming the options, then and now.
    """
    for stage in stages:
        event = made(folder, stage)
        if event is None or "recipe" not in event or not checkpoint_of(folder, stage).exists():
            continue
        then, now = event["recipe"], recipe(config, stage)
        changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        if changed:
            what = ", ".join(f"{name} was {then.get(name)!r} and is {now.get(name)!r}" for name in changed)
            raise BadInput(
                f"{stage} in {folder.path} was trained with other options: {what}. Choose another folder with out=DIR, "
                f"or delete {folder.stage(stage).path} to train it again"
            )
