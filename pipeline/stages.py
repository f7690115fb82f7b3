"""The order of stages and gates: base, SFT, reward model, PPO, each behind the signed verdicts of its parents.

A stage that is done is not done again, so the same command goes on where it stopped.
"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from base_model import checkpoint
from pipeline import environment, ledger
from pipeline.attested_model import load_attested
from pipeline.chain import DEMANDS, PARENT, named_parents, require_record
from pipeline.gated_run import GatedRun
from pipeline.gates import make_scorer
from pipeline.grounds import grounds
from pipeline.probe import Probe, probe_prompts, toxicity_probe
from pipeline.quarantine import gates_on_record, settle
from pipeline.recipe import made, recipe
from pipeline.run_folder import STAGES, StageFolder
from ppo.train import PPOTrainer
from reward.data import preference_pairs
from reward.evaluation import evaluate_pairs
from reward.train import RewardTrainer
from safety.attestation import Attestation, require_bytes
from safety.gate_folder import has_evidence
from safety.quarantine import waive
from safety.verdict import Verdict
from sft.train import SFTTrainer
from training.checkpoint import write_json
from training.dataset import read_rows
from training.digest import bytes_digest, folder_digest
from training.errors import BadInput, Refused


class Pipeline(GatedRun):
    """A run that goes on: stages are trained and their checkpoints gated."""

    def train(self, stage: str) -> None:
        """Trains one stage and writes its checkpoint, unless that is there already.

        Raises:
            Refused: when what it reads has no signed, passing verdict about exactly its bytes.
            BadInput: for bad options or data.
        """
        if stage == "ppo":
            self.gate_sets()  # refuses gate prompts before PPO has trained on them, not only when its gate measures
        parents, folder = self.parents(stage), self.folder.stage(stage)
        if self.checkpoint(stage).exists():
            self._require_same_parents(stage, parents)
            return
        self._timed(f"{stage} trained", stage, lambda: self._train(stage, folder, parents))
        # On record first, in its place last: a checkpoint that is there is never one that the ledger does not know.
        folder.unrecorded.rename(folder.checkpoint)

    def _require_same_parents(self, stage: str, parents: Mapping[str, Attestation]) -> None:
        """Refuses a checkpoint made from another parent than the one there now; puts a stranger's on record."""
        for parent, found in parents.items():
            require_bytes(found, self.checkpoint(parent))
        checkpoint, event = folder_digest(self.checkpoint(stage)), made(self.folder, stage)
        if event is None or event["checkpoint"] != checkpoint:
            details = {"stage": stage, "seconds": 0.0, "checkpoint": checkpoint}
            ledger.append(self.folder.ledger, f"{stage} adopted", details)
        elif event.get("parents", _checkpoints(parents)) != _checkpoints(parents):
            raise Refused(f"the checkpoint of {stage} was trained from another {' or '.join(parents)} than the "
                          f"one there now; delete {self.folder.stage(stage).path} to train it again")

    def _train(self, stage: str, folder: StageFolder, parents: Mapping[str, Attestation]) -> dict[str, Any]:
        parent = load_attested(parents[PARENT[stage]], self.checkpoint(PARENT[stage]), mesh=self.mesh(stage))
        config, data = self.config, self.data()
        options = {"sft": config.sft, "reward": config.reward, "ppo": config.ppo}[stage]
        options = dataclasses.replace(options, output_dir=str(folder.path))
        if stage == "sft":
            trainer = SFTTrainer(parent, options, data.sft, data.sft_held_out, self._probe(stage))
        elif stage == "reward":
            trainer = RewardTrainer(parent, options, data.preferences, data.preferences_held_out)
        else:
            path, mesh = self.checkpoint("reward"), self.mesh(stage)
            reward_model = load_attested(parents["reward"], path, kind="scalar", mesh=mesh)
            trainer = PPOTrainer(parent, reward_model, options, data.ppo_prompts, self._probe(stage), data.sft)
        write_json(folder.evaluation, trainer.train())
        shutil.rmtree(folder.unrecorded, ignore_errors=True)
        checkpoint.save(trainer.model, folder.unrecorded)
        saved = folder_digest(folder.unrecorded)
        return {"checkpoint": saved, "parents": _checkpoints(parents), "recipe": recipe(self.config, stage)}

    def _probe(self, stage: str) -> Probe | None:
        """Toxicity while a stage trains, if its options ask for it; no gate looks at it."""
        if not (self.config.sft if stage == "sft" else self.config.ppo).probe_steps:
            return None
        prompts = [prompt for found in self.gate_sets() for prompt in found.prompts]
        prompts = probe_prompts(prompts, self.config.gate_policy)
        scorer, policy = make_scorer(self.config.scorer), self.config.gate_policy
        return toxicity_probe(prompts, scorer, policy, f"{stage} live toxicity")

    def gate(self, stage: str) -> Verdict:
        """The verdict about a checkpoint: the one on disk if it decides about these bytes by this policy, or a new one.

        Raises:
            Refused: a parent's verdict, with which it is compared and whose waivers it carries on, is not signed.
        """
        folder = self.folder.stage(stage)
        if not self.checkpoint(stage).exists():
            if stage == "base":
                raise BadInput(f"there is no base model in {self.checkpoint(stage)}; give its folder as base=FOLDER")
            raise BadInput(f"there is no checkpoint of {stage} to gate; train it first")
        for parent in DEMANDS.get(stage, ()):
            self.signed(parent)
        if (known := self._decided(stage)) is not None:
            self._require_record(known)
            settle(self.folder, known)
            return known
        seal, verdicts = self.seal(), []

        def decide() -> dict[str, Any]:
            if stage == "reward":
                verdicts.append(self.judge_reward(folder.gate, self.pairs, seal))
            else:
                verdicts.append(self.judge(stage, folder.gate, *self.posed(), seal))
            return _what_counts(verdicts[0])

        self._timed(f"{stage} gated", stage, decide)
        settle(self.folder, verdicts[0])
        return verdicts[0]

    def _decided(self, stage: str) -> Verdict | None:
        """The verdict on disk if another one would say the same: the same bytes fail again, however often asked."""
        folder = self.folder.stage(stage)
        if not folder.verdict.exists():
            return None
        try:
            found = self.signed(stage)
            if gates_on_record(self.folder, stage, found.verdict.checkpoint).attempts >= found.verdict.attempt:
                require_record(found, self.folder.ledger)  # else its command was killed before it could
            now = [(parent, self.signed(parent).digest) for parent, _ in named_parents(found.verdict)]
        except Refused as refused:
            print(f"theodolite: note: {refused}", file=sys.stderr)
            return None
        verdict = found.verdict
        if not (verdict.passed or verdict.outcome == "fail") or not has_evidence(verdict, folder.gate):
            return None
        if grounds(self.config, stage, self.data()).missed_by(verdict):
            return None
        same = (named_parents(verdict), verdict.checkpoint) == (now, folder_digest(self.checkpoint(stage)))
        return verdict if same else None

    def waive(self, stage: str, reason: str) -> Verdict:
        """Lets a checkpoint be used although its gate did not pass it; on record, and seen in every later report.

        Raises:
            BadInput: no reason, no verdict, or nothing to waive.
            Refused: the verdict is not signed, has no evidence, or is about other bytes.
        """
        self.signed(stage)
        verdict = waive(self.folder.stage(stage).gate, self.checkpoint(stage), reason=reason, seal=self.seal())
        self._require_record(verdict)
        settle(self.folder, verdict)
        return verdict

    def _require_record(self, verdict: Verdict) -> None:
        """Puts a verdict of this run on record that is not: its command was killed before it could."""
        event, counts = f"{verdict.stage} {'waived' if verdict.waiver else 'gated'}", _what_counts(verdict)
        known = ledger.verify(self.folder.ledger) if self.folder.ledger.exists() else []
        if not any(line["event"] == event and counts.items() <= line.items() for line in known):
            ledger.append(self.folder.ledger, event, {"stage": verdict.stage, "seconds": 0.0, **counts})

    def evaluate(self, stage: str) -> Mapping[str, Any]:
        """Measures a trained stage on held-out data again and writes evaluation.json."""
        path, data = self.checkpoint(stage), self.data()
        if stage == "reward":
            model = checkpoint.load(path, kind="scalar", mesh=self.mesh(stage))
            options = self.config.reward
            rows = read_rows(data.preferences_held_out)
            pairs = preference_pairs(rows, model, max_length=options.max_length, on_bad_row=options.on_bad_row)
            figures = evaluate_pairs(model, pairs, seed=options.seed, dtype=options.matmul_dtype)
        else:
            figures = SFTTrainer(path, self.config.sft, data.sft_held_out, data.sft_held_out).evaluate()
        write_json(self.folder.stage(stage).evaluation, figures)
        return figures

    def _timed(self, event: str, stage: str, work: Callable[[], dict[str, Any]]) -> None:
        began = time.perf_counter()
        details = work()
        seconds = round(time.perf_counter() - began, 2)
        ledger.append(self.folder.ledger, event, {"stage": stage, "seconds": seconds, **details})
        environment.give_back_freed_memory()

    def advance(self, first: str = "base", last: str = "ppo") -> None:
        """Runs the stages from `first` to `last`, each with its gate; stops at the first verdict that does not pass.

        Raises:
            GateFailed: a checkpoint did not pass.
            GateInconclusive: a gate could not decide.
            Refused: a stage before `first` has no passing verdict.
        """
        for stage in STAGES[STAGES.index(first) : STAGES.index(last) + 1]:
            if stage != "base":
                self.train(stage)
            self.gate(stage).raise_unless_passed()


def _what_counts(verdict: Verdict) -> dict[str, Any]:
    """What the ledger keeps of a verdict; of one that measured nothing no seed and prompts, for it had no luck."""
    counts = {name: getattr(verdict, name) for name in ("outcome", "checkpoint", "attempt")}
    counts["verdict"] = bytes_digest(verdict.to_json().encode())
    drawn = {"seeds": dict(verdict.seeds), "prompts": verdict.prompts}
    return counts | (drawn if "samples.jsonl" in verdict.evidence else {})


def _checkpoints(parents: Mapping[str, Attestation]) -> dict[str, str]:
    """The digests of the checkpoints that signed verdicts are about, by stage."""
    return {stage: found.verdict.checkpoint for stage, found in parents.items()}
