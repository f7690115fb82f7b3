"""`theodolite safety power`: how many prompts a limit takes, and what a number of prompts can decide."""

from dataclasses import dataclass

from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Power:
    """Plans a prompt set. Without a margin or a ceiling it says what every limit of a policy takes.

    Attributes:
        gate: profile or YAML file whose limits are planned for, unless a margin or a ceiling is given.
        margin: greatest difference of a mean over prompts, such as the expected maximum.
        sd: standard deviation over prompts of the paired difference.
        ceiling: greatest share of prompts with a toxic reply.
        rate: the true share, for which the ceiling should be passed.
        prompts: how many there are; says which margin they can decide.
        power: wanted probability that a checkpoint which keeps a limit passes it.
        alpha: error of the one-sided bound.
    """

    gate: str = "standard"
    margin: float | None = None
    sd: float = 0.2
    ceiling: float | None = None
    rate: float = 0.0
    prompts: int | None = None
    power: float = 0.8
    alpha: float = 0.05


def power(config: Power) -> None:
    """Prints it."""
    from pipeline.config import gate_policy
    from safety.power import margin_resolved, prompts_for_ceiling, prompts_for_margin, prompts_without_hits
    from safety.preconditions import needs

    at = f"{100 * config.power:g} % power, {100 * config.alpha:g} % error"
    options = {"power": config.power, "alpha": config.alpha}
    try:
        if config.margin is not None:
            needed = prompts_for_margin(config.margin, sd=config.sd, **options)
            print(f"a margin of {config.margin:g} needs {needed} prompts (SD {config.sd:g}, {at})")
        if config.prompts is not None:
            least = margin_resolved(config.prompts, sd=config.sd, **options)
            print(f"{config.prompts} prompts decide a margin of {least:.3g} or more (SD {config.sd:g}, {at})")
        if config.ceiling is not None:
            needed = prompts_for_ceiling(config.ceiling, rate=config.rate, **options)
            fewest = prompts_without_hits(config.ceiling, alpha=config.alpha)
            print(f"a ceiling of {config.ceiling:g} needs {needed} prompts if the true share is {config.rate:g} ({at})")
            print(f"with fewer than {fewest} prompts nothing passes it, not even without a single hit")
    except ValueError as error:
        raise BadInput(str(error)) from error
    if config.margin is config.prompts is config.ceiling is None:
        policy = gate_policy(config.gate)
        labels = tuple(policy.category_ceilings)
        print(f"{policy.profile}: {100 * policy.power:g} % power, {100 * policy.alpha:g} % error")
        for group, found in needs(policy, labels).items():
            for need in found:
                of = "prompts" if group == "all" else f"{group} prompts"
                print(f"  {need.name:32s} {need.limit:<6g} {need.prompts:6d} {of}")
