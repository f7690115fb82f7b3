"""`theodolite safety power`: how many prompts a limit takes, and whether there are enough of them."""

from dataclasses import dataclass

from training.errors import BadInput, GateInconclusive

SD, POWER, ALPHA = 0.2, 0.8, 0.05


@dataclass(frozen=True, kw_only=True)
class Power:
    """Plans a prompt set. Without a margin, a ceiling or prompts it says what every limit of a policy takes.

    Attributes:
        gate: profile or YAML file whose limits are planned for, with its own power, error and deviations; standard if
            nothing else is given.
        margin: greatest difference of a mean over prompts, such as the expected maximum.
        sd: standard deviation over prompts of the paired difference; 0.2 without it.
        ceiling: greatest share of prompts with a toxic reply.
        rate: the true share, for which the ceiling should be passed; 0 without it.
        prompts: how many there are, for a gate half of them toxic. If a limit takes more, the exit code is 4; without
            any limit it is said which margin they decide.
        power: wanted probability that a checkpoint which keeps a limit passes it; 0.8 without it.
        alpha: error of the one-sided bound; 0.05 without it.
    """

    gate: str | None = None
    margin: float | None = None
    sd: float | None = None
    ceiling: float | None = None
    rate: float | None = None
    prompts: int | None = None
    power: float | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        """Refuses options that would change nothing."""
        given = {name for name, value in vars(self).items() if value is not None}
        if "gate" in given or not given & {"margin", "ceiling", "prompts"}:
            dead, why = given - {"gate", "prompts"}, "a gate's policy has limits, power, error and deviations"
        else:
            dead = given & ({"rate"} if "ceiling" not in given else set() if "margin" in given else {"sd"})
            why = "a ceiling is planned with a rate, a margin with a deviation"
        if dead:
            raise BadInput(f"{', '.join(sorted(dead))} would change nothing here: {why}; leave it out")


def power(config: Power) -> None:
    """Prints it.

    Raises:
        GateInconclusive: there are fewer prompts than a limit takes.
    """
    try:
        found = _limits(config) if config.gate is None and _planned(config) else _gate(config)
    except ValueError as error:
        raise BadInput(str(error)) from error
    short = {name: (needed, have) for name, needed, have in found if have is not None and have < needed}
    if short:
        name, (needed, have) = max(short.items(), key=lambda item: item[1][0] / max(1, item[1][1]))
        raise GateInconclusive(
            f"too few prompts for {len(short)} of the limits: {name} takes {needed}, there are {have}"
        )


def _planned(config: Power) -> bool:
    return any(value is not None for value in (config.margin, config.ceiling, config.prompts))


def _limits(config: Power) -> list[tuple[str, int, int | None]]:
    """Prints what a margin and a ceiling take; returns each with the prompts that it takes and those there are."""
    from safety.power import margin_resolved, prompts_for_ceiling, prompts_for_margin, prompts_without_hits

    power, alpha, sd = (
        default if value is None else value
        for value, default in ((config.power, POWER), (config.alpha, ALPHA), (config.sd, SD))
    )
    at, options = f"{100 * power:g} % power, {100 * alpha:g} % error", {"power": power, "alpha": alpha}
    found: list[tuple[str, int, int | None]] = []
    if config.margin is not None:
        needed = prompts_for_margin(config.margin, sd=sd, **options)
        print(f"a margin of {config.margin:g} needs {needed} prompts (SD {sd:g}, {at})")
        found.append((f"a margin of {config.margin:g}", needed, config.prompts))
    if config.ceiling is not None:
        rate = config.rate or 0.0
        needed = prompts_for_ceiling(config.ceiling, rate=rate, **options)
        fewest = prompts_without_hits(config.ceiling, alpha=alpha)
        print(f"a ceiling of {config.ceiling:g} needs {needed} prompts if the true share is {rate:g} ({at})")
        print(f"with fewer than {fewest} prompts nothing passes it, not even without a single hit")
        found.append((f"a ceiling of {config.ceiling:g}", needed, config.prompts))
    if config.prompts is not None and config.ceiling is None:
        least = margin_resolved(config.prompts, sd=sd, **options)
        print(f"{config.prompts} prompts decide a margin of {least:.3g} or more (SD {sd:g}, {at})")
    return found


def _gate(config: Power) -> list[tuple[str, int, int | None]]:
    """The same of every limit of a policy; how many prompts there are of its further sets only the sets know."""
    from pipeline.config import gate_policy
    from safety.preconditions import needs

    policy, there = gate_policy(config.gate or "standard"), dict[str, int]()
    if config.prompts is not None:
        if config.prompts < 2:
            raise BadInput(f"a gate wants toxic and non-toxic prompts, so at least 2, not {config.prompts}")
        there = {"all": config.prompts, "toxic": config.prompts // 2, "non-toxic": config.prompts // 2}
    print(f"{policy.profile}: {100 * policy.power:g} % power, {100 * policy.alpha:g} % error")
    found: list[tuple[str, int, int | None]] = []
    for group, needed in needs(policy, tuple(policy.category_ceilings)).items():
        for need in needed:
            of = {"all": "prompts", "unprompted": "generations"}.get(group, f"{group} prompts")
            have = there.get(group)
            short = f", {need.prompts - have} too few" if have is not None and have < need.prompts else ""
            print(f"  {need.name:32s} {need.limit:<6g} {need.prompts:6d} {of}{short}")
            found.append((f"{need.name} {need.limit:g}", need.prompts, have))
    return found
