"""Flow-HWM behind the world model contract: imagining, checkpoints, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_hwm_doubles import disc_frames, model_of, small, stirred
from safetensors.torch import save_file
from test_flow_hwm_network import official_weights
from torch import Tensor, nn

from policies.checkpoint import CONFIG, STATISTICS, WEIGHTS, CheckpointMismatch, Statistics
from policies.flow_hwm import WORLD_MODEL, FlowHWMOptions
from policies.flow_hwm.config import EVE_STATES, VARIANTS, FlowHWMConfig, preset_config
from policies.flow_hwm.model import FlowHWM
from policies.flow_hwm.sampler import Sampler
from policies.flow_hwm.tokenizer import DECODER, ENCODER, CosmosTokenizer, to_frames, to_pixels
from policies.flow_hwm.weights import load_official
from policies.flow_hwm.world import FlowHWMWorld, card_of
from wamsim import registry
from wamsim.contracts import Imagined, WorldModel
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, action_converter
from wamsim.errors import ConventionMismatch, UnknownName, WamsimError
from wamsim.gallery import Gallery, Shot, stack_frames

Arrays = dict[str, np.ndarray]


def world_of(variant: str, **sampling: Any) -> FlowHWMWorld:
    model = stirred(model_of(small(variant)))
    return FlowHWMWorld(model, Sampler(model.network, **{"steps": 3, "guidance": 3.0, **sampling}))


def inputs(config: FlowHWMConfig, rows: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    dim = config.convention.dim
    return {
        "past_frames": disc_frames(config, rows, seed)[:, : config.past_frames, None],
        "past_actions": rng.uniform(-1, 1, (rows, config.past_steps, dim)).astype(np.float32),
        "future_actions": rng.uniform(-1, 1, (rows, config.future_steps, dim)).astype(np.float32),
        "seed": np.arange(10, 10 + rows, dtype=np.uint64),
    }


def equal(a: Imagined, b: Imagined, row: int = 0, other: int = 0) -> bool:
    assert a.frames is not None
    assert b.frames is not None
    same = np.array_equal(a.latents[row], b.latents[other])
    return same and np.array_equal(a.frames[row], b.frames[other])


# --------------------------------------------------------------------------- imagining


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_imagines_the_same_whatever_stands_beside_it(variant: str) -> None:
    world = world_of(variant)
    whole = inputs(world.model.config, rows=3)
    together = world.imagine(**whole)
    for row in range(3):
        # alone in a batch of the same shape, the rest padding: zeros, as the harness pads
        alone = {k: np.zeros_like(v) for k, v in whole.items()}
        for key, value in whole.items():
            alone[key][0] = value[row]
        assert equal(world.imagine(**alone), together, 0, row)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_imagined_depends_on(variant: str) -> None:
    world = world_of(variant)
    given = inputs(world.model.config, rows=1)
    first = world.imagine(**given)
    assert first.latents.shape == (1, 1, 8, 4, 4)
    assert first.latents.dtype == np.float32
    assert first.frames is not None
    assert (first.frames.shape, first.frames.dtype) == ((1, 1, 32, 32, 3), np.uint8)
    assert np.isfinite(first.latents).all()
    assert equal(first, world.imagine(**given))
    for key, change in (
        ("past_frames", 60), ("past_actions", 0.5), ("future_actions", 0.5), ("seed", 1),
    ):  # fmt: skip
        altered = dict(given)
        altered[key] = (given[key] + change).astype(given[key].dtype)
        assert not np.array_equal(world.imagine(**altered).latents, first.latents), key


def test_real_frames_are_encoded_into_the_imagined_space() -> None:
    world = world_of("base")
    frames = disc_frames(world.model.config, 2)[:, :, None]
    found = world.encode(frames)
    card = world.card.imagines
    assert found.shape == (2, len(card.horizons), *card.latent_shape)
    with torch.no_grad():
        whole = world.model.encode_window(torch.from_numpy(frames[:, :, 0]))
    assert np.array_equal(found[:, 0], whole[:, :, 2].numpy())


def test_pictures_are_the_last_frame_of_each_latent() -> None:
    config = small("base", future_frames=8)
    model = stirred(model_of(config))
    world = FlowHWMWorld(model, Sampler(model.network, steps=2, guidance=1.0))
    assert world.card.imagines.horizons == (4, 8)
    given = inputs(config, rows=1)
    found = world.imagine(**given)
    with torch.no_grad():
        past = model.encode_past(torch.from_numpy(given["past_frames"][:, :, 0]))
        future = torch.from_numpy(found.latents).transpose(1, 2)
        video = to_frames(model.tokenizer.decode(torch.cat([past, future], 2)), bgr=False)
    assert video.shape[1] == 13
    assert np.array_equal(found.frames, video[:, [8, 12]].numpy())


def test_decode_draws_without_a_past() -> None:
    world = world_of("base")
    found = world.decode(world.encode(disc_frames(world.model.config, 2)[:, :, None]))
    assert (found.shape, found.dtype) == ((2, 1, 32, 32, 3), np.uint8)


def test_official_fid_frame_is_the_oldest_past_one() -> None:
    given = inputs(small("base"), rows=1)
    plain, defect = world_of("base"), world_of("base", parity=("fid_frame",))
    assert not equal(plain.imagine(**given), defect.imagine(**given))
    altered = {**given, "future_actions": given["future_actions"] + 0.5}
    # frame 0 comes before everything imagined
    assert np.array_equal(defect.imagine(**given).frames, defect.imagine(**altered).frames)


def test_official_context_drop_draws_with_an_empty_past() -> None:
    given = inputs(small("base"), rows=1)
    world = world_of("base", parity=("context_drop", "fid_frame"))
    other = {**given, "past_frames": 255 - given["past_frames"]}
    assert np.array_equal(world.imagine(**given).frames, world.imagine(**other).frames)


def test_through_a_whole_episode() -> None:
    world = world_of("split_attention")
    card, rng = world.card, np.random.default_rng(0)
    assert isinstance(world.card.past_offsets, tuple)
    model: WorldModel = world
    gallery = Gallery()
    height, width = card.image_size
    cameras = ("eye_in_hand", "agentview")  # the suite's order, another than the card's
    executed = np.zeros((0, 7), np.float32)
    video = disc_frames(small("base", future_frames=16), 2)
    for query in range(0, 12, 4):
        for step in range(max(0, query - 3), query + 1):
            gallery.add(step, Shot(colour=video[:, step]))
        looks = [query + offset for offset in card.past_offsets]
        frames = stack_frames(gallery.stack(looks))[:, [cameras.index(c) for c in card.cameras]]
        if query == 0:  # before the episode's start the first frame stands in
            assert all(np.array_equal(frames[i], frames[-1]) for i in range(len(frames)))
        past = np.concatenate([np.zeros((4, 7), np.float32), executed])[-4:]
        plan = rng.uniform(-1, 1, (4, 7)).astype(np.float32)
        seed = np.array([query], np.uint64)
        found = model.imagine(frames[None], past[None], plan[None], seed)
        assert np.isfinite(found.latents).all()
        executed = np.concatenate([executed, plan])
    spec = card.imagines
    real = np.stack([video[1, 4 + o] for o in spec.frame_offsets])[None, :, None]
    assert model.encode(real).shape == found.latents.shape
    assert (height, width) == (32, 32)


def test_arrays_that_the_card_does_not_promise_are_refused() -> None:
    world = world_of("base")
    given = inputs(world.model.config, rows=2)
    with pytest.raises(ValueError, match=r"past_actions has shape \(2, 3, 7\).*\(2, 4, 7\)"):
        world.imagine(**{**given, "past_actions": given["past_actions"][:, 1:]})
    with pytest.raises(ValueError, match="future_actions"):
        world.imagine(**{**given, "future_actions": given["future_actions"][:, 1:]})
    with pytest.raises(ValueError, match="past_frames"):
        world.imagine(**{**given, "past_frames": given["past_frames"][:, :, 0]})
    with pytest.raises(ValueError, match="frames has shape"):
        world.encode(given["past_frames"])


# ------------------------------------------------------------------------------- cards


def test_cards() -> None:
    tiny = card_of(preset_config("base", "tiny"))
    assert (tiny.name, tiny.cameras, tiny.past_offsets) == (
        "flow_hwm:base", ("agentview",), (-4, -3, -2, -1, 0),
    )  # fmt: skip
    assert (tiny.future_actions, tiny.imagines.horizons) == (4, (4,))
    assert tiny.imagines.frame_offsets == tuple(range(-4, 5))
    published = card_of(preset_config("base", "published"))
    assert published.past_offsets == tuple(range(-16, 1, 2))
    assert (published.future_actions, published.imagines.horizons) == (16, (16,))
    assert published.imagines.latent_shape == (16, 16, 16)


def test_published_actions_are_a_humanoids_and_refuse_a_panda() -> None:
    card = card_of(preset_config("base", "published"))
    assert card.action is EVE_STATES
    assert card.action.dim == 25
    with pytest.raises(ConventionMismatch, match="EVE_STATES"):
        action_converter(
            DELTA_EEF_GRIPPER_CLOSE_POSITIVE, card.action, policy="a", suite="flow_hwm"
        )
    panda = preset_config("base", "published", action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name)
    assert card_of(panda).action.dim == 7


# ------------------------------------------------------------------------ the registry


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str) -> dict[str, EntryPoint]:
        point = EntryPoint(name="flow_hwm", value="policies.flow_hwm:WORLD_MODEL", group=group)
        return {"flow_hwm": point}

    monkeypatch.setattr(registry, "_points", points)


@pytest.mark.usefixtures("_registered")
def test_made_by_name() -> None:
    choice = registry.choose_world_model("flow_hwm", {"steps": "2", "parity": "sampler,rope"})
    assert choice.name == "flow_hwm:base"
    world: Any = registry.make_world_model(choice)
    assert world.card.name == "flow_hwm:base"
    assert (world.sampler.steps, world.sampler.guidance) == (2, 3.0)
    assert (world.sampler.parity, world.model.config.parity) == ({"sampler"}, ("rope",))


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("flow_hwm:split", {}, "split_attention"),
        ("flow_hwm:base", {"preset": "publish"}, "published"),
        ("flow_hwm:base", {"parity": "ropes"}, "rope"),
        ("flow_hwm:base", {"guidence": "1"}, "guidance"),
        ("flow_hwm:base", {"steps": "0"}, "steps=0 must be 1 or more"),
    ],
)
def test_unknown_names_say_the_nearest(text: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(WamsimError, match=said):
        registry.choose_world_model(text, options)


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys, policies.flow_hwm as f; assert f.WORLD_MODEL.variants[0] == 'base';"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_untrained_weights_follow_their_seed() -> None:
    def head(seed: int) -> Tensor:
        world: Any = WORLD_MODEL.make("base", FlowHWMOptions(init_seed=seed))
        return world.model.network.head.weight

    before = torch.get_rng_state()
    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))
    assert torch.equal(before, torch.get_rng_state())


def test_config_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="even multiple of heads"):
        small("base", width=66)
    with pytest.raises(ValueError, match="multiples of 16"):
        small("base", image_size=(40, 32))
    with pytest.raises(ValueError, match="1 more than a multiple"):
        small("base", past_frames=4)
    with pytest.raises(ValueError, match=r"action_stride=2 must lie in 1\.\.frame_stride=1"):
        small("base", action_stride=2)
    with pytest.raises(UnknownName, match="DELTA_EEF_GRIPPER_CLOSE_POSITIVE"):
        small("base", action="DELTA_EEF_GRIPPER_CLOSE")


# ------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_returns(variant: str, tmp_path: Path) -> None:
    model = stirred(model_of(small(variant)))
    statistics = Statistics({"action": {"mean": torch.arange(7.0), "std": torch.full((7,), 2.0)}})
    model.set_statistics(statistics)
    model.save_pretrained(tmp_path)
    for found in (FlowHWM.from_pretrained(str(tmp_path)), FlowHWM.load(tmp_path)):
        assert found.config == model.config
        assert torch.equal(found.statistics.get("action", "mean", 7), torch.arange(7.0))
        for (name, a), b in zip(
            model.state_dict().items(), found.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), name
    options = FlowHWMOptions(checkpoint=str(tmp_path), steps=2)
    world = WORLD_MODEL.make(variant, options)
    own = FlowHWMWorld(model, Sampler(model.network, steps=2, guidance=3.0))
    given = inputs(model.config, rows=2)
    assert equal(world.imagine(**given), own.imagine(**given))


def test_checkpoints_that_are_not_what_was_asked_for(tmp_path: Path) -> None:
    model_of(small("base")).save_pretrained(tmp_path)

    def refused(match: str, variant: str = "base", **options: Any) -> None:
        with pytest.raises(CheckpointMismatch, match=match):
            WORLD_MODEL.make(variant, FlowHWMOptions(checkpoint=str(tmp_path), **options))

    refused(r"flow_hwm:base \(tiny\), but flow_hwm:full_sharing", variant="full_sharing")
    refused("trained with action_stride=1, but 2", action_stride=2)
    refused(r"trained with parity=\(\), but \('rope',\)", parity=("rope",))
    refused("has a tokenizer of its own", tokenizer="somewhere")
    (tmp_path / STATISTICS).write_text(Statistics.identity({"action": 9}).to_json())
    refused(r"\(9,\) values, the model has 7")
    (tmp_path / STATISTICS).unlink()
    refused("no statistics.json")
    document = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**document, "family": "cosmos"}))
    refused(r"of cosmos:base \(tiny\)")
    (tmp_path / CONFIG).write_text(json.dumps({**document, "preset": "published"}))
    refused(r"flow_hwm:base \(published\), but flow_hwm:base \(tiny\)")
    with pytest.raises(CheckpointMismatch, match="is no local folder"):
        WORLD_MODEL.make("base", FlowHWMOptions(checkpoint="/nowhere/at/all"))


# ---------------------------------------------------- published tokenizer and weights


class _Encoder(nn.Module):
    """What the published encoder.jit does to shapes: 1 + 8 n frames to 1 + n, 16 x 16 to 1."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        groups = [x[:, :, :1]] + [x[:, :, i : i + 8] for i in range(1, x.shape[2], 8)]
        out = torch.cat([g.mean(2, keepdim=True) for g in groups], 2)
        pooled = torch.nn.functional.avg_pool3d(out, (1, 16, 16))
        return (pooled.repeat(1, 6, 1, 1, 1)[:, :16],)


