"""Getting past the signed verdicts of a run, through the command line: each attempt is refused with one line."""

import base64
import json
import shutil
from dataclasses import replace

import jax
import pytest
import tiny_run
import yaml

from base_model import checkpoint
from pipeline import attested_model, cli, gated_run, gates, report
from pipeline.keyring import own_key
from safety.gate_folder import ENVELOPE, load
from safety.keys import make_pair, name_of, public_beside, read_private
from safety.scorers.calibration import Calibration, Curve, write_calibration
from safety.scorers.lexical import LexicalScorer
from safety.statement import GATE
from training.digest import folder_digest

# The command line runs in this process.
pytestmark = pytest.mark.usefixtures("in_process")


def sampler(model, label, check=None):
    """Replies that follow from the prompt's place and the seed: a model's own would cost a compiled program."""
    return lambda prompts, plan: [
        [f"so {row} {copy} {plan.seed} is a fine day" for copy in range(plan.samples_per_prompt)]
        for row in range(len(prompts))
    ]


@pytest.fixture(scope="module", autouse=True)
def no_pages():
    """Each gate would draw one, which has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_gate", lambda run, stage: "no page")
        yield


@pytest.fixture(scope="module")
def world(tiny_model, in_process, tmp_path_factory):
    """Base, data and policies; a run with an SFT checkpoint that no trainer made, both gated."""
    folder = tmp_path_factory.mktemp("world")
    tiny_run.write(folder, tiny_model)
    base = checkpoint.load(folder / "base")
    (folder / "run" / "sft").mkdir(parents=True)
    shutil.copy(folder / "run.yaml", folder / "run")
    checkpoint.save(replace(base, params=jax.tree.map(lambda x: x + 1, base.params)), folder / "run/sft/checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gated_run, "gate_sampler", sampler)
        for stage in ("base", "sft"):
            assert cli.main(["safety", "gate", f"out={folder / 'run'}", f"stage={stage}"]) == 0
    return folder


@pytest.fixture
def run(world, tmp_path, monkeypatch):
    """A copy of that run."""
    monkeypatch.setattr(gated_run, "gate_sampler", sampler)
    return shutil.copytree(world / "run", tmp_path / "run")


@pytest.fixture
def say(capsys):
    """Gives a command; returns its exit code, what it printed, and the last line of stderr."""

    def call(*words):
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, (captured.err.splitlines() or [""])[-1]

    return call


@pytest.fixture
def refused(say):
    """Trains the reward model, which must be refused before anything of it is written; returns why."""

    def ask(run, *words):
        code, _, line = say("reward", "train", f"out={run}", *words)
        assert code == 5 and not (run / "reward").exists(), line
        return line

    return ask


def policy(folder, **changed):
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(tiny_run.GATE | changed))
    return f"gate={path}"


def regated(say, run, stage, *words):
    """Has a gate measure once more: its evidence is gone."""
    (run / stage / "gate" / "samples.jsonl").unlink()
    assert say("safety", "gate", f"out={run}", f"stage={stage}", *words)[0] == 0


def _flip(checkpoint):
    path = checkpoint / "tokenizer.model"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _link(checkpoint):
    (checkpoint / "tokenizer.model").rename(checkpoint.parent / "elsewhere")
    (checkpoint / "tokenizer.model").symlink_to(checkpoint.parent / "elsewhere")


def _dotted(checkpoint):
    (checkpoint / ".git").mkdir()
    (checkpoint / ".git" / "config").touch()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_flip, "it was changed"),
        (lambda folder: (folder / "README.md").touch(), "it was changed"),
        (lambda folder: (folder / "tokenizer.model").unlink(), "it was changed"),
        (lambda folder: (folder / "tokenizer.model").rename(folder / "tokenizer"), "it was changed"),
        (_dotted, "it was changed"),
        (_link, "is a symbolic link"),
    ],
)
def test_a_changed_checkpoint(run, refused, say, change, reason):
    """A flipped byte; an extra, missing, renamed or linked file; one below a dotted folder."""
    change(run / "sft" / "checkpoint")
    assert reason in refused(run)
    code, _, line = say("safety", "verify", run)
    assert code == 5 and reason in line


def test_the_chain_in_words(run, world, say, tmp_path):
    """Every signature and every byte, back to the base; one stage, all, or one away from its run."""
    code, out, _ = say("safety", "verify", run / "sft" / "checkpoint")
    digest = folder_digest(run / "sft" / "checkpoint")
    assert code == 0 and out.startswith("base: pass, attempt 1, profile tiny\n")
    assert f"sft: pass, attempt 1, profile tiny; built on base\n  checkpoint {digest}, exactly these bytes" in out
    name = name_of(read_private(own_key()))
    assert f"signed by  {name}" in out and "holds from sft back to the base model" in out
    assert own_key().stat().st_mode & 0o777 == 0o600 and world not in own_key().parents
    code, out, _ = say("safety", "verify", run, "--key", public_beside(own_key()))
    assert code == 0 and "holds from base and sft back to the base model" in out
    alone = shutil.copytree(run / "sft", tmp_path / "alone")
    gate = f"gate={world / 'gate.yaml'}"
    code, out, _ = say("safety", "verify", alone, "--key", name, gate)
    assert code == 0 and digest in out and "is not here, so the verdicts it is built on were not looked at" in out
    assert "Nobody said what it should have been measured on" in out and out.endswith("The verdict holds.\n")
    code, out, _ = say("safety", "verify", alone, gate, f"data.gate_prompts={world}/data/gate_prompts.jsonl")
    assert code == 0 and "Nobody said" not in out
    # Away from the run nothing else says by which policy it should have been judged.
    code, _, line = say("safety", "verify", alone)
    assert code == 5 and "(its profile: tiny), and gate=standard is sha256:" in line
    _flip(alone / "checkpoint")
    assert say("safety", "verify", alone, gate)[0] == 5
    assert say("safety", "verify", tmp_path)[0] == 5


def test_verify_refuses(run, say, tmp_path):
    """Another key, another policy, a stage without a verdict, a base that is not here."""
    make_pair(tmp_path / "other.pem")
    code, _, line = say("safety", "verify", run, "--key", tmp_path / "other.pem.pub")
    assert code == 5 and "which is not trusted here" in line
    code, _, line = say("safety", "verify", run, f"base={tmp_path}/gone")
    assert code == 5 and "the checkpoint of base cannot be taken as gated" in line
    assert say("safety", "verify", run / "sft", f"base={tmp_path}/gone")[0] == 0, "its verdict is"
    code, _, line = say("safety", "verify", run, policy(tmp_path, seed=450))
    assert code == 5 and "was judged by the policy" in line
    (run / "reward" / "checkpoint").mkdir(parents=True)
    code, _, line = say("safety", "verify", run)
    assert code == 5 and "reward has no verdict" in line


def test_the_gates_run_again(run, say, monkeypatch):
    """The same verdicts to the byte; or others, if the checkpoint does not give the stored replies."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, _ = say("safety", "verify", run, "--rerun")
    assert code == 0 and out.count("run again, its gate came to the same verdict") == 2
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    monkeypatch.setattr(gated_run, "gate_sampler", lambda model, label, check: lambda prompts, plan: [
        [reply + " indeed" for reply in replies] for replies in sampler(model, label)(prompts, plan)
    ])  # fmt: skip
    code, _, line = say("safety", "verify", run, "--rerun")
    assert code == 5 and "the gate of base run again gives another verdict: evidence was " in line
    samples = run / "base" / "gate" / "samples.jsonl"
    samples.write_text(samples.read_text() + "\n")
    code, _, line = say("safety", "verify", run, "--rerun")
    assert code == 5 and "cannot be run again: what it stored" in line


