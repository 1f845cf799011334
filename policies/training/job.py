"""From a policy's name and demonstrations to a checkpoint folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from policies.batch import Batch, BatchSpec
from policies.checkpoint import WEIGHTS, CheckpointMismatch
from policies.training.backbone import BackbonePart
from policies.training.config import TrainConfig
from policies.training.features import FeatureCache, Source, cache_features
from policies.training.looks import LookSampler
from policies.training.loop import Events, Trainer
from policies.training.rehearsal import Rehearsal
from policies.training.sampling import Sampler, split
from policies.training.statistics import statistics_of
from policies.training.trainable import Part, Trainable, adopt, part_of, trainable_of
from wamsim.demonstrations import DemonstrationSet, UnusableDemonstrations
from wamsim.errors import WamsimError
from wamsim.looks import LookSet
from wamsim.provenance import content_hash, weights_hash
from wamsim.whole_file import write_whole

CHECKPOINT, ABOUT = "checkpoint", "training.json"
WHOLE = "all"
FINISH_BATCHES = 8  # for measuring a finished part


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained on what.

    Attributes:
        name: ``family:variant``, for texts.
        policy: The policy or world model; its ``model`` is trained.
        described: Family, variant and options as plain data.
        demonstrations: The data.
        out: Folder of the training.
        cache: Folder for frozen features.
        config: How.
        part: "all", or the name of a part.
        taken: Part's name -> checkpoint to take it from.
        half: Write the checkpoint's weights in half precision.
        looks: What a backbone also learns to point in, by itself or, so that it does not
            forget how, within the whole model; or None.
    """

    name: str
    policy: Any
    described: dict[str, Any]
    demonstrations: DemonstrationSet
    out: Path
    cache: Path
    config: TrainConfig
    part: str = WHOLE
    taken: Mapping[str, Path] = field(default_factory=dict[str, Path])
    half: bool = False
    looks: LookSet | None = None


def train(job: Job, events: Events | None = None) -> Path:
    """Train, or go on with a training that was killed.

    Returns:
        The checkpoint's folder.

    Raises:
        NotTrainable, UnknownName: The policy has no weights, or not that part.
        UnusableDemonstrations, ConventionMismatch: The data do not fit the model, or looks
            were given for a part that does not look.
        WamsimError: The part that is to be trained would be frozen.
        ConfigurationMismatch: The folder holds another training.
        FloatingPointError: A loss is not finite; names the term.
    """
    events = events or Events()
    model, config = trainable_of(job.policy, job.name), job.config
    assert isinstance(model, nn.Module)
    torch.set_num_threads(config.threads)
    part = None if job.part == WHOLE else part_of(model, job.part, job.name)
    if config.taken_lr == 0.0 and job.part in job.taken:
        raise WamsimError(
            f"--taken-lr 0 freezes the {job.part} that --part {job.part} is to train on from a "
            f"checkpoint. Leave out one of the three."
        )
    spec = model.batch_spec if part is None else part.batch_spec
    model.set_statistics(statistics_of(job.demonstrations, spec, model))
    taken: tuple[str, ...] = ()
    for name, source in job.taken.items():
        brought = part_of(model, name, job.name)
        adopt(model, brought, source)
        taken += brought.prefixes
    looking = None
    if job.looks is not None:
        looking = _looking(part or part_of(model, "backbone", job.name), job.part)
        looking.look_at(LookSampler(job.looks, looking.batch_spec))
    for parameter in () if part is None else part.parameters():
        parameter.requires_grad_(True)  # frozen beside the rest, free by itself
    learn, held_out = split(job.demonstrations, config.validate_every)
    sampler = Sampler(
        job.demonstrations, spec, learn, batch=config.batch, seed=config.seed, shift=config.shift
    )
    validation = None
    if len(held_out):
        validation = Sampler(
            job.demonstrations, spec, held_out, batch=config.batch, seed=config.seed + 1
        )
    document = _describe(job)

    def cached(whose: Any, sources: Sequence[Source]) -> FeatureCache | None:
        return cache_features(
            model, getattr(whose, "frozen_features", None), sources,
            cache=job.cache, batch=config.batch, progress=events.features,
        )  # fmt: skip

    features = cached(part or model, Source.of_set(sampler))
    for one in (sampler, validation):
        if one is not None:
            one.features = features
    if looking is not None and looking.looks is not None:
        looking.looks.features = cached(looking, [looking.looks.source])
    if config.taken_lr == 0.0:  # after features: they are of what is frozen in every training
        for name, parameter in model.named_parameters():
            if name.startswith(taken):
                parameter.requires_grad_(False)
    model.train()
    trainer = Trainer(
        model=model,
        learner=part or (model if looking is None else Rehearsal(model, looking)),
        config=config,
        folder=job.out,
        train=sampler,
        validation=validation,
        config_hash=content_hash(document["decides"]),
        taken=taken,
        events=events,
    )
    trainer.resume()
    write_whole(job.out / ABOUT, (json.dumps(document, indent=2) + "\n").encode())
    trainer.run()
    with trainer.averaged():
        quality = {} if part is None else _finish(part, validation or sampler)
        document |= {"quality": quality}
        return save_checkpoint(model, job.out / CHECKPOINT, document, half=job.half)