class _Decoder(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        up = z[:, :3].repeat_interleave(16, 3).repeat_interleave(16, 4)
        return torch.cat([up[:, :, :1], up[:, :, 1:].repeat_interleave(8, 2)], 2)


def jit_folder(folder: Path, frames: int = 17) -> Path:
    folder.mkdir()
    pixels = torch.zeros(1, 3, frames, 64, 64)
    with torch.no_grad():
        torch.jit.trace(_Encoder(), pixels).save(str(folder / ENCODER))
        torch.jit.trace(_Decoder(), _Encoder()(pixels)[0]).save(str(folder / DECODER))
    return folder


def published_but_small(variant: str, **changes: Any) -> FlowHWMConfig:
    sizes = {"width": 32, "heads": 2, "layers": 3, "unshared_layers": 1, "image_size": (64, 64)}
    return preset_config(variant, "published", **{**sizes, **changes})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("variant", VARIANTS)
def test_published_layout(variant: str, tmp_path: Path) -> None:
    config = published_but_small(variant)
    official = tmp_path / "official"
    official.mkdir()
    weights = official_weights(config)
    save_file({f"module.{k}": v for k, v in weights.items()}, official / WEIGHTS)
    with pytest.raises(CheckpointMismatch, match=r"no statistics\.json"):
        load_official(FlowHWM(config), official)
    (official / STATISTICS).write_text(Statistics.identity({"action": 25}).to_json())
    model = FlowHWM(config)
    load_official(model, official)
    assert torch.equal(model.network.head.weight, weights["final_layer.linear.weight"])
    with pytest.raises(CheckpointMismatch, match="hold no tokenizer"):
        model.encode_past(torch.zeros(1, 9, 64, 64, 3, dtype=torch.uint8))
    model.attach_tokenizer(CosmosTokenizer(jit_folder(tmp_path / "jit")))
    world = FlowHWMWorld(model, Sampler(model.network, steps=2, guidance=3.0))
    found = world.imagine(**inputs(config, rows=2))
    assert found.latents.shape == (2, 1, 16, 4, 4)
    assert found.frames is not None
    assert found.frames.shape == (2, 1, 64, 64, 3)
    # neither the weights nor a checkpoint hold the tokenizer
    assert not any("tokenizer" in key or "_cosmos" in key for key in model.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_published_tokenizer_turns_frames_to_bgr_and_back(tmp_path: Path) -> None:
    config = published_but_small("base")
    tokenizer = CosmosTokenizer(jit_folder(tmp_path / "jit"))
    frames = torch.zeros(1, 17, 64, 64, 3, dtype=torch.uint8)
    frames[..., 0] = 255  # red
    pixels = to_pixels(frames, bgr=config.bgr)
    latents = tokenizer.encode(pixels)
    assert latents.shape == (1, 16, 3, 4, 4)
    assert latents[0, :3, 0, 0, 0].tolist() == [-1.0, -1.0, 1.0]  # blue, green, red
    assert torch.equal(to_frames(tokenizer.decode(latents), bgr=config.bgr), frames)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tokenizers_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="needs the Cosmos tokenizer"):
        WORLD_MODEL.make("base", FlowHWMOptions(preset="published"))
    with pytest.raises(CheckpointMismatch, match=r"no encoder\.jit and no decoder\.jit"):
        CosmosTokenizer(tmp_path)
    model = FlowHWM(published_but_small("base", latent_channels=8))
    with pytest.raises(CheckpointMismatch, match=r"\(1, 16, 3, 4, 4\).*takes \(1, 8, 3, 4, 4\)"):
        model.attach_tokenizer(CosmosTokenizer(jit_folder(tmp_path / "jit")))
    save_file(official_weights(small("base")), tmp_path / WEIGHTS)
    with pytest.raises(CheckpointMismatch, match="in the official layout hold no tokenizer"):
        WORLD_MODEL.make("base", FlowHWMOptions(checkpoint=str(tmp_path)))
