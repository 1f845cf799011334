"""SpatialVLA: LLaVA-3D and a flow-matching action expert, in three fusions.

Flow (openpi's convention): t = 1 is noise, x_t = t eps + (1 - t) a, target eps - a.

Axes: B rows, H horizon, A action channels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec, check_finite
from policies.checkpoint import (
    STATISTICS,
    CheckpointMismatch,
    Identity,
    Pretrained,
    Statistics,
    local_folder,
)
from policies.spatialvla.config import FAMILY_NAME, Mask, SpatialVLAConfig, TimeLaw
from policies.spatialvla.expert import DeepExpert, LateExpert
from policies.spatialvla.inputs import Inputs, draw_flow, from_batch
from policies.spatialvla.masks import CACHEABLE, Role, attention_mask, positions
from policies.spatialvla.perception import PositionEmbedding, Seen, clip_vision, projector, see
from policies.spatialvla.text import Tokenizer, WordTokenizer, load_tokenizer
from policies.spatialvla.transformer import KeyValues, Stack, run_layers
from policies.training.backbone import BackbonePart, Reading
from policies.training.trainable import Part
from wamsim.conventions import PROPRIOS, Orientation

STD_FLOOR = 1e-8  # 3dvla_late_fusion train/utils_flow.py adds it when normalising


@dataclass(frozen=True)
class Prefix:
    """What every step of the flow looks back at.

    Attributes:
        tokens: [B, S, width] as the expert's stack (late) or the language model (deep) takes it.
        valid: bool [B, S].
        state: Normalised state [B, P], or None.
        kept: Keys and values per layer, or None: then every step runs the prefix again.
    """

    tokens: Tensor
    valid: Tensor
    state: Tensor | None
    kept: list[KeyValues] | None

    def repeated(self, times: int) -> Prefix:
        """Every row `times` times, one after the other."""
        kept = self.kept
        return Prefix(
            self.tokens.repeat_interleave(times, 0),
            self.valid.repeat_interleave(times, 0),
            None if self.state is None else self.state.repeat_interleave(times, 0),
            None if kept is None else [layer.repeated(times) for layer in kept],
        )


class SpatialVLA(Pretrained, nn.Module):
    """The network of one variant.

    Args:
        config: Which, and how large. Statistics start as the identity, the tokenizer as words.
    """

    def __init__(self, config: SpatialVLAConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.identity = Identity(family=FAMILY_NAME, variant=config.variant, preset=config.preset)
        self.tokenizer: Tokenizer = WordTokenizer(config.vocab)
        self.vision = clip_vision(config.vision)
        self.position_embedding = PositionEmbedding(config.vision.width)
        self.projector = projector(config.vision.width, config.language.width)
        self.language = Stack(config.language, vocab=config.vocab)
        self.expert = DeepExpert(config) if config.deep else LateExpert(config)
        dims = {"action": config.action.dim}
        if config.proprio is not None:
            dims["proprio"] = config.proprio.dim
        self.statistics = Statistics.identity(dims)
        for name in config.frozen:
            cast(nn.Module, getattr(self, name)).requires_grad_(False)

    def reconfigure(self, config: SpatialVLAConfig) -> None:
        """Take another configuration with the same weights (mask, steps of the input, ...)."""
        self.config = config
        if isinstance(self.expert, LateExpert):
            self.expert.input_scale = config.input_scale

    # ------------------------------------------------------------- statistics

    def set_statistics(self, statistics: Statistics) -> None:
        """Take a data set's statistics (mean and std of action and, with a state, proprio).

        Raises:
            CheckpointMismatch: One is missing or has another length.
        """
        for what, dim in self._dims().items():
            for kind in ("mean", "std"):
                statistics.get(what, kind, dim)
        self.statistics = statistics

    def _dims(self) -> dict[str, int]:
        proprio = self.config.proprio
        return {"action": self.config.action.dim, **({"proprio": proprio.dim} if proprio else {})}

    def normalise(self, x: Tensor, what: str) -> Tensor:
        """Z-score [..., dim] of "action" or "proprio", float32."""
        mean, std = self._moments(what, x.device)
        return (x.float() - mean) / (std + STD_FLOOR)

    def restore(self, actions: Tensor) -> Tensor:
        """Undo `normalise` for actions [B, H, A]."""
        mean, std = self._moments("action", actions.device)
        return actions.float() * std + mean

    def _moments(self, what: str, device: torch.device) -> tuple[Tensor, Tensor]:
        dim = self._dims()[what]
        mean, std = (self.statistics.get(what, kind, dim).to(device) for kind in ("mean", "std"))
        return mean, std

    # ---------------------------------------------------------------- network

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language.norm.weight.device

    def prefix(self, inputs: Inputs, *, cache: bool, trim: bool = False) -> Prefix:
        """Look and read, once per query.

        Args:
            inputs: B rows.
            cache: Keep keys and values where that is exact (every mask but full).
            trim: Cut off padding that no row of the batch needs. It is masked, so only time
                and rounding change; training can afford that.
        """
        config = self.config
        tokens, valid, _ = self._embedded(inputs, trim=trim)
        state = None if inputs.state is None else self.normalise(inputs.state, "proprio")
        roles = [Role.PREFIX] * tokens.shape[1]
        places = positions(valid)
        if isinstance(self.expert, LateExpert):
            # the language model itself reads causally, whatever the expert's mask
            causal = attention_mask(Mask.CAUSAL, roles, valid)
            hidden, _ = self.language.run(tokens, causal, places)
            tokens = self.expert.context(hidden)
        kept = None
        if cache and config.mask in CACHEABLE:
            mask = attention_mask(config.mask, roles, valid)
            stack = self.expert.model if isinstance(self.expert, LateExpert) else self.language
            streams = [(stack.layers, tokens)]
            _, kept = run_layers(streams, stack.config, mask, places, keys_only=True)
        return Prefix(tokens, valid, state, kept)

    def _embedded(self, inputs: Inputs, *, trim: bool) -> tuple[Tensor, Tensor, Seen]:
        """Visual tokens, then words: [B, S, W], which are real, and what was seen."""
        ids, read = inputs.ids, inputs.words
        seen = see(inputs, self.config, self.vision, self.position_embedding, self.projector)
        visual, real = seen.tokens, seen.valid
        if trim:  # padding comes last in both
            most, longest = int(real.sum(1).max()), int(read.sum(1).max())
            visual, real = visual[:, :most], real[:, :most]
            ids, read = ids[:, :longest], read[:, :longest]
        tokens = torch.cat((visual, self.language.embed_tokens(ids)), 1)
        return tokens, torch.cat((real, read), 1), seen

    def suffix_roles(self) -> list[Role]:
        """Roles of the tokens behind the prefix, in order."""
        actions = [Role.ACTION] * self.config.horizon
        if not self.config.deep:
            return [Role.TIME, *actions]
        return [*([Role.STATE] if self.config.use_state else []), *actions, Role.TIME]

    def velocity(self, actions: Tensor, time: Tensor, prefix: Prefix) -> Tensor:
        """Predict the flow's velocity.

        Args:
            actions: Noisy, normalised [B, H, A].
            time: [B], 1 is noise.
            prefix: Of the same rows.

        Returns:
            float32 [B, H, A].
        """
        expert, config = self.expert, self.config
        if isinstance(expert, LateExpert):
            suffix = expert.suffix(actions, time)
        else:
            suffix = expert.suffix(actions, time, prefix.state)
        own = self.suffix_roles()
        roles = [Role.PREFIX] * prefix.tokens.shape[1] + own
        valid = F.pad(prefix.valid, (0, len(own)), value=True)
        places = positions(valid)
        if prefix.kept is not None:
            mask = attention_mask(config.mask, roles, valid, queries=len(own))
            places = places[:, -len(own) :]
            before: list[Tensor] = []
        else:
            mask = attention_mask(config.mask, roles, valid)
            before = [prefix.tokens]
        if isinstance(expert, LateExpert):
            whole = torch.cat((*before, suffix), 1)
            hidden = expert.model.run(whole, mask, places, prefix.kept)[0][:, -len(own) :]
        else:
            streams = [(self.language.layers, x) for x in before]
            streams.append((expert.layers(self.language), suffix))
            out, _ = run_layers(streams, config.language, mask, places, prefix.kept)
            hidden = expert.norm(out[-1])
        first = own.index(Role.ACTION)
        return expert.action_out_proj(hidden[:, first : first + config.horizon]).float()

    @torch.no_grad()
    def sample(self, inputs: Inputs, noise: Tensor, *, steps: int, cache: bool = True) -> Tensor:
        """Integrate from noise (t = 1) to actions (t = 0) with Euler steps.

        Args:
            inputs: B rows.
            noise: [B, H, A].
            steps: Number of steps (openpi and 3dvla_late_fusion: 10).
            cache: See `prefix`.

        Returns:
            float32 [B, H, A] in the data's own units.
        """
        return self.denoise(self.prefix(inputs, cache=cache), noise, steps=steps)

    @torch.no_grad()
    def denoise(self, prefix: Prefix, noise: Tensor, *, steps: int) -> Tensor:
        """Integrate behind a prefix; see `sample`."""
        x, rows = noise.float(), noise.shape[0]
        for step in range(steps):
            time = torch.full((rows,), 1.0 - step / steps, device=x.device)
            x = x - self.velocity(x, time, prefix) / steps
        return self.restore(x)

    # --------------------------------------------------------------- training

    @property
    def batch_spec(self) -> BatchSpec:
        """What `loss` needs of each sample."""
        config = self.config
        return BatchSpec(
            cameras=config.cameras,
            image_size=(config.vision.image_size,) * 2,
            frame_offsets=config.frame_offsets,
            horizon=config.horizon,
            action=config.action,
            proprio=config.proprio,
            depth=config.use_depth,
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Flow-matching loss: plain mean squared error, padded actions included.

        Actions behind an episode's end repeat the last one and count, as in
        3dvla_late_fusion train/data_flow.py.

        Returns:
            "flow" and "total" (the same).

        Raises:
            FloatingPointError: It is not finite.
        """
        inputs = from_batch(batch, self.config, self.tokenizer, self.device)
        many = self.config.flow_draws
        actions = self.normalise(batch.actions.to(self.device), "action")
        seeds = None if batch.seed is None else inputs.seeds
        noise, uniform = draw_flow(seeds, batch.size, (many, *actions.shape[1:]))
        actions, noise = actions.repeat_interleave(many, 0), noise.flatten(0, 1).to(self.device)
        time = self.training_time(uniform.flatten().to(self.device))
        at = time[:, None, None]
        noisy = at * noise + (1.0 - at) * actions
        prefix = self.prefix(inputs, cache=many > 1, trim=True).repeated(many)
        velocity = self.velocity(noisy, time, prefix)
        flow = F.mse_loss(velocity, noise - actions)
        losses = {"flow": flow, "total": flow}
        check_finite(losses)
        return losses

    def training_time(self, uniform: Tensor) -> Tensor:
        """Turn uniform numbers [B] into flow times by the inverse distribution function."""
        if self.config.time_law is TimeLaw.UNIFORM:
            return uniform
        # Beta(1.5, 1) has the distribution function t^1.5; range as in openpi
        return uniform ** (1.0 / 1.5) * 0.999 + 0.001

    def parts(self) -> dict[str, Part]:
        """What is trained by itself beforehand: "backbone", all that stands before the expert.

        Not where several moments are looked at: the parts of a look would be no picture's.
        """
        return {"backbone": self._backbone()} if self.config.frame_offsets == (0,) else {}

    def _backbone(self) -> BackbonePart:
        config = self.config

        def read(batch: Batch) -> Reading:
            inputs = from_batch(batch, config, self.tokenizer, self.device)
            tokens, valid, seen = self._embedded(inputs, trim=True)
            # the late experts' language model reads causally
            kind = config.mask if config.deep else Mask.CAUSAL
            mask = attention_mask(kind, [Role.PREFIX] * tokens.shape[1], valid)
            # A deep expert attends to each layer's input: what the last one makes of it comes
            # too late (DECISIONS 52). All variants share this, so it holds for all.
            layers = self.language.layers[: self.language.config.depth - 1]
            hidden = run_layers(
                [(layers, tokens)],
                dataclasses.replace(self.language.config, depth=len(layers)),
                mask,
                positions(valid),
            )[0][0]
            # the last word sees all that was seen and read
            visual = tokens.shape[1] - int(inputs.words.sum(1).max())
            last = visual + inputs.words.sum(1) - 1
            out = hidden[torch.arange(len(last), device=last.device), last]
            return Reading(out=out[:, None], seen=self.projector(seen.patches))

        return BackbonePart(
            self,
            prefixes=("vision.", "position_embedding.", "projector.", "language."),
            spec=dataclasses.replace(
                self.batch_spec, proprio=PROPRIOS[config.proprio_name], keyframe=True
            ),
            read=read,
            width=config.language.width,
            orientation=Orientation.UPRIGHT,
            whole=config.image.keeps_all,
        )

    # -------------------------------------------------------------- save, load

    @classmethod
    def config_type(cls) -> Any:
        """The class of `config`."""
        return SpatialVLAConfig

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        (save_directory / STATISTICS).write_text(self.statistics.to_json())
        self.tokenizer.save(save_directory)

    @classmethod
    def load(cls, source: str | Path, *, expect: Identity | None = None) -> Self:
        """Load weights, statistics and tokenizer that `save_pretrained` wrote.

        Raises:
            CheckpointMismatch: See `Pretrained.load`; or statistics are missing or of other
                dimensions.
        """
        folder = local_folder(source)
        try:
            model = super().load(folder, expect=expect)
        except ValueError as error:
            raise CheckpointMismatch(
                f"the configuration does not fit: {error}. Folder: {folder}"
            ) from error
        try:
            text = (folder / STATISTICS).read_text()
        except OSError as error:
            raise CheckpointMismatch(
                f"{STATISTICS} is missing; without it actions have no units. Folder: {folder}"
            ) from error
        model.set_statistics(Statistics.from_json(text))
        model.tokenizer = load_tokenizer(folder, model.config.vocab)
        return model


def untrained(config: SpatialVLAConfig, seed: int) -> SpatialVLA:
    """Build a network with weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SpatialVLA(config)