def test_one_prompt_again(run, say, monkeypatch):
    """By its number in samples.jsonl, with the model that the verdict is about; another reply is told."""
    def drawn(model, turns, plan, label, *, first):
        return [sampler(model, label)(["x"] * first + list(turns), plan)[first]]

    monkeypatch.setattr(gates, "draw_replies", drawn)
    rows = [json.loads(line) for line in (run / "sft/gate/samples.jsonl").read_text().splitlines()]
    code, out, _ = say("safety", "redraw", run, "sft", 5)
    assert code == 0 and f"prompt 5 of {len(rows)}, {rows[4]['id']}, with seed 449:" in out
    assert "They are the 2 replies that the gate stored." in out and repr(rows[4]["samples"][1]) in out
    for number in (0, len(rows) + 1):
        code, _, line = say("safety", "redraw", run, "sft", number)
        assert code == 2 and f"posed {len(rows)} prompts: prompt is from 1 to that, not {number}" in line
    monkeypatch.setattr(gates, "draw_replies", lambda *a, first, **b: drawn(*a, **b, first=first + 1))
    code, _, line = say("safety", "redraw", run, "base", 5)
    assert code == 5 and "2 of 2 replies are not those that the gate of base stored, reply 1 the first" in line
    _flip(run / "sft/checkpoint")
    code, _, line = say("safety", "redraw", run, "sft", 5)
    assert code in (2, 5) and "They are" not in line
    (run / "base/gate/samples.jsonl").write_text("")
    code, _, line = say("safety", "redraw", run, "base", 5)
    assert code == 5 and "has no replies that its verdict attests" in line


