"""`theodolite safety keygen` and `verify`: keys that sign verdicts, and whether a chain of verdicts holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.config import RunConfig
from training.errors import BadInput, GateFailed, Refused

if TYPE_CHECKING:
    from pipeline.keyring import Keyring
    from safety.attestation import Attestation


@dataclass(frozen=True, kw_only=True)
class Keygen:
    """A new key that signs verdicts.

    Attributes:
        out: file of the private key; its public half goes beside it. Without it, your own key in your config folder.
    """

    out: str = ""


@dataclass(frozen=True, kw_only=True)
class Verify(RunConfig):
    """The signed verdicts of a run; or that on one stage in it, and on all that the stage is made from.

    Attributes:
        out: the run's folder, or in it a stage's or a checkpoint's, or a copy of a stage's folder.
        key: the public key that must have signed, as a file or as ed25519:HEX; without it trusted_keys, or your own.
        rerun: also run every gate again, which must come to the same verdict.
        waived: accept a chain in which a gate did not pass and was waived, and say so, or refuse it (exit 3).
    """

    key: str = ""
    rerun: bool = False
    waived: Literal["accept", "refuse"] = "accept"

    @property
    def run_folder(self) -> Path:
        """The run that the folder is, or lies in."""
        path = Path(self.out).expanduser().absolute()
        around = (folder for folder in (path, *path.parents[:2]) if _is_run(folder))
        return next(around, path)


def keygen(config: Keygen) -> None:
    """Writes the pair, and says what to pin."""
    from pipeline.keyring import keep_out_of_runs, own_key
    from safety.keys import make_pair, public_beside

    path = Path(config.out).expanduser() if config.out else own_key()
    keep_out_of_runs(path)
    name = make_pair(path)
    print(f"private key: {path} (only you can read it; keep it so)")
    print(f"public key:  {public_beside(path)}")
    print(f"its name, to pin as trusted_keys: {name}")


def verify(config: Verify) -> None:
    """Prints the chain in words; exits with 5 at the first link that does not hold, with 3 if it may not be waived."""
    from pipeline.keyring import Keyring

    keyring = Keyring.of(config.signing_key, config.key or config.trusted_keys)
    if not keyring.trusted():
        raise BadInput("there is no key here to check with: give key=FILE.pub, the public key of whoever ran the gates")
    path = Path(config.out).expanduser().absolute()
    if _is_run(config.run_folder):
        _verify_run(config, keyring, path)
    elif config.rerun:
        raise BadInput(f"{config.out} lies in no run: a gate is run again in its run's folder, or in a copy of that")
    else:
        _verify_copy(config, keyring, path)


def _verify_run(config: Verify, keyring: "Keyring", path: Path) -> None:
    from pipeline.chain import chain
    from pipeline.gated_run import GatedRun
    from pipeline.grounds import grounds
    from pipeline.rerun import require_same_again
    from pipeline.run_folder import STAGES, RunFolder
    from safety.attestation import Attestation, require_bytes

    run = GatedRun(config=config, folder=RunFolder.open(config.run_folder), keyring=keyring)
    shown = dict[str, Attestation]()
    if inside := path.relative_to(config.run_folder).parts:
        asked = [run.folder.stage(inside[0]).path.name]
    else:  # a stage that was trained and not gated is asked about too
        asked = [s for s in STAGES if run.folder.stage(s).gate.exists() or run.folder.stage(s).checkpoint.exists()]
    for last in asked:
        for link in chain(run.folder, last, keyring.trusted()):
            stage = link.verdict.stage
            if stage in shown:
                continue
            grounds(config, stage, run.data_files()).require(link.verdict)
            # An ancestor's bytes may be elsewhere, or deleted since; its verdict stays.
            here = run.checkpoint(stage).exists()
            if here or stage in asked:
                require_bytes(link, run.checkpoint(stage))
            for line in _in_words(link, here):
                print(line)
            if config.rerun and here:
                require_same_again(run, link)
                print("  run again, its gate came to the same verdict")
            shown[stage] = link
    if not shown:
        raise Refused(f"no stage of {config.out} has been through its gate yet")
    words = f"The chain of verdicts holds from {' and '.join(asked)} back to the base model"
    _conclude(config, words, shown.values())


def _verify_copy(config: Verify, keyring: "Keyring", path: Path) -> None:
    """Checks a stage's folder, with gate and checkpoint in it, away from its run and from the policies of that."""
    from pipeline.grounds import grounds
    from safety.attestation import require_passing
    from safety.gate_folder import load

    folder = path.parent if path.name == "checkpoint" else path
    try:
        stage = load(folder / "gate").stage
    except BadInput as error:
        raise Refused(f"{folder} is neither a run nor a gated stage: {error}") from error
    found = require_passing(folder / "gate", folder / "checkpoint", stage, trusted=keyring.trusted())
    option = "reward_gate" if stage == "reward" else "gate"
    wanted = config.reward_gate_policy if stage == "reward" else config.gate_policy
    if found.verdict.policy != wanted.digest:
        raise Refused(
            f"the verdict on {stage} was judged by the policy {found.verdict.policy} (its profile: "
            f"{found.verdict.profile}), and {option}={getattr(config, option)} is {wanted.digest}; give "
            f"{option}=FILE.yaml, the policy that you demand"
        )
    demanded = grounds(config, stage, config.data)
    demanded.require(found.verdict)
    for line in _in_words(found, True):
        print(line)
    if demanded.prompts is None:
        name = "preferences_held_out" if stage == "reward" else "gate_prompts"
        print(f"  Nobody said what it should have been measured on: data.{name}=FILE would.")
    print("The run it is from is not here, so the verdicts it is built on were not looked at.")
    _conclude(config, "The verdict holds", [found])


