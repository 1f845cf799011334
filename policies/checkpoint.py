"""Weights and statistics on disk: strict loading, and the hub's own layout.

`save_pretrained` and `from_pretrained` come from `huggingface_hub.ModelHubMixin`
(safetensors + config.json; a local folder or a hub id). Published checkpoints of other
layouts go through `load_mapped`, which names every key that does not fit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from torch import Tensor, nn

from policies import reference
from wamsim.errors import WamsimError

WEIGHTS, CONFIG, STATISTICS = "model.safetensors", "config.json", "statistics.json"
# Where it lies beside weights it says which file holds which tensor, as transformers' does
INDEX = f"{WEIGHTS}.index.json"


class CheckpointMismatch(WamsimError):
    """A checkpoint does not hold what the model needs."""


def load_strict(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load a state dict; anything missing, unexpected or misshapen is an error.

    Raises:
        CheckpointMismatch: Lists the keys.
    """
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{k}: {tuple(state[k].shape)} in the file, {tuple(own[k].shape)} in the model"
        for k in sorted(set(own) & set(state))
        if own[k].shape != state[k].shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    if any(keys for _, keys in problems):
        listed = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"
            for what, keys in problems
            if keys
        )
        raise CheckpointMismatch(
            f"the checkpoint does not fit the model: {listed}. Check family, variant and preset. "
            f"Source: {source}"
        )
    model.load_state_dict(dict(state), strict=True)


def load_mapped(
    model: nn.Module,
    state: Mapping[str, Tensor],
    rename: Callable[[str], str | None],
    *,
    source: str,
) -> None:
    """Load a published state dict through a key map.

    Args:
        model: Where to.
        state: Published keys -> tensors.
        rename: Published key -> the model's; None drops a key on purpose (counters, caches).
        source: For the error text.

    Raises:
        CheckpointMismatch: As `load_strict`; or two published keys become one.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = rename(key)
        if name is None:
            continue
        if name in renamed:
            raise CheckpointMismatch(
                f"two keys of the checkpoint map to {name!r}, the second is {key!r}. "
                f"Source: {source}"
            )
        renamed[name] = tensor
    load_strict(model, renamed, source=source)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file, a sharded folder of them, or a .pt state dict (weights only).

    A folder's index, where it has one, says what is read, and may name files outside it.

    Raises:
        CheckpointMismatch: Nothing of the kind is there, or not all that an index names.
    """
    if (path / INDEX).exists():
        return _read_indexed(path)
    if path.is_dir():
        shards = sorted(path.glob("*.safetensors"))
        if shards:
            out: dict[str, Tensor] = {}
            for shard in shards:
                out.update(safetensors.torch.load_file(shard))
            return out
        pickles = sorted([*path.glob("*.pt"), *path.glob("*.pth")])
        if pickles:
            return read_tensors(pickles[0])
    elif path.suffix == ".safetensors" and path.exists():
        return safetensors.torch.load_file(path)
    elif path.suffix in (".pt", ".pth", ".bin") and path.exists():
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
        for wrapper in ("state_dict", "model", "module"):
            if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
                loaded = loaded[wrapper]
        return {k: v for k, v in loaded.items() if isinstance(v, Tensor)}
    raise CheckpointMismatch(
        f"no weights: expected {WEIGHTS}, other .safetensors or a .pt file. Looked at: {path}"
    )