@pytest.mark.parametrize("part", ["", "params"])
def test_swapped_between_check_and_load(run, refused, monkeypatch, tmp_path, world, part):
    """Another model while it is read and the attested one after; other parameters that stay."""
    place, aside, real = run / "sft" / "checkpoint" / part, tmp_path / "aside", checkpoint.load

    def swapping(folder, **options):
        place.rename(aside)
        shutil.copytree(world / "base" / part, place)
        try:
            return real(folder, **options)
        finally:
            if not part:
                shutil.rmtree(place)
                aside.rename(place)

    monkeypatch.setattr(attested_model.checkpoint, "load", swapping)
    assert "was changed between its check and its reading" in refused(run)


def test_swapped_while_its_gate_measures(run, say, refused, monkeypatch, world):
    """The verdict is about the bytes that the sampled model was read from, whatever lies there by the end."""
    shutil.rmtree(run / "sft" / "gate")
    place, measured = run / "sft" / "checkpoint", folder_digest(run / "sft" / "checkpoint")
    real = checkpoint.load

    def swapping(folder, **options):
        model = real(folder, **options)
        shutil.rmtree(place)
        shutil.copytree(world / "base", place)
        return model

    monkeypatch.setattr(attested_model.checkpoint, "load", swapping)
    assert say("safety", "gate", f"out={run}", "stage=sft")[0] == 0
    assert load(run / "sft" / "gate").checkpoint == measured
    assert "it was changed" in refused(run)


def test_swapped_while_a_gate_reads(run, say, monkeypatch, world):
    """Its description is not the one of the manifest: nothing is measured."""
    shutil.rmtree(run / "sft" / "gate")
    real = checkpoint.load
    monkeypatch.setattr(attested_model.checkpoint, "load", lambda folder, **options: real(world / "base", **options))
    code, _, line = say("safety", "gate", f"out={run}", "stage=sft")
    assert code == 5 and "was changed between its check and its reading" in line
    assert not (run / "sft" / "gate" / "verdict.json").exists()


def test_swapped_between_a_gates_two_looks(run, say, monkeypatch, world):
    """The folder is listed once: what is read is compared with the list that the verdict's digest is of."""
    shutil.rmtree(run / "sft" / "gate")
    place, real = run / "sft" / "checkpoint", attested_model.manifest

    def swapping(folder):
        entries = real(folder)
        shutil.rmtree(place)
        shutil.copytree(world / "base", place)
        return entries

    monkeypatch.setattr(attested_model, "manifest", swapping)
    code, _, line = say("safety", "gate", f"out={run}", "stage=sft")
    assert code == 5 and "was changed between its check and its reading" in line


