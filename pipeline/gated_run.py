"""A run and its gates: what must be signed before a checkpoint is read, and what a gate says of one."""

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from jax.sharding import Mesh

from base_model.checkpoint import LanguageModel
from pipeline import ledger
from pipeline.attested_model import load_attested, load_listed, load_with_digest
from pipeline.chain import DEMANDS, PARENT, chain, run_identity
from pipeline.config import PACKAGED, DataConfig, RunConfig
from pipeline.data.packaged import write_packaged_data
from pipeline.drawings import detector_for, painter
from pipeline.forms import form_samplers
from pipeline.gate_pairs import gate_pairs
from pipeline.gate_prompts import drawn_prompts, gate_sets
from pipeline.gates import gate_sampler, make_scorer, require_readable, reward_evidence
from pipeline.grounds import grounds
from pipeline.keyring import Keyring
from pipeline.plain_text import fluency_under, unprompted_sampler
from pipeline.quarantine import checkpoint_of, gates_on_record
from pipeline.run_folder import RunFolder
from pipeline.versions import deciding_versions
from reward.data import preference_pairs
from safety.attestation import Attestation, Seal, read
from safety.evidence import load_evaluation
from safety.gate import gate
from safety.gate_folder import draws_tried
from safety.prompt_set import PromptSet, PromptSetIdentity
from safety.prompts import GatePrompt
from safety.quarantine import inherited
from safety.reward_evidence import RewardEvidence
from safety.reward_gate import reward_gate
from safety.time_limit import TimeLimit
from safety.verdict import Verdict
from safety.waiver import Waiver
from training.config import TrainingConfig
from training.dataset import Row
from training.digest import manifest, manifest_digest
from training.minimise import mesh_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedRun:
    """A run's config and folder, and the keys of whoever looks at it.

    Attributes:
        config: what the run depends on.
        folder: where it lives.
        keyring: what its verdicts are signed with, and whose signatures count.
    """

    config: RunConfig
    folder: RunFolder
    keyring: Keyring

    def data(self) -> DataConfig:
        """The data files; those that are packaged are written into the run's folder first."""
        if PACKAGED in dataclasses.asdict(self.config.data).values():
            write_packaged_data(self.folder.data, pretrained=True)
        return self.data_files()

    def data_files(self) -> DataConfig:
        """The same files, as they are."""
        wanted = dataclasses.asdict(self.config.data)
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

    def parents(self, stage: str) -> dict[str, Attestation]:
        """The signed verdicts on all that `stage` reads; what they are about is compared when it is read.

        Raises:
            Refused: unless each, and each that it is built on, passes by this run's policy, scorer and prompts, in
                this run.
        """
        found, trusted = dict[str, Attestation](), self.keyring.trusted()
        for parent in DEMANDS[stage]:
            for link in chain(self.folder, parent, trusted):
                found[link.verdict.stage] = link
        data = self.data()
        for link in found.values():
            grounds(self.config, link.verdict.stage, data).require(link.verdict)
        return {parent: found[parent] for parent in DEMANDS[stage]}

    def signed(self, stage: str) -> Attestation:
        """The signed verdict on a stage in this run, whatever it says.

        Raises:
            Refused: there is none by a trusted key.
        """
        run = run_identity(self.folder.ledger)
        return read(self.folder.stage(stage).gate, stage, trusted=self.keyring.trusted(), run=run)

    def attested(self, stage: str, *, kind: str = "decoder") -> LanguageModel:
        """The model that the signed verdict on a stage is about."""
        return load_attested(self.signed(stage), self.checkpoint(stage), kind=kind, mesh=self.mesh(stage))

    def mesh(self, stage: str) -> Mesh:
        """Where a stage is trained, and its model gated and measured; the base model has that of SFT."""
        options: dict[str, TrainingConfig] = {"reward": self.config.reward, "ppo": self.config.ppo}
        return mesh_of(options.get(stage, self.config.sft))

    def seal(self) -> Seal:
        """What this run's gates sign their verdicts with.

        Raises:
            BadInput: there is no key to sign with, or none that counts.
        """
        key = self.keyring.signing()
        if run_identity(self.folder.ledger) == ledger.FIRST:  # verdicts name a run by its first event
            ledger.append(self.folder.ledger, "opened", {"run": secrets.token_hex(16)})
        return Seal(key=key, run=run_identity(self.folder.ledger), versions=deciding_versions())

    def gate_sets(self) -> list[PromptSet]:
        """The sets that the gates' prompts are drawn from.

        Raises:
            BadInput: one cannot be read, or PPO trains on some of its prompts.
        """
        return gate_sets(self.data(), self.config.gate_policy, on_bad_row=self.config.ppo.on_bad_row)

    def posed(self) -> tuple[Sequence[GatePrompt], Sequence[PromptSetIdentity]]:
        """The prompts that the policy draws, and the sets that they are drawn from."""
        sets = self.gate_sets()
        return drawn_prompts(sets, self.config.gate_policy), [found.identity for found in sets]

    def judge(
        self,
        stage: str,
        into: Path,
        prompts: Sequence[GatePrompt],
        origins: Sequence[PromptSetIdentity],
        seal: Seal | None = None,
    ) -> Verdict:
        """Gates the checkpoint of base, SFT or PPO.

        Args:
            stage: whose.
            into: where the verdict goes.
            prompts: what to pose.
            origins: the sets that they are from.
            seal: what to sign with.
        """
        policy, first = self.config.gate_policy, stage == "base"
        model, digest = load_with_digest(self.checkpoint(stage), mesh=self.mesh(stage))
        base = model if first or policy.utility.max_perplexity is None else self.attested("base")
        require_readable(model, prompts)
        record, paint = gates_on_record(self.folder, stage, digest), painter(model)
        limit = TimeLimit(policy.max_seconds)
        return gate(
            gate_sampler(model, f"{stage} gate", check=limit.check),
            prompts,
            make_scorer(self.config.scorer),
            policy,
            stage=stage,
            checkpoint=digest,
            folder=into,
            parent_gate=None if first else self.folder.stage(PARENT[stage]).gate,
            base_gate=None if first else self.folder.stage("base").gate,
            reward_gate=self.folder.stage("reward").gate if stage == "ppo" else None,
            unprompted=unprompted_sampler(model, f"{stage} gate, unprompted", check=limit.check),
            fluency=fluency_under(base),
            forms=form_samplers(model, policy.parity, f"{stage} gate, other forms", check=limit.check),
            painter=paint,
            detector=detector_for(policy.drawings, paint),
            origins=origins,
            waivers=self._inherited(stage),
            attempts=record.attempts,
            tried=record.draws | draws_tried(self.folder.stage(stage).gate, digest),
            limit=limit,
            seal=seal,
        )

    def pairs(self) -> list[Row]:
        """The rows that the reward model's gate measures on; raises as `gate_pairs` does."""
        return gate_pairs(self.data().preferences_held_out)

    def judge_reward(self, into: Path, pairs: Callable[[], Sequence[Row]], seal: Seal | None = None) -> Verdict:
        """Gates the reward model on these rows; the other arguments are those of `judge`."""
        path, sft = self.checkpoint("reward"), self.folder.stage("sft")
        entries = manifest(path)
        digest = manifest_digest(entries)

        def measure() -> RewardEvidence:
            model = load_listed(path, entries, kind="scalar", mesh=self.mesh("reward"))
            policy = self.attested("sft")
            rows, options = pairs(), self.config.reward
            usable = preference_pairs(rows, model, max_length=options.max_length, on_bad_row=options.on_bad_row)
            demands = self.config.gate_policy
            replies = load_evaluation(sft.gate, make_scorer(self.config.scorer), demands)
            return reward_evidence(model, policy, rows, usable, replies, demands)

        return reward_gate(
            measure,
            self.config.reward_gate_policy,
            checkpoint=digest,
            folder=into,
            parent_gate=sft.gate,
            waivers=self._inherited("reward"),
            attempts=gates_on_record(self.folder, "reward", digest).attempts,
            seal=seal,
        )

    def _inherited(self, stage: str) -> tuple[Waiver, ...]:
        """The waivers of what a stage is made from."""
        return inherited(self.folder.stage(parent).gate for parent in DEMANDS.get(stage, ()))
