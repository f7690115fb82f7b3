"""The table of commands. Nothing is imported until a command is chosen, so the top-level help is instant.

To add a command: write a config dataclass and a function that takes it, and add a row. The function returns an exit
code, or None for success; its errors are those of training/errors.py.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        target: `module:function`; called with the config.
        config: `module:Dataclass`; its fields are the options.
        help: What it does, in one line.
        example: A line that works, without the leading `theodolite`.
        positional: The fields that bare arguments set, separated by spaces ("config": the YAML file; `data...`: all
            that are left, as a list), or None.
    """

    target: str
    config: str
    help: str
    example: str
    positional: str | None = None


GROUPS = {
    "base": "the base model: its tokenizer, pretraining, a look at it",
    "sft": "supervised fine-tuning on conversations",
    "reward": "the reward model",
    "ppo": "reinforcement learning against the reward model",
    "safety": "toxicity gates: measure a checkpoint, decide, attest, verify",
    "tpu": "what training would need on TPUs, found without one",
}

COMMANDS = {
    "quickstart": Command(
        target="pipeline.commands.quickstart:quickstart",
        config="pipeline.commands.quickstart:Quickstart",
        help="the whole pipeline on the shipped tiny model and packaged data",
        example="quickstart out=runs/quickstart",
    ),
    "run": Command(
        target="pipeline.commands.run:run",
        config="pipeline.commands.run:Run",
        help="the whole pipeline from a config, or a part of it",
        example="run configs/quickstart.yaml --from sft --until reward",
        positional="config",
    ),
    "base tokenizer": Command(
        target="pipeline.commands.base:tokenizer",
        config="pipeline.commands.base:BaseTokenizer",
        help="train a SentencePiece tokenizer on text",
        example="base tokenizer out=runs/base",
    ),
    "base pretrain": Command(
        target="pipeline.commands.base:pretrain",
        config="pipeline.commands.base:BasePretrain",
        help="pretrain the base model; continues where an interrupted run stopped",
        example="base pretrain --config configs/tiny_base.yaml out=runs/base",
    ),
    "base distill": Command(
        target="pipeline.commands.distill:distill",
        config="pipeline.commands.distill:BaseDistill",
        help="make a smaller model learn from what a larger one makes of the same rows",
        example="base distill teacher=shipped student=tiny-quarter out=runs/distilled",
    ),
    "base generate": Command(
        target="pipeline.commands.base:generate",
        config="pipeline.commands.base:BaseGenerate",
        help="let a checkpoint answer a prompt, with or without a picture",
        example='base generate prompt="How are you?" temperature=0.7',
    ),
    "base image-tokenizer train": Command(
        target="pipeline.commands.image_tokenizer:train",
        config="pipeline.commands.image_tokenizer:ImageTokenizerTrain",
        help="train what turns pictures into codes and back",
        example="base image-tokenizer train out=runs/image-tokenizer",
    ),
    "base image-tokenizer encode": Command(
        target="pipeline.commands.image_tokenizer:encode",
        config="pipeline.commands.image_tokenizer:ImageTokenizerEncode",
        help="print the codes of a picture",
        example="base image-tokenizer encode picture.png",
        positional="image",
    ),
    "base image-tokenizer decode": Command(
        target="pipeline.commands.image_tokenizer:decode",
        config="pipeline.commands.image_tokenizer:ImageTokenizerDecode",
        help="write the picture that codes stand for",
        example="base image-tokenizer decode codes.txt out=picture.png",
        positional="codes",
    ),
    "base draw": Command(
        target="pipeline.commands.draw:draw",
        config="pipeline.commands.draw:BaseDraw",
        help="let a model that has codes of pictures draw one",
        example='base draw prompt="Draw a red circle." checkpoint=runs/drawing/checkpoint out=circle.png',
    ),
    "base info": Command(
        target="pipeline.commands.base:info",
        config="pipeline.commands.base:BaseInfo",
        help="a checkpoint's sizes, layers and digest",
        example="base info checkpoint=runs/quickstart/sft/checkpoint",
    ),
    "base evaluate long-context": Command(
        target="pipeline.commands.long_context:long_context",
        config="pipeline.commands.long_context:LongContext",
        help="values looked up by key at some depths of long contexts, and loss by position",
        example="base evaluate long-context lengths=[256,512] rows=10",
    ),
    "base verify": Command(
        target="pipeline.commands.published:verify",
        config="pipeline.commands.published:BaseVerify",
        help="compare a published model with what another implementation computed for it",
        example="base verify models/gemma-3-4b-it --atol 1e-4",
        positional="folder",
    ),
    "base import": Command(
        target="pipeline.commands.published:import_",
        config="pipeline.commands.published:BaseImport",
        help="make a checkpoint of a published Gemma 3 or Gemma 4 model",
        example="base import models/gemma-3-4b-it out=runs/gemma/checkpoint",
        positional="source",
    ),
    "base export": Command(
        target="pipeline.commands.published:export",
        config="pipeline.commands.published:BaseExport",
        help="write a checkpoint in the layout of published models",
        example="base export runs/quickstart/ppo/checkpoint out=models/mine towers=false",
        positional="checkpoint",
    ),
    "base quantize": Command(
        target="pipeline.commands.quantize:quantize",
        config="pipeline.commands.quantize:BaseQuantize",
        help="write a checkpoint in 4 or 8 bits",
        example="base quantize runs/quickstart/ppo/checkpoint out=runs/small/checkpoint weights=int4",
        positional="checkpoint",
    ),
    "sft train": Command(
        target="pipeline.commands.stage:sft_train",
        config="pipeline.commands.stage:Stage",
        help="fine-tune a base model that has passed its gate",
        example="sft train --config configs/quickstart.yaml out=runs/mine sft.learning_rate=1e-3",
    ),
    "sft evaluate": Command(
        target="pipeline.commands.stage:sft_evaluate",
        config="pipeline.commands.stage:Stage",
        help="loss and exact match on held-out conversations",
        example="sft evaluate --config configs/quickstart.yaml out=runs/mine",
    ),
    "reward train": Command(
        target="pipeline.commands.stage:reward_train",
        config="pipeline.commands.stage:Stage",
        help="train a reward model on preference pairs",
        example="reward train --config configs/quickstart.yaml out=runs/mine reward.learning_rate=3e-4",
    ),
    "reward evaluate": Command(
        target="pipeline.commands.stage:reward_evaluate",
        config="pipeline.commands.stage:Stage",
        help="accuracy, margins and calibration on held-out pairs, by source and modality",
        example="reward evaluate --config configs/quickstart.yaml out=runs/mine",
    ),
    "ppo train": Command(
        target="pipeline.commands.stage:ppo_train",
        config="pipeline.commands.stage:Stage",
        help="train the SFT model against the reward model, held near where it started",
        example="ppo train --config configs/quickstart.yaml out=runs/mine ppo.kl_coef=0.02",
    ),
    "safety evaluate": Command(
        target="pipeline.commands.toxicity:evaluate",
        config="pipeline.commands.toxicity:SafetyEvaluate",
        help="measure a checkpoint's toxicity, without a verdict",
        example="safety evaluate checkpoint=runs/quickstart/sft/checkpoint",
    ),
    "safety gate": Command(
        target="pipeline.commands.safety:gate",
        config="pipeline.commands.safety:Safety",
        help="measure a checkpoint and write the verdict that the next stage asks for",
        example="safety gate stage=sft out=runs/quickstart",
    ),
    "safety keygen": Command(
        target="pipeline.commands.attestation:keygen",
        config="pipeline.commands.attestation:Keygen",
        help="make a key that signs verdicts",
        example="safety keygen gates.pem",
        positional="out",
    ),
    "safety verify": Command(
        target="pipeline.commands.attestation:verify",
        config="pipeline.commands.attestation:Verify",
        help="check the signed verdicts of a run, or of a stage in one, back to the base model",
        example="safety verify runs/quickstart --key gates.pem.pub",
        positional="out",
    ),
    "safety power": Command(
        target="pipeline.commands.power:power",
        config="pipeline.commands.power:Power",
        help="how many prompts a limit needs, or what a number of prompts can decide",
        example="safety power margin=0.03 power=0.9",
    ),
    "safety redraw": Command(
        target="pipeline.commands.redraw:redraw",
        config="pipeline.commands.redraw:Redraw",
        help="draw the replies to one prompt of a gate again, and compare them with those it stored",
        example="safety redraw runs/quickstart ppo 17",
        positional="out stage prompt",
    ),
    "safety quarantine": Command(
        target="pipeline.commands.quarantine:quarantine",
        config="pipeline.commands.quarantine:Quarantine",
        help="list, show or waive what did not pass its gate",
        example="safety quarantine show runs/quickstart sft",
        positional="action out stage",
    ),
    "safety calibrate": Command(
        target="pipeline.commands.scorers:calibrate",
        config="pipeline.commands.scorers:Calibrate",
        help="fit a scorer's scores to those that Perspective gave to the same texts",
        example="safety calibrate realtoxicityprompts.jsonl calibration.json",
        positional="data out",
    ),
    "safety convert-detoxify": Command(
        target="pipeline.commands.scorers:convert_detoxify",
        config="pipeline.commands.scorers:ConvertDetoxify",
        help="make a detoxify checkpoint one that JAX runs, without torch",
        example="safety convert-detoxify toxic_original.ckpt detoxify transformer=bert-base-uncased",
        positional="checkpoint out",
    ),
    "safety audit-scorer": Command(
        target="pipeline.commands.scorers:audit_scorer",
        config="pipeline.commands.scorers:AuditScorer",
        help="measure what a scorer misses, flags wrongly and makes of neutral sentences about groups",
        example="safety audit-scorer realtoxicityprompts.jsonl scorer=lexical out=runs/mine/scorer_audit.json",
        positional="data...",
    ),
    "tpu compile": Command(
        target="pipeline.commands.tpu:compile",
        config="pipeline.commands.tpu:TpuCompile",
        help="compile the trainers' programs for a TPU topology: memory, FLOPs, collectives",
        example="tpu compile --topology v5e:4x4 --preset nano-1 --programs sft",
    ),
    "report": Command(
        target="pipeline.commands.report:report",
        config="pipeline.commands.report:Report",
        help="draw the page of a run again",
        example="report runs/quickstart",
        positional="run",
    ),
}
