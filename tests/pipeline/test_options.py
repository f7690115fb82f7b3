import dataclasses
import enum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import options
from training.errors import BadInput


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO:
    """The policy's update.

    Attributes:
        kl_coef: Weight of the KL penalty.
        mode: How to whiten.
        steps: Number of updates.
    """

    kl_coef: float = 0.05
    mode: Literal["rewards", "none"] = "rewards"
    steps: int = 3

    def __post_init__(self) -> None:
        if self.kl_coef < 0:
            raise BadInput(f"kl_coef must be at least 0, was {self.kl_coef}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """A whole stage.

    Attributes:
        out: The run folder.
        seed: Seed of everything random.
        from_: The first stage.
    """

    out: Path
    seed: int = 0
    name: str = "x"
    from_: str | None = None
    quiet: bool = False
    sizes: tuple[int, ...] = (1, 2)
    colour: Colour = Colour.RED
    mixture: dict[str, float] = dataclasses.field(default_factory=dict)
    ppo: PPO = dataclasses.field(default_factory=lambda: PPO(kl_coef=7.0))
    spare: PPO | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError("seed must be at least 0")


def build(*arguments: str, positional: str | None = None) -> Train:
    return options.parse(Train, arguments, positional=positional)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ppo.kl_coef=0.02"],
        ["--ppo.kl_coef=0.02"],
        ["--ppo.kl_coef", "0.02"],
        ["--ppo.kl-coef=2e-2"],
        ["ppo={kl_coef: 2e-2}"],
    ],
)
def test_three_ways_to_write_an_override(arguments: list[str]) -> None:
    assert build("out=a", *arguments) == Train(out=Path("a"), ppo=PPO(kl_coef=0.02))


def test_an_untouched_group_keeps_the_default_of_its_field() -> None:
    assert build("out=a").ppo.kl_coef == 7.0
    assert build("out=a", "ppo.steps=9").ppo == PPO(kl_coef=7.0, steps=9)


def test_values_of_every_kind() -> None:
    texts = ("out=a", "name=1e-3", "from=sft", "--quiet", "sizes=[3,4]", "colour=BLUE", "mixture={text: 1e-3}")
    config = build(*texts, "spare.steps=4")
    assert config == Train(
        out=Path("a"),
        name="1e-3",
        from_="sft",
        quiet=True,
        sizes=(3, 4),
        colour=Colour.BLUE,
        mixture={"text": 0.001},
        spare=PPO(steps=4),
    )


def test_negative_numbers_and_explicit_booleans_after_a_space() -> None:
    config = build("--out", "a", "--ppo.kl_coef", "1", "--quiet", "false", "--name", "-5")
    assert (config.ppo.kl_coef, config.quiet, config.name) == (1.0, False, "-5")


def test_null_clears_and_a_later_member_brings_the_group_back() -> None:
    assert build("out=a", "from=null").from_ is None
    assert build("out=a", "name=null").name == "null"
    assert build("out=a", "spare.steps=4", "spare=null").spare is None
    assert build("out=a", "spare=null", "spare.steps=4").spare == PPO(steps=4)


def test_overrides_win_over_files_and_later_files_over_earlier(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("out: a\nseed: 1\nppo:\n  kl_coef: 1e-3\n  steps: 5\n")
    (tmp_path / "two.yaml").write_text("ppo.steps: 6\nfrom: base\n")
    config = build("seed=2", "--config", f"{tmp_path}/one.yaml", f"--config={tmp_path}/two.yaml")
    assert config == Train(out=Path("a"), seed=2, from_="base", ppo=PPO(kl_coef=0.001, steps=6))


def test_one_bare_argument_sets_the_positional_field(tmp_path: Path) -> None:
    assert build("runs/a", "seed=1", positional="out") == Train(out=Path("runs/a"), seed=1)
    (tmp_path / "one.yaml").write_text("out: b\n")
    assert build(str(tmp_path / "one.yaml"), positional="config").out == Path("b")
    with pytest.raises(BadInput, match="did not understand 'again'"):
        build("a", "again", positional="out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=a", "ppo.kl_coeff=1"], "unknown option ppo.kl_coeff; did you mean ppo.kl_coef?"),
        (["out=a", "kl_coef=1"], "unknown option kl_coef; did you mean ppo.kl_coef?"),
        (["out=a", "fron=sft"], "unknown option fron; did you mean from?"),
        (["out=a", "zzz=1"], "unknown option zzz; --help lists the options"),
        (["out=a", "ppo.steps=1.5"], "option ppo.steps wants a whole number, was given '1.5'"),
        (["out=a", "ppo.kl_coef=much"], "option ppo.kl_coef wants a number, was given 'much'"),
        (["out=a", "ppo.mode=all"], "option ppo.mode wants one of rewards, none, was given 'all'"),
        (["out=a", "colour=GREEN"], "option colour wants one of RED, BLUE, was given 'GREEN'"),
        (["out=a", "quiet=perhaps"], "option quiet wants true or false, was given 'perhaps'"),
        (["out=a", "seed=null"], "option seed wants a whole number, was given null"),
        (["out=a", "spare.steps=x"], "option spare.steps wants a whole number, was given 'x'"),
        (["out=a", "sizes=[a]"], "option sizes wants a list of a whole number each, like [A, B], was given '[a]'"),
        (["out=a", "ppo=5"], "option ppo is a group of options, not '5'; set one of them, like ppo.kl_coef=VALUE"),
        (["out=a", "ppo=null"], "option ppo wants a group of options, was given null"),
        (["out=a", "--seed"], "option --seed needs a value, for example --seed=VALUE"),
        (["out=a", "stray"], "did not understand 'stray': write options as name=value, --name=value or --name value"),
        (["seed=1"], "missing required option out; give it as out=VALUE"),
        (["out=a", "ppo.kl_coef=-1"], "kl_coef must be at least 0, was -1.0"),
        (["out=a", "seed=-1"], "seed must be at least 0"),
        (["--config", "nowhere.yaml"], "cannot read the config nowhere.yaml: No such file or directory"),
    ],
)
def test_errors_say_what_was_wanted_and_given(arguments: list[str], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        build(*arguments)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ppo: {steps: a}", "option ppo.steps wants a whole number, was given 'a' (in {file})"),
        ("ppo: {step: 1}", "unknown option ppo.step (in {file}); did you mean ppo.steps?"),
        ("seed:", "option seed wants a whole number, was given null (in {file})"),
        ("ppo: 5", "option ppo is a group of options, not 5 (in {file})"),
        ("name: 5", "option name wants text, was given 5 (in {file})"),
        ("- a", "the config {file} must hold options, one `name: value` a line, but is a list"),
        ("seed: 1\nseed: 2", "the config {file} is not valid YAML: seed is given twice"),
        ("a: [", "the config {file} is not valid YAML"),
    ],
)
def test_errors_in_a_file_name_the_file(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(BadInput) as caught:
        build("out=a", f"--config={file}")
    assert str(caught.value).startswith(message.format(file=file))


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**9),
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
    kl_coef=st.floats(0, 1e30, allow_nan=False),
    sizes=st.lists(st.integers(-5, 5), max_size=3).map(tuple),
    from_=st.sampled_from([None, "sft", "1e-3", "no"]),
)
def test_yaml_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, seed, name, kl_coef, sizes, from_) -> None:
    config = Train(
        out=Path("runs/a"), seed=seed, name=name, from_=from_, sizes=sizes, colour=Colour.BLUE, ppo=PPO(kl_coef=kl_coef)
    )
    file = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    file.write_text(options.to_yaml(config), encoding="utf-8")
    assert options.parse(Train, ["--config", str(file)]) == config


def test_the_help_page_explains_every_option() -> None:
    page = options.help_page(Train, usage="theodolite x", description="Does x.", example="theodolite x out=a")
    page = " ".join(page.split())  # however wide the terminal is
    for part in ("theodolite x", "Weight of the KL penalty.", "default: 7.0", "The first stage.", "--config"):
        assert part in page
    assert "example: theodolite x out=a" in page
    assert "--from " in page
    assert "from_" not in page
