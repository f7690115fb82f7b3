"""The order of stages and gates: base, SFT, reward model, PPO, each behind the verdict of its parent.

A stage that is done is not done again, so the same command goes on where it stopped.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from base_model import checkpoint
from pipeline import ledger
from pipeline.config import PACKAGED, DataConfig, RunConfig
from pipeline.forms import form_samplers
from pipeline.gate_prompts import gate_sets
from pipeline.gates import gate_sampler, make_scorer, reward_evidence
from pipeline.packaged_data import write_packaged_data
from pipeline.plain_text import fluency_under, unprompted_sampler
from pipeline.probe import Probe, probe_prompts, toxicity_probe
from pipeline.quarantine import checkpoint_of, gates_on_record, settle
from pipeline.recipe import made, recipe
from pipeline.run_folder import STAGES, RunFolder, StageFolder
from ppo.train import PPOTrainer
from reward.data import preference_pairs
from reward.evaluation import evaluate_pairs
from reward.train import RewardTrainer
from safety.evidence import load_evaluation
from safety.gate import gate
from safety.gate_folder import has_evidence, load, require_passing, verdict_digest
from safety.quarantine import inherited, waive
from safety.reward_evidence import RewardEvidence
from safety.reward_gate import reward_gate
from safety.verdict import Verdict
from safety.waiver import Waiver
from sft.train import SFTTrainer
from training.checkpoint import write_json
from training.dataset import read_rows
from training.digest import folder_digest
from training.errors import BadInput, Refused

# Whose checkpoint each stage starts from, and whose verdicts it asks for.
PARENT = {"sft": "base", "reward": "sft", "ppo": "sft"}
DEMANDS = {"sft": ("base",), "reward": ("sft",), "ppo": ("sft", "reward")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A run's config and folder.

    Attributes:
        config: what the run depends on.
        folder: where it lives.
    """

    config: RunConfig
    folder: RunFolder

    def data(self) -> DataConfig:
        """The data files; those that are packaged are written into the run's folder first."""
        wanted = dataclasses.asdict(self.config.data)
        if PACKAGED not in wanted.values():
            return self.config.data
        write_packaged_data(self.folder.data)
        files = {
            "sft": "sft", "sft_held_out": "sft_heldout", "preferences": "preferences",
            "preferences_held_out": "preferences_heldout", "ppo_prompts": "ppo_prompts",
            "evaluation_prompts": "evaluation_prompts", "gate_prompts": "gate_prompts", "picture_questions": "vqa_test",
        }  # fmt: skip
        packaged = {name: str(self.folder.data / f"{file}.jsonl") for name, file in files.items()}
        return DataConfig(**{name: packaged[name] if value == PACKAGED else value for name, value in wanted.items()})

    def checkpoint(self, stage: str) -> Path:
        """The folder of a stage's model, in quarantine if it failed its gate; the base model stays where it is."""
        return self.config.base_checkpoint if stage == "base" else checkpoint_of(self.folder, stage)

    def require_parents(self, stage: str) -> None:
        """Raises Refused unless all that `stage` reads passed this run's policy with exactly its bytes."""
        for parent in DEMANDS[stage]:
            gate = self.folder.stage(parent).gate
            require_passing(gate, self.checkpoint(parent), parent, policy_digest=self._policy(parent))

    def _policy(self, stage: str) -> str:
        policy = self.config.reward_gate_policy if stage == "reward" else self.config.gate_policy
        return policy.digest

    def train(self, stage: str) -> None:
        """Trains one stage and writes its checkpoint, unless that is there already.

        Raises:
            Refused: when a parent has no passing verdict.
            BadInput: for bad options or data.
        """
        self.require_parents(stage)
        folder = self.folder.stage(stage)
        if self.checkpoint(stage).exists():
            self._require_same_parents(stage)
            return
        self._timed(f"{stage} trained", stage, lambda: self._train(stage, folder))
        # On record first, in its place last: a checkpoint that is there is never one that the ledger does not know.
        folder.unrecorded.rename(folder.checkpoint)

    def _parents(self, stage: str) -> dict[str, str]:
        return {parent: folder_digest(self.checkpoint(parent)) for parent in DEMANDS[stage]}

    def _require_same_parents(self, stage: str) -> None:
        """Refuses a checkpoint made from another parent than the one there now; puts a stranger's on record."""
        checkpoint, event = folder_digest(self.checkpoint(stage)), made(self.folder, stage)
        if event is None or event["checkpoint"] != checkpoint:
            details = {"stage": stage, "seconds": 0.0, "checkpoint": checkpoint}
            ledger.append(self.folder.ledger, f"{stage} adopted", details)
        elif event.get("parents", self._parents(stage)) != self._parents(stage):
            raise Refused(f"the checkpoint of {stage} was trained from another {' or '.join(DEMANDS[stage])} than the "
                          f"one there now; delete {self.folder.stage(stage).path} to train it again")

    def _train(self, stage: str, folder: StageFolder) -> dict[str, Any]:
        config, data, parent = self.config, self.data(), checkpoint.load(self.checkpoint(PARENT[stage]))
        options = {"sft": config.sft, "reward": config.reward, "ppo": config.ppo}[stage]
        options = dataclasses.replace(options, output_dir=str(folder.path))
        if stage == "sft":
            trainer = SFTTrainer(parent, options, data.sft, data.sft_held_out, self._probe(stage))
        elif stage == "reward":
            trainer = RewardTrainer(parent, options, data.preferences, data.preferences_held_out)
        else:
            reward_model = checkpoint.load(self.checkpoint("reward"), kind="scalar")
            trainer = PPOTrainer(parent, reward_model, options, data.ppo_prompts, self._probe(stage))
        write_json(folder.evaluation, trainer.train())
        shutil.rmtree(folder.unrecorded, ignore_errors=True)
        checkpoint.save(trainer.model, folder.unrecorded)
        saved = folder_digest(folder.unrecorded)
        return {"checkpoint": saved, "parents": self._parents(stage), "recipe": recipe(self.config, stage)}

    def _probe(self, stage: str) -> Probe | None:
        """Toxicity while a stage trains, if its options ask for it; no gate looks at it."""
        if not (self.config.sft if stage == "sft" else self.config.ppo).probe_steps:
            return None
        sets = gate_sets(self.data(), on_bad_row=self.config.ppo.on_bad_row)
        prompts = probe_prompts([prompt for found in sets for prompt in found.prompts], self.config.gate_policy)
        scorer, policy = make_scorer(self.config.scorer), self.config.gate_policy
        return toxicity_probe(prompts, scorer, policy, f"{stage} live toxicity")

    def gate(self, stage: str) -> Verdict:
        """The verdict about a checkpoint: the one on disk if it passes these bytes by this policy, or a new one."""
        folder = self.folder.stage(stage)
        if not self.checkpoint(stage).exists():
            raise BadInput(f"there is no checkpoint of {stage} to gate; train it first")
        if folder.verdict.exists():
            verdict = load(folder.verdict)
            scorer = dict(zip(("name", "version", "digest"), make_scorer(self.config.scorer).identity, strict=True))
            found = (verdict.checkpoint, verdict.policy, verdict.scorer)
            wanted = (folder_digest(self.checkpoint(stage)), self._policy(stage), scorer)
            # The same bytes, policy, scorer and parent fail again, however often they are asked.
            decided = verdict.passed or (verdict.outcome == "fail" and self._same_parent(verdict))
            if decided and found == wanted and has_evidence(verdict, folder.gate):
                self._require_record(verdict)
                settle(self.folder, verdict)
                return verdict
        verdicts = []

        def decide() -> dict[str, Any]:
            verdicts.append(self._gate_reward() if stage == "reward" else self._gate_policy(stage))
            return _what_counts(verdicts[0])

        self._timed(f"{stage} gated", stage, decide)
        settle(self.folder, verdicts[0])
        return verdicts[0]

    def _same_parent(self, verdict: Verdict) -> bool:
        """Whether a verdict was given in view of the verdict on its parent that is there now."""
        if verdict.stage == "base":
            return True
        parent = self.folder.stage(PARENT[verdict.stage])
        return parent.verdict.exists() and verdict.parent_verdict == verdict_digest(parent.gate)

    def waive(self, stage: str, reason: str) -> Verdict:
        """Lets a checkpoint be used although its gate did not pass it; on record, and seen in every later report.

        Raises:
            BadInput: no reason, no verdict, or nothing to waive.
            Refused: the verdict has no evidence, or is about other bytes.
        """
        verdict = waive(self.folder.stage(stage).gate, self.checkpoint(stage), reason=reason)
        self._require_record(verdict)
        settle(self.folder, verdict)
        return verdict

    def _require_record(self, verdict: Verdict) -> None:
        """Puts a verdict on record that is not: its command was killed before it could, or it comes from elsewhere."""
        event, counts = f"{verdict.stage} {'waived' if verdict.waiver else 'gated'}", _what_counts(verdict)
        known = ledger.verify(self.folder.ledger) if self.folder.ledger.exists() else []
        if not any(line["event"] == event and counts.items() <= line.items() for line in known):
            ledger.append(self.folder.ledger, event, {"stage": verdict.stage, "seconds": 0.0, **counts})

    def _gate_policy(self, stage: str) -> Verdict:
        path, policy = self.checkpoint(stage), self.config.gate_policy
        model = checkpoint.load(path)
        sets = gate_sets(self.data(), on_bad_row=self.config.ppo.on_bad_row)
        first = stage == "base"
        base = model if first or policy.utility.max_perplexity is None else checkpoint.load(self.checkpoint("base"))
        record = gates_on_record(self.folder, stage, folder_digest(path))
        return gate(
            gate_sampler(model, f"{stage} gate"),
            [prompt for found in sets for prompt in found.prompts],
            make_scorer(self.config.scorer),
            policy,
            stage=stage,
            checkpoint=path,
            folder=self.folder.stage(stage).gate,
            parent_gate=None if first else self.folder.stage(PARENT[stage]).gate,
            base_gate=None if first else self.folder.stage("base").gate,
            unprompted=unprompted_sampler(model, f"{stage} gate, unprompted"),
            fluency=fluency_under(base),
            forms=form_samplers(model, policy.parity, f"{stage} gate, other forms"),
            origins=[found.identity for found in sets],
            waivers=self._inherited(stage),
            attempts=record.attempts,
            tried=record.seeds,
        )

    def _inherited(self, stage: str) -> tuple[Waiver, ...]:
        """The waivers of what a stage is made from."""
        return inherited(self.folder.stage(parent).gate for parent in DEMANDS.get(stage, ()))

    def _gate_reward(self) -> Verdict:
        path, sft = self.checkpoint("reward"), self.folder.stage("sft")

        def measure() -> RewardEvidence:
            model, policy = checkpoint.load(path, kind="scalar"), checkpoint.load(self.checkpoint("sft"))
            rows = read_rows(self.data().preferences_held_out)
            rows = [row for row in rows if row.values.get("source") == "toxicity"]
            if not rows:
                raise BadInput('no row of preferences_held_out has the source "toxicity", on which the gate measures')
            options = self.config.reward
            pairs = preference_pairs(rows, model, max_length=options.max_length, on_bad_row=options.on_bad_row)
            demands = self.config.gate_policy
            replies = load_evaluation(sft.gate, make_scorer(self.config.scorer), demands)
            return reward_evidence(model, policy, pairs, replies, demands)

        return reward_gate(
            measure,
            self.config.reward_gate_policy,
            checkpoint=path,
            folder=self.folder.stage("reward").gate,
            parent_gate=sft.gate,
            waivers=self._inherited("reward"),
            attempts=gates_on_record(self.folder, "reward", folder_digest(path)).attempts,
        )

    def evaluate(self, stage: str) -> Mapping[str, Any]:
        """Measures a trained stage on held-out data again and writes evaluation.json."""
        path, data = self.checkpoint(stage), self.data()
        if stage == "reward":
            model = checkpoint.load(path, kind="scalar")
            options = self.config.reward
            rows = read_rows(data.preferences_held_out)
            pairs = preference_pairs(rows, model, max_length=options.max_length, on_bad_row=options.on_bad_row)
            figures = evaluate_pairs(model, pairs, seed=options.seed)
        else:
            figures = SFTTrainer(path, self.config.sft, data.sft_held_out, data.sft_held_out).evaluate()
        write_json(self.folder.stage(stage).evaluation, figures)
        return figures

    def _timed(self, event: str, stage: str, work: Callable[[], dict[str, Any]]) -> None:
        began = time.perf_counter()
        details = work()
        seconds = round(time.perf_counter() - began, 2)
        ledger.append(self.folder.ledger, event, {"stage": stage, "seconds": seconds, **details})

    def advance(self, first: str = "base", last: str = "ppo") -> None:
        """Runs the stages from `first` to `last`, each with its gate; stops at the first verdict that does not pass.

        Raises:
            GateFailed: a checkpoint did not pass.
            GateInconclusive: a gate could not decide.
            Refused: a stage before `first` has no passing verdict.
        """
        for name in (first, last):
            if name not in STAGES:
                raise BadInput(f"a stage is one of {', '.join(STAGES)}, not {name!r}")
        for stage in STAGES[STAGES.index(first) : STAGES.index(last) + 1]:
            if stage != "base":
                self.train(stage)
            self.gate(stage).raise_unless_passed()


def _what_counts(verdict: Verdict) -> dict[str, Any]:
    """What the ledger keeps of a verdict; of one that measured nothing no seed, for it looked at no luck."""
    counts = {name: getattr(verdict, name) for name in ("outcome", "checkpoint", "attempt")}
    return counts | ({"seeds": dict(verdict.seeds)} if "samples.jsonl" in verdict.evidence else {})
