"""Published key names to ours, and the resizing that FastWAM starts its action expert with.

Ours are: ``mixtures.{video,action}.*`` and ``proprio_encoder.*`` as in FastWAM's own
checkpoints, ``vae.wan.*`` as in diffusers, ``text.umt5.*`` as in transformers' UMT5 stack.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn import functional

# diffusers' WanTransformer3DModel -> Wan's own names (diffusers,
# scripts/convert_wan_to_diffusers.py, read backwards). norm2 and norm3 trade places.
_DIT = (
    ("condition_embedder.time_embedder.linear_1.", "time_embedding.0."),
    ("condition_embedder.time_embedder.linear_2.", "time_embedding.2."),
    ("condition_embedder.text_embedder.linear_1.", "text_embedding.0."),
    ("condition_embedder.text_embedder.linear_2.", "text_embedding.2."),
    ("condition_embedder.time_proj.", "time_projection.1."),
    ("proj_out.", "head.head."),
    (".attn1.", ".self_attn."),
    (".attn2.", ".cross_attn."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".o."),
    (".ffn.net.0.proj.", ".ffn.0."),
    (".ffn.net.2.", ".ffn.2."),
    (".scale_shift_table", ".modulation"),
    (".norm2.", ".norm3."),
)


def wan_video_key(key: str) -> str:
    """Give Wan's own name of a transformer parameter, from that or from diffusers' name."""
    if ".self_attn." in key or ".cross_attn." in key or key.startswith("head."):
        return key  # Wan's own layout
    if key == "scale_shift_table":
        return "head.modulation"
    if ".norm3." in key:
        return key  # Wan's own; diffusers' norm3 has no parameters
    for old, new in _DIT:
        key = key.replace(old, new)
    return key


_RESIDUAL = (
    ("residual.0.", "norm1."),
    ("residual.2.", "conv1."),
    ("residual.3.", "norm2."),
    ("residual.6.", "conv2."),
    ("shortcut.", "conv_shortcut."),
)


def wan_vae_key(key: str) -> str:
    """Give diffusers' name of a Wan2.2 VAE parameter, from that or from Wan's own.

    Source: diffusers, scripts/convert_wan_to_diffusers.py, `convert_vae_22`.
    """
    if key.startswith(("conv1.", "conv2.")):
        return key.replace("conv1.", "quant_conv.").replace("conv2.", "post_quant_conv.")
    side, _, rest = key.partition(".")
    if rest.startswith("conv1."):
        return f"{side}.conv_in.{rest[6:]}"
    if rest.startswith("head."):
        place, _, name = rest[5:].partition(".")
        return f"{side}.{'norm_out' if place == '0' else 'conv_out'}.{name}"
    if rest.startswith("middle."):
        place, _, name = rest[7:].partition(".")
        if place == "1":
            return f"{side}.mid_block.attentions.0.{name}"
        return f"{side}.mid_block.resnets.{int(place) // 2}.{_residual(name)}"
    found = re.fullmatch(r"(down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)", rest)
    if found is None:
        return key  # diffusers' layout
    way, level, place, name = found.groups()
    if name.startswith(("resample.", "time_conv.")):
        return f"{side}.{way}_blocks.{level}.{way}sampler.{name}"
    return f"{side}.{way}_blocks.{level}.resnets.{place}.{_residual(name)}"


def _residual(name: str) -> str:
    for old, new in _RESIDUAL:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


_UMT5_BLOCK = (
    ("norm1.", "layer.0.layer_norm."),
    ("attn.", "layer.0.SelfAttention."),
    ("pos_embedding.embedding.", "layer.0.SelfAttention.relative_attention_bias."),
    ("norm2.", "layer.1.layer_norm."),
    ("ffn.gate.0.", "layer.1.DenseReluDense.wi_0."),
    ("ffn.fc1.", "layer.1.DenseReluDense.wi_1."),
    ("ffn.fc2.", "layer.1.DenseReluDense.wo."),
)


def umt5_key(key: str) -> str:
    """Give the stack's name of a UMT5 encoder parameter, from Wan's or transformers' name.

    transformers writes the embedding under two names; both become one.
    """
    if key in ("shared.weight", "token_embedding.weight"):
        return "embed_tokens.weight"
    if key == "norm.weight":
        return "final_layer_norm.weight"
    if key.startswith("encoder."):
        return key.removeprefix("encoder.")
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
    if found is None:
        return key
    for old, new in _UMT5_BLOCK:
        if found[2].startswith(old):
            return f"block.{found[1]}.{new}{found[2][len(old) :]}"
    return key


def lerobot_key(key: str) -> str | None:
    """Give our name of a parameter of LeRobot's port; None for the frozen parts.

    Three layouts are about: experts under ``mot.mixtures``, blocks moved to
    ``mot.layers.{i}.blocks.{expert}``, and aliases ``dit``, ``video_expert`` and
    ``action_expert`` of the same tensors (LeRobot, policies/fastwam, wan/modular.py).
    """
    key = key.removeprefix("model.")
    if key.startswith(("vae.", "text_encoder.")):
        return None
    key = re.sub(r"^dit\.", "mot.", key)
    key = re.sub(r"^(video|action)_expert\.", r"mot.mixtures.\1.", key)
    key = re.sub(r"^mot\.layers\.(\d+)\.blocks\.(\w+?)\.", r"mot.mixtures.\2.blocks.\1.", key)
    return key.removeprefix("mot.")


def resized(source: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Resize a parameter axis by axis, linearly with aligned corners.

    Where the last axis of a matrix changes, values are scaled by the root of the old over
    the new length, which keeps the size of its outputs.

    Source: FastWAM repository, the initialisation of its ActionDiT ("linear_interp ...
    alphascale"; FAMILIES B.3).
    """
    out = source.float()
    for axis, length in enumerate(shape):
        if out.shape[axis] == length:
            continue
        moved = out.movedim(axis, -1)
        flat = moved.reshape(1, -1, moved.shape[-1])
        flat = functional.interpolate(flat, size=length, mode="linear", align_corners=True)
        out = flat.reshape(*moved.shape[:-1], length).movedim(-1, axis)
    if source.ndim >= 2 and source.shape[-1] != shape[-1]:
        out = out * (source.shape[-1] / shape[-1]) ** 0.5
    return out.to(source.dtype).to(torch.get_default_dtype())