def _read_indexed(folder: Path) -> dict[str, Tensor]:
    try:
        placed = dict[str, str](json.loads((folder / INDEX).read_text())["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(
            f"the index cannot be read ({error!r}). File: {folder / INDEX}"
        ) from error
    out: dict[str, Tensor] = {}
    for name in sorted(set(placed.values())):
        path = folder / name
        if not path.exists():
            raise CheckpointMismatch(
                f"{INDEX} names {name}, which is not there. Copy it along with the checkpoint: "
                f"what checkpoints share lies beside their folders. Folder: {folder}"
            )
        held = safetensors.torch.load_file(path)
        out |= {key: held[key] for key, file in placed.items() if file == name and key in held}
    lacking = sorted(set(placed) - set(out))
    if lacking:
        raise CheckpointMismatch(
            f"{INDEX} names {len(lacking)} tensors that its files do not hold: "
            f"{', '.join(lacking[:5])}. Copy all files of one checkpoint. Folder: {folder}"
        )
    return out


def local_folder(
    source: str | Path,
    *,
    allow: list[str] | None = None,
    ignore: list[str] | None = None,
    advice: str = "pass the folder",
) -> Path:
    """Give the folder of a checkpoint: a local one, one of ours, or a hub id that is downloaded.

    Args:
        source: A path, ``reference:family:variant`` (see `policies.reference`) or a hub id.
        allow, ignore: Patterns of files to download or to leave.
        advice: What else to do, for the error text.

    Raises:
        CheckpointMismatch: Neither a folder nor to be had from the hub.
    """
    shipped = reference.resolve(str(source))
    if shipped is not None and not shipped.exists():
        raise CheckpointMismatch(
            f"no checkpoint {str(source)!r} comes with this wamsim. Train one with `wamsim train`, "
            f"or run untrained weights with --set checkpoint=untrained. Looked at: {shipped}"
        )
    path = shipped or Path(source)
    if path.exists():
        return path
    try:
        return Path(snapshot_download(str(source), allow_patterns=allow, ignore_patterns=ignore))
    except Exception as error:
        raise CheckpointMismatch(
            f"checkpoint {str(source)!r} is no local folder, and the hub did not give it "
            f"({error}). Download it where there is a network and {advice}."
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What a checkpoint is of; a mismatch is refused by name."""

    family: str
    variant: str
    preset: str


class Pretrained(ModelHubMixin):
    """Saving and loading for a family's model.

    A subclass is also an `nn.Module`, has `identity: Identity`, `config` (a frozen dataclass
    with `to_dict` and `from_dict`) and a constructor that takes the config alone.
    """

    identity: Identity
    config: Any

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self, nn.Module)
        state = {k: v.detach().contiguous().cpu() for k, v in self.state_dict().items()}
        safetensors.torch.save_file(state, save_directory / WEIGHTS)
        (save_directory / INDEX).unlink(missing_ok=True)  # of what lay here before
        document = {**dataclasses.asdict(self.identity), "config": self.config.to_dict()}
        (save_directory / CONFIG).write_text(json.dumps(document, indent=2) + "\n")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs: Any) -> Self:
        return cls.load(model_id)

    @classmethod
    def load(cls, source: str | Path, *, expect: Identity | None = None) -> Self:
        """Load from a folder or hub id.

        Args:
            source: Where from.
            expect: Refuse a checkpoint of another family, variant or preset.

        Raises:
            CheckpointMismatch: Another identity, a missing file, keys that do not fit.
        """
        folder = local_folder(source)
        found, config = read_identity(folder)
        if expect is not None and found != expect:
            raise CheckpointMismatch(
                f"the checkpoint is of {found.family}:{found.variant} ({found.preset}), but "
                f"{expect.family}:{expect.variant} ({expect.preset}) was asked for. "
                f"Folder: {folder}"
            )
        model = cls(cls.config_type().from_dict(config))  # type: ignore[call-arg]
        assert isinstance(model, nn.Module)
        indexed = (folder / INDEX).exists()
        tensors = read_tensors(folder if indexed else folder / WEIGHTS)
        own = model.state_dict()
        # weights may lie on disk in half precision
        tensors = {k: v.to(own[k].dtype) if k in own else v for k, v in tensors.items()}
        load_strict(model, tensors, source=str(folder))
        return model

    @classmethod
    def config_type(cls) -> Any:
        """The class of `config`."""
        raise NotImplementedError


def read_identity(folder: Path) -> tuple[Identity, dict[str, Any]]:
    """Say what a checkpoint is of, and give its model's configuration as plain data.

    Raises:
        CheckpointMismatch: A missing file, or none of ours.
    """
    try:
        document = json.loads((folder / CONFIG).read_text())
        identity = Identity(**{k: document[k] for k in ("family", "variant", "preset")})
        return identity, document["config"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointMismatch(
            f"{CONFIG} is missing or not one of wamsim's ({error!r}). Folder: {folder}"
        ) from error


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Per-dimension statistics of a data set, for normalisation.

    Attributes:
        values: e.g. {"action": {"min": [A], "max": [A], "mean": [A], "std": [A]}, ...}.
    """

    values: Mapping[str, Mapping[str, Tensor]]

    def get(self, what: str, kind: str, dim: int) -> Tensor:
        """Give one statistic.

        Args:
            what: "action", "proprio", ...
            kind: "min", "max", "mean", "std", ...
            dim: Its expected length.

        Raises:
            CheckpointMismatch: It is missing or has another length.
        """
        try:
            found = self.values[what][kind]
        except KeyError:
            raise CheckpointMismatch(
                f"the statistics have no {what}/{kind}; they have "
                f"{ {k: sorted(v) for k, v in self.values.items()} }. Train on data that has it, "
                f"or take the statistics file that belongs to the checkpoint."
            ) from None
        if found.shape != (dim,):
            raise CheckpointMismatch(
                f"statistics {what}/{kind} have {tuple(found.shape)} values, the model has {dim}. "
                f"They belong to another data set."
            )
        return found

    def to_json(self) -> str:
        """Write as JSON."""
        plain = {a: {b: t.tolist() for b, t in c.items()} for a, c in self.values.items()}
        return json.dumps(plain, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Statistics:
        """Read what `to_json` wrote."""
        return cls(
            {
                a: {b: torch.tensor(v, dtype=torch.float32) for b, v in c.items()}
                for a, c in json.loads(text).items()
            }
        )

    @classmethod
    def identity(cls, dims: Mapping[str, int]) -> Statistics:
        """Statistics that change nothing: min -1, max 1, mean 0, std 1."""
        return cls(
            {
                what: {
                    "min": -torch.ones(n), "max": torch.ones(n),
                    "mean": torch.zeros(n), "std": torch.ones(n),
                }
                for what, n in dims.items()
            }
        )  # fmt: skip


def count_parameters(modules: Iterable[nn.Module] | nn.Module) -> int:
    """Count parameters, shared ones once; also on the meta device."""
    modules = [modules] if isinstance(modules, nn.Module) else modules
    return sum({id(p): p.numel() for m in modules for p in m.parameters()}.values())