def test_replayed_from_an_older_run(run, say, tmp_path):
    """The same base model, policy and key, and a genuine verdict: but of another run."""
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(run / "run.yaml", new)
    assert say("safety", "gate", f"out={new}", "stage=base")[0] == 0
    shutil.rmtree(new / "base" / "gate")
    shutil.copytree(run / "base" / "gate", new / "base" / "gate")
    code, _, line = say("sft", "train", f"out={new}")
    assert code == 5 and "was signed in another run" in line
    # Asked for a verdict, the run does not take the other one's, but measures.
    assert say("safety", "gate", f"out={new}", "stage=base")[0] == 0
    assert load(new / "base" / "gate").attempt == 2
    for lost in (b"", b'{"index": 0'):  # what a kill may leave of a ledger's first event
        (new / "ledger.jsonl").write_bytes(lost)
        code, _, line = say("sft", "train", f"out={new}")
        assert code == 5 and "was signed in another run" in line, "without its ledger a run begins anew"
    assert say("safety", "gate", f"out={new}", "stage=base")[0] == 0
    assert say("safety", "verify", new)[0] == 0


def test_a_luckier_seed(run, say, refused, tmp_path):
    """Measured in a copy with other seeds until one is lucky, and brought back: not by this policy, not on record."""
    copy = shutil.copytree(run, tmp_path / "copy")
    lucky = policy(tmp_path, seed=450, max_seeds=9)
    for stage in ("base", "sft"):
        assert say("safety", "gate", f"out={copy}", f"stage={stage}", lucky)[0] == 0
    shutil.rmtree(run / "sft" / "gate")
    shutil.copytree(copy / "sft" / "gate", run / "sft" / "gate")
    assert "is not the last that the ledger has on record" in refused(run)
    shutil.copy(copy / "ledger.jsonl", run)
    shutil.rmtree(run / "base" / "gate")
    shutil.copytree(copy / "base" / "gate", run / "base" / "gate")
    assert "was judged by the policy" in refused(run)


@pytest.fixture
def gated_otherwise(run, say, tmp_path):
    """A run of its own of the same base and SFT checkpoint, both gated with other options; its verdicts hold there."""

    def make(*words):
        other = tmp_path / "other"
        shutil.copytree(run / "sft" / "checkpoint", other / "sft" / "checkpoint")
        shutil.copy(run / "run.yaml", other)
        for stage in ("base", "sft"):
            assert say("safety", "gate", f"out={other}", f"stage={stage}", *words)[0] == 0
        return other

    return make


def test_easier_prompts(gated_otherwise, say, refused, world, tmp_path):
    """The same policy on prompts that draw nothing toxic: not those of the config that the next stage is given."""
    easy = tmp_path / "easy.jsonl"
    row = {"stratum": "toxic", "source": "test"}
    easy.write_text("".join(json.dumps(row | {"id": str(n), "text": f"a lovely day {n}"}) + "\n" for n in range(300)))
    other, words = gated_otherwise(f"data.gate_prompts={easy}"), "was measured on the prompts sha256:"
    code, out, _ = say("safety", "verify", other)
    assert code == 0 and f"  prompts    {load(other / 'sft' / 'gate').prompts}\n" in out
    wanted = f"data.gate_prompts={world}/data/gate_prompts.jsonl"
    code, _, line = say("safety", "verify", other, wanted)
    assert code == 5 and f"the verdict on base {words}" in line
    assert words in refused(other, wanted)
    # The file of the run's own config may be another one by then, too.
    shutil.copy(world / "data" / "gate_prompts.jsonl", easy)
    assert words in refused(other, f"data.gate_prompts={easy}")


def test_a_scorer_that_spares(gated_otherwise, say, refused, tmp_path):
    """A calibration of one's own making leaves the canaries where they are, and nothing else toxic."""
    scorer, file = LexicalScorer(), tmp_path / "kind.json"
    curve = Curve((0.0, 0.89, 0.9, 1.0), (0.0, 0.0, 0.9, 1.0))
    kind = Calibration(scorer="lexical", identity=scorer.identity, curves={"toxicity": curve},
                       data={"name": "mine", "digest": "sha256:" + "0" * 64, "texts": {}}, measured={})  # fmt: skip
    write_calibration(kind, file)
    other = gated_otherwise(f"scorer=calibrated:{file}")
    code, out, _ = say("safety", "verify", other)
    assert code == 0 and "  scorer     calibrated lexical, alt-profanity-check" in out
    code, _, line = say("safety", "verify", other, "scorer=lexical")
    assert code == 5 and "was scored by calibrated lexical" in line
    assert "but lexical, alt-profanity-check" in refused(other, "scorer=lexical")
    alone = shutil.copytree(other / "sft", tmp_path / "alone")
    gate = f"gate={tmp_path / 'gate.yaml'}"
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(tiny_run.GATE))
    code, _, line = say("safety", "verify", alone, gate)
    assert code == 5 and "was scored by calibrated lexical" in line
    assert say("safety", "verify", alone, gate, f"scorer=calibrated:{file}")[0] == 0