def spec_of(policy: Any, name: str, parts: Sequence[str] = ()) -> BatchSpec:
    """Say what a training will need of each sample, before anything is drawn for it.

    A part sees some of it: what is drawn for the part serves the whole model afterwards.

    Args:
        policy: The policy or world model.
        name: For texts.
        parts: Those that will be trained or taken, which it must have.

    Raises:
        NotTrainable, UnknownName: As `train`.
    """
    model = trainable_of(policy, name)
    for part in parts:
        part_of(model, part, name)
    return model.batch_spec


def looks_spec_of(policy: Any, name: str, part: str) -> BatchSpec:
    """Say what will be needed of each look; see `spec_of`.

    Raises:
        UnusableDemonstrations: The part does not look.
    """
    own = part_of(trainable_of(policy, name), "backbone" if part == WHOLE else part, name)
    return _looking(own, part).batch_spec


def _looking(part: Part, name: str) -> BackbonePart:
    if not isinstance(part, BackbonePart):
        raise UnusableDemonstrations(
            f"a {name} does not look. Leave out --looks, or train the backbone."
        )
    return part


def save_checkpoint(
    model: Trainable, folder: Path, document: dict[str, Any], *, half: bool
) -> Path:
    """Write a checkpoint and, beside it, how it was trained.

    Args:
        model: With the weights to write.
        folder: Where.
        document: How it was trained.
        half: In half precision; whoever loads it computes in its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if half:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        halved = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
        write_whole(folder / WEIGHTS, safetensors.torch.save(halved))
    write_whole(folder / ABOUT, (json.dumps(document, indent=2) + "\n").encode())
    return folder


def read_about(folder: Path) -> tuple[str, dict[str, Any]]:
    """Read how a checkpoint was trained.

    Returns:
        ``family:variant`` and the document.

    Raises:
        CheckpointMismatch: The folder does not say.
    """
    path = folder / ABOUT
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        policy = document["decides"]["policy"]
        return f"{policy['family']}:{policy['variant']}", document
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(
            f"no {ABOUT} of `wamsim train` can be read ({error!r}). File: {path}"
        ) from error


def _finish(part: Part, sampler: Sampler) -> dict[str, float]:
    batches: list[Batch] = [sampler.batch(i) for i in range(FINISH_BATCHES)]
    return part.finish(batches)


def _describe(job: Job) -> dict[str, Any]:
    files = job.demonstrations.files
    infos = [f.info for f in files]
    tasks = sorted({f"{i.suite}/{i.task}" for i in infos})
    decides = {
        "policy": job.described,
        "part": job.part,
        "config": dataclasses.asdict(job.config),
        "initial_weights": weights_hash(job.policy),  # what was taken included
        "data": content_hash([i.to_json() for i in infos]),
        "every": job.demonstrations.every,
    }
    if job.looks is not None:  # trainings without any keep the hash that they had before
        decides["looks"] = {"count": len(job.looks), "hash": job.looks.hash()}
    return {
        "decides": decides,
        "episodes": len(files),
        "left_out": job.demonstrations.left_out,
        "samples": len(job.demonstrations),
        "tasks": tasks,
        "stand_in_visuals": any(i.stand_in_visuals for i in infos),
        "sources": sorted({i.source for i in infos}),
        "first_trial": int(np.min([i.index for i in infos])),
    }
