"""The loop on which pretraining, SFT, the reward model and PPO stand; it knows no model."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from training.checkpoint import StateStore
from training.config import TrainingConfig
from training.errors import BadInput, TheodoliteError
from training.metrics import MetricsWriter
from training.progress import progress
from training.step import TrainState

StepFunction = Callable[[TrainState, int], tuple[TrainState, Mapping[str, Any]]]
"""Maps the state and the step's number to the next state and its metrics. Data and random keys follow from the number
alone, so that nothing but the state has to be saved for an exact resume."""


class Probe(NamedTuple):
    """A look at a state while it trains, that training does not depend on.

    Attributes:
        steps: measure every so many steps, and at the end.
        measure: what is found of a state; logged as `probe_<name>`.
    """

    steps: int
    measure: Callable[[TrainState], Mapping[str, float]]


def probe_of(
    steps: int, measure: Callable[[Any], Mapping[str, float]] | None, model_of: Callable[[TrainState], Any]
) -> Probe | None:
    """A probe of the model that a state holds; None if none is asked for.

    Raises:
        BadInput: one is asked for and there is none.
    """
    if not steps:
        return None
    if measure is None:
        raise BadInput(f"probe_steps is {steps}, and the trainer was given no probe: pass probe=, or probe_steps=0")
    return Probe(steps, lambda state: measure(model_of(state)))


class Diverged(TheodoliteError):
    """The loss or the gradient is not a number; the last saved state is still good."""


def fit(
    state: TrainState,
    step: StepFunction,
    *,
    total_steps: int,
    config: TrainingConfig,
    folder: Path,
    label: str,
    identity: str,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    ended: Callable[[TrainState], bool] = lambda _: False,
    probe: Probe | None = None,
) -> TrainState:
    """Runs `step` until `total_steps` or until `ended`, from the newest saved state in `folder` if there is one.

    Args:
        state: the state to start from when nothing was saved.
        step: one step, see StepFunction.
        total_steps: where to stop.
        config: how often to evaluate and save.
        folder: gets metrics.jsonl, TensorBoard events and state/.
        label: name on the progress bar.
        identity: digest of what the run depends on; a saved state of another identity is refused.
        evaluate: held-out metrics of a state; logged as `eval_<name>`.
        ended: whether a state is the last one, before `total_steps`.
        probe: see there.

    Raises:
        BadInput: when the folder holds the state of another run.
        Diverged: when a metric called loss or grad_norm is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = StateStore(folder / "state", keep=config.save_total_limit)
    try:
        start = store.latest()
        if start is not None:
            # Only the shapes of the state that was made: it would lie on the devices beside the one that is read.
            state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
            state, meta = store.restore(start, state)
            if meta.get("identity") != identity:
                raise BadInput(
                    f"{folder} holds the state of a run with other options, data or parent; "
                    "choose another output folder, or delete it to start over"
                )
        start = start or 0
        bar = progress(label, total=total_steps, done=start)
        with MetricsWriter(folder, after_step=start) as writer, bar as advance:
            pending: tuple[int, Mapping[str, Any]] | None = None
            for index in range(start, 0 if ended(state) else total_steps):
                state, metrics = step(state, index)
                # Fetch the step before while this one runs: waiting for it here would leave the device idle.
                if pending is not None:
                    _record(writer, advance, *pending)
                done = index + 1
                pending = (done, metrics)
                last = done == total_steps or ended(state)
                due = last or (config.eval_steps > 0 and done % config.eval_steps == 0)
                if evaluate is not None and due:
                    metrics = {**metrics, **{f"eval_{name}": value for name, value in evaluate(state).items()}}
                    pending = (done, metrics)
                if probe is not None and (last or done % probe.steps == 0):
                    metrics = {**metrics, **{f"probe_{name}": value for name, value in probe.measure(state).items()}}
                    pending = (done, metrics)
                # Record before saving: a state whose loss is not finite must never become the one to resume from.
                if last or (config.save_steps > 0 and done % config.save_steps == 0):
                    _record(writer, advance, *pending)
                    pending = None
                    store.save(done, state, {"identity": identity})
                if last:
                    break
    finally:
        store.close()
    return state


def _record(writer: MetricsWriter, advance: Callable[..., None], step: int, metrics: Mapping[str, Any]) -> None:
    values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
    for name in ("loss", "grad_norm"):
        if name in values and not math.isfinite(values[name]):
            writer.write(step, values)
            raise Diverged(
                f"{name} is {values[name]} at step {step}; the run stops here and the last saved state is kept. "
                "Lower learning_rate or max_grad_norm, or look for bad rows, and start the command again"
            )
    writer.write(step, values)
    shown = {name: value for name, value in values.items() if name in ("loss", "score", "accuracy", "kl")}
    advance(1, **shown)