def test_an_earlier_attempt_put_back(run, say, refused):
    """Its signature holds, its stage, policy and run are right; the ledger knows a later one."""
    regated(say, run, "sft")
    gate = run / "sft" / "gate"
    for name in (ENVELOPE, "verdict.json"):
        first, _, suffix = name.partition(".")
        (gate / f"{first}-1.{suffix}").replace(gate / name)
    assert load(gate).attempt == 1
    assert "is not the last that the ledger has on record" in refused(run)


def test_a_parent_that_was_gated_again(run, say, refused):
    """SFT's verdict names the one on the base that it was compared with; gated again itself, it names the new one."""
    regated(say, run, "base")
    assert "was built on another verdict on base" in refused(run)
    assert say("safety", "gate", f"out={run}", "stage=sft")[0] == 0
    assert load(run / "sft" / "gate").attempt == 2
    assert say("safety", "verify", run, "waived=refuse")[0] == 0, "nothing was waived"


def test_a_verdict_on_another_stage(run, refused):
    shutil.rmtree(run / "sft" / "gate")
    shutil.copytree(run / "base" / "gate", run / "sft" / "gate")
    assert "is about the stage 'base', but 'sft' is wanted" in refused(run)


def test_what_nobody_signed(run, say, refused):
    """No envelope, an edited verdict, one to waive: refused by the next stage, measured anew by the gate."""
    gate = run / "sft" / "gate"
    plain = (gate / "verdict.json").read_text()
    (gate / "verdict.json").write_text(plain.replace('"tiny"', '"release"'))
    assert "was edited: it is not the verdict that was signed" in refused(run)
    code, _, line = say("safety", "quarantine", "waive", run, "sft", "reason=x")
    assert code == 5 and "was edited" in line
    (gate / "verdict.json").write_text(plain)
    (gate / ENVELOPE).unlink()
    assert "is not signed: there is no verdict.dsse.json" in refused(run)
    assert say("safety", "gate", f"out={run}", "stage=sft")[0] == 0 and load(gate).attempt == 2
    (run / "base" / "gate" / ENVELOPE).unlink()
    code, _, line = say("safety", "gate", f"out={run}", "stage=sft")
    assert code == 5 and "the verdict on base is not signed" in line


def test_a_waiver_stays_visible(run, say, refused, tmp_path):
    """Signed like a verdict, and named by every verdict on what is made from the checkpoint."""
    strict = policy(tmp_path, ceilings={"all": {"emt": 0.0001}})
    base, sft = (("safety", "gate", f"out={run}", f"stage={stage}", strict) for stage in ("base", "sft"))
    assert say(*base)[0] == 3
    assert say("safety", "quarantine", "waive", run, "base", "reason=looked at", strict)[0] == 0
    assert say(*sft)[0] == 3 and load(run / "sft" / "gate").waivers[0].reason == "looked at"
    assert say("safety", "quarantine", "waive", run, "sft", "reason=likewise", strict)[0] == 0
    code, out, _ = say("safety", "verify", run, strict, "--rerun")
    assert code == 0 and "sft: WAIVED" in out and "made from a waived base: looked at" in out
    assert out.count("run again, its gate came to the same verdict") == 2
    waived = "back to the base model, but it is WAIVED: the gate of base and sft did not pass"
    assert out.endswith(f"{waived}.\n")
    code, out, line = say("safety", "verify", run, strict, "waived=refuse")
    assert code == 3 and line.endswith(f"{waived}, and waived=refuse") and "The chain" not in out
    alone = shutil.copytree(run / "sft", tmp_path / "alone")
    data = f"data.gate_prompts={yaml.safe_load((run / 'run.yaml').read_text())['data']['gate_prompts']}"
    assert "but it is WAIVED: the gate of base and sft" in say("safety", "verify", alone, strict, data)[1]
    assert say("safety", "verify", alone, strict, data, "waived=refuse")[0] == 3
    shutil.rmtree(run / "base" / "gate")
    assert "base has no verdict" in refused(run, strict)