def _conclude(config: Verify, holds: str, links: "Iterable[Attestation]") -> None:
    """Prints the last line, which says so if a gate did not pass and was waived.

    Raises:
        GateFailed: one was, and that is not accepted.
    """
    from safety.quarantine import waivers_of

    waived = dict.fromkeys(waiver.stage for link in links for waiver in waivers_of(link.verdict))
    if not waived:
        print(f"{holds}.")
        return
    words = f"{holds}, but it is WAIVED: the gate of {' and '.join(waived)} did not pass"
    if config.waived == "refuse":
        raise GateFailed(f"{words}, and waived=refuse")
    print(f"{words}.")


def _in_words(link: "Attestation", here: bool) -> Iterator[str]:
    from pipeline.chain import named_parents
    from pipeline.grounds import scorer_in_words

    verdict = link.verdict
    on = " and ".join(dict.fromkeys(stage for stage, _ in named_parents(verdict)))
    outcome = verdict.outcome.upper() if verdict.waiver else verdict.outcome
    built = f"; built on {on}" if on else ""
    yield f"{verdict.stage}: {outcome}, attempt {verdict.attempt}, profile {verdict.profile}{built}"
    yield f"  checkpoint {verdict.checkpoint}, {'exactly these bytes' if here else 'which is not here'}"
    yield f"  policy     {verdict.policy}"
    yield f"  scorer     {scorer_in_words(verdict.scorer or {})}"
    if verdict.prompts:
        yield f"  {'pairs  ' if verdict.stage == 'reward' else 'prompts'}    {verdict.prompts}"
    yield f"  verdict    {link.digest}"
    yield f"  signed by  {link.key}"
    if verdict.waiver:
        yield f"  waived: {verdict.waiver.reason} (the gate said {verdict.waiver.outcome})"
    for waiver in verdict.waivers:
        yield f"  made from a waived {waiver.stage}: {waiver.reason}"


def _is_run(folder: Path) -> bool:
    return (folder / "run.yaml").is_file() or (folder / "ledger.jsonl").is_file()