def test_keys_that_are_pinned(run, say, refused, tmp_path, monkeypatch):
    """A stranger's signature does not count, and nothing is measured that nobody would accept."""
    name = make_pair(tmp_path / "gates.pem")
    assert "which is not trusted here" in refused(run, f"trusted_keys={name}")
    words = ("safety", "gate", f"out={run}", "stage=base", f"trusted_keys={name}")
    before = load(run / "base" / "gate")
    code, _, line = say(*words)
    assert code == 2 and "is not among trusted_keys" in line and load(run / "base" / "gate") == before
    assert "trusted_keys are public keys with commas between" in say(*words[:-1], f"trusted_keys={name},")[2]
    # Signed with that key it counts; the environment can say so, too.
    assert say(*words, f"signing_key={tmp_path / 'gates.pem'}")[0] == 0
    monkeypatch.setenv("THEODOLITE_SIGNING_KEY", str(tmp_path / "gates.pem"))
    assert say("safety", "gate", f"out={run}", "stage=sft")[0] == 0
    monkeypatch.delenv("THEODOLITE_SIGNING_KEY")
    monkeypatch.setenv("THEODOLITE_TRUSTED_KEYS", f"{name},{tmp_path / 'gates.pem.pub'}")
    code, out, _ = say("safety", "verify", run)
    assert code == 0 and out.count(f"signed by  {name}") == 2
    # A run's folder keeps no word of keys, and does not get one.
    config = run / "run.yaml"
    assert not any(name in config.read_text() for name in ("signing_key", "trusted_keys"))
    config.write_text(f"{config.read_text()}trusted_keys: {name}\n")
    code, _, line = say("safety", "verify", run)
    assert code == 2 and "whom to trust is not for a run's folder to say" in line


def test_where_keys_may_lie(run, say, tmp_path, monkeypatch):
    """Not in a run's folder, not readable by others, not over another; a new user gets one, and is told so."""
    code, _, line = say("safety", "keygen", run / "keys" / "a.pem")
    assert code == 2 and "lies in the folder of a run" in line and not (run / "keys").exists()
    code, out, _ = say("safety", "keygen", tmp_path / "a.pem")
    assert code == 0 and "to pin as trusted_keys: ed25519:" in out
    assert say("safety", "keygen", tmp_path / "a.pem")[0] == 2
    (tmp_path / "a.pem").chmod(0o644)
    (run / "base" / "gate" / "samples.jsonl").unlink()
    gate = ("safety", "gate", f"out={run}", "stage=base")
    code, _, line = say(*gate, f"signing_key={tmp_path / 'a.pem'}")
    assert code == 2 and "only its owner can read" in line
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "newcomer"))
    code, _, line = say("safety", "verify", run)
    assert code == 2 and "there is no key here to check with" in line
    assert say(*gate)[0] == 0 and own_key().stat().st_mode & 0o777 == 0o600
    assert own_key().is_relative_to(tmp_path / "newcomer")


def test_the_envelope_says_what_decided(run):
    """Versions of the code, the run and the metrics stand beside the verdict in what is signed."""
    values = json.loads((run / "sft" / "gate" / ENVELOPE).read_text())
    predicate = json.loads(base64.b64decode(values["payload"]))["predicate"][GATE]
    assert {"theodolite", "code", "jax"} <= predicate["versions"].keys()
    emt = predicate["metrics"]["all"]["toxicity"]["emt"]
    assert emt["low"] <= emt["estimate"] <= emt["high"] <= 1
    assert predicate["verdict"]["parent_verdict"] and predicate["run"].startswith("sha256:")
