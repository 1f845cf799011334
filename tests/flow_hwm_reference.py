"""The official layout and a second writing of Flow-HWM's network, for comparison.

Both follow the official module definitions (qasim-ali0/humanoid_world_model) and share no
code with `policies.flow_hwm`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from policies.flow_hwm.config import FlowHWMConfig
from policies.flow_hwm.network import Context

# ------------------------------------------------------------------ the official layout


def official_shapes(c: FlowHWMConfig) -> dict[str, tuple[int, ...]]:
    """Parameters and buffers that the official modules save, written from their constructors."""
    h, d, p, z = c.width, c.width // c.heads, c.patch, c.latent_channels
    a = c.convention.dim
    rows, columns = c.latent_size
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, into: int, out: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, into)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (d,)

    def qkv(name: str, with_norm: bool) -> None:
        linear(f"{name}.qkv", h, 3 * h, bias=False)
        if with_norm:
            norm(f"{name}.q_norm")
            norm(f"{name}.k_norm")

    def ff(name: str) -> None:
        linear(f"{name}.linear1", h, 4 * h)
        linear(f"{name}.linear2", 4 * h, h)

    for stream in ("f", "p"):
        shapes[f"patcher_{stream}.proj.0.weight"] = (h, z, 1, p, p)
        shapes[f"patcher_{stream}.proj.0.bias"] = (h,)
    linear("action_embedder.0", a, 4 * h)
    linear("action_embedder.2", 4 * h, h)
    linear("time_embedder.1", h, 4 * h)
    linear("time_embedder.3", 4 * h, h)
    linear("final_layer.adaLN_modulation.linear", h, 2 * h)
    linear("final_layer.linear", h, p * p * z, bias=False)
    shapes["empty_past_frames_emb"] = (z, c.past_latents, rows, columns)
    shapes["empty_past_actions_emb"] = (c.past_frames, a)
    shapes["empty_future_actions_emb"] = (c.future_frames, a)
    shapes["action_pos_embed.position_encoding"] = (c.frames, d)
    shapes["video_pos_embed.position_encoding"] = (12, 1, 1, d)
    shapes["video_pos_embed.seq"] = (4,)
    for i in range(c.layers):
        at, last = f"blocks.{i}", i == c.layers - 1
        shared = c.variant.endswith("sharing") and i >= c.unshared_layers
        if c.variant == "split_attention":
            for name, chunks in (("v", 6), ("a", 6), ("cross", 3)):
                linear(f"{at}.time_scale_shift_{name}.linear", h, chunks * h)
            qkv(f"{at}.qkv_fv", True)
            qkv(f"{at}.qkv_fa", True)
            linear(f"{at}.q_fv.q", h, h, bias=False)
            norm(f"{at}.q_fv.q_norm")
            for name in ("pv", "fa", "pa"):
                linear(f"{at}.kv_{name}.kv", h, 2 * h, bias=False)
                norm(f"{at}.kv_{name}.k_norm")
            for name in ("joint_attns.0", "joint_attns.1", "cross_attn"):
                linear(f"{at}.{name}.proj", h, h)
            for name in ("fv",) if last else ("fv", "fa"):
                ff(f"{at}.ff_{name}")
            continue
        linear(f"{at}.joint_attn.proj", h, h)
        if not shared:
            linear(f"{at}.time_scale_shift.linear", h, 24 * h)
            for name in ("fv", "pv", "fa", "pa"):
                qkv(f"{at}.qkv_{name}", True)
            for name in ("cv",) if last else ("cv", "pv", "ca", "pa"):
                ff(f"{at}.ff_{name}")
        elif c.variant == "modality_sharing":
            for name in ("v", "a"):
                linear(f"{at}.time_scale_shift_{name}.linear", h, 6 * h)
                qkv(f"{at}.qkv_f{name}", False)
            for name in ("fv",) if last else ("fv", "fa"):
                ff(f"{at}.ff_{name}")
        else:
            linear(f"{at}.time_scale_shift.linear", h, 6 * h)
            qkv(f"{at}.qkv_fv", False)
            ff(f"{at}.ff_fv")
    return shapes


def official_weights(config: FlowHWMConfig, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        name: 0.2 * torch.randn(shape, generator=g)
        for name, shape in official_shapes(config).items()
    }


# ------------------------------------------------- a second writing, on the official names


def second_writing(
    w: dict[str, Tensor], c: FlowHWMConfig, x: Tensor, t: Tensor, context: Context
) -> Tensor:
    """Velocity in plain functions over the official parameters, one stream at a time."""
    h, heads = c.width, c.heads
    d, p = h // heads, c.patch
    rows = len(x)

    def lin(name: str, v: Tensor) -> Tensor:
        return F.linear(v, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def ln(v: Tensor, eps: float = 1e-5) -> Tensor:
        return (v - v.mean(-1, keepdim=True)) / (
            v.var(-1, unbiased=False, keepdim=True) + eps
        ).sqrt()

    def head_norm(name: str, v: Tensor) -> Tensor:
        return ln(v) * w[f"{name}.weight"] + w[f"{name}.bias"] if f"{name}.weight" in w else v

    def parts(name: str, v: Tensor, n: int) -> list[Tensor]:
        out = lin(name, v).chunk(n, -1)
        return [o.reshape(rows, -1, heads, d) for o in out]

    def patches(name: str, z: Tensor) -> Tensor:
        out = F.conv3d(z, w[f"{name}.proj.0.weight"], w[f"{name}.proj.0.bias"], stride=(1, p, p))
        return out.reshape(rows, h, -1).transpose(1, 2)

    def mlp(name: str, v: Tensor, act: Any, a: Any, b: Any) -> Tensor:
        return lin(f"{name}.{b}", act(lin(f"{name}.{a}", v)))

    grid_h, grid_w = (s // (1 if "rope_grid" in c.parity else p) for s in c.latent_size)
    space = d // 6 * 2
    time_dim = d - 2 * space

    def turn_video(v: Tensor, first: int) -> Tensor:
        """[rows, N, heads, d], one token and one pair of channels at a time."""
        out = v.clone()
        for n in range(v.shape[1]):
            place = first + n
            where = (place // (grid_h * grid_w), place // grid_w % grid_h, place % grid_w)
            column = 0
            for pos, width in zip(where, (time_dim, space, space), strict=True):
                for i in range(width // 2):
                    angle = pos / 10000 ** (2 * i / width)
                    a, b = v[:, n, :, column], v[:, n, :, column + d // 2]
                    out[:, n, :, column] = a * math.cos(angle) - b * math.sin(angle)
                    out[:, n, :, column + d // 2] = b * math.cos(angle) + a * math.sin(angle)
                    column += 1
        return out

    def turn_action(v: Tensor, first: int) -> Tensor:
        out = v.clone()
        for n in range(v.shape[1]):
            for i in range(d // 2):
                angle = (first + n) / 10000 ** (2 * i / d)
                a, b = v[:, n, :, 2 * i], v[:, n, :, 2 * i + 1]
                out[:, n, :, 2 * i] = a * math.cos(angle) - b * math.sin(angle)
                even = out[:, n, :, 2 * i] if "rope" in c.parity else a
                out[:, n, :, 2 * i + 1] = b * math.cos(angle) + even * math.sin(angle)
        return out

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(d)
        return torch.einsum("bhnm,bmhd->bnhd", weights.softmax(-1), v).reshape(rows, -1, h)

    half = h // 2
    rates = 10000.0 ** (-torch.arange(half) / half)
    angles = 1000 * t[:, None] * rates
    time = torch.cat([angles.cos(), angles.sin()], 1)
    time = lin("time_embedder.3", F.silu(lin("time_embedder.1", time)))

    s = {
        "fv": patches("patcher_f", x), "pv": patches("patcher_p", context.past),
        "fa": mlp("action_embedder", context.future_actions, F.silu, 0, 2),
        "pa": mlp("action_embedder", context.past_actions, F.silu, 0, 2),
    }  # fmt: skip
    n_past = s["pv"].shape[1]
    turn = {
        "fv": lambda v: turn_video(v, n_past), "pv": lambda v: turn_video(v, 0),
        "fa": lambda v: turn_action(v, c.past_frames), "pa": lambda v: turn_action(v, 0),
    }  # fmt: skip

    for i in range(c.layers):
        at, last = f"blocks.{i}.", i == c.layers - 1
        shared = c.variant.endswith("sharing") and i >= c.unshared_layers
        split = c.variant == "split_attention"

        def of(stream: str, kind: str, split: bool = split, shared: bool = shared) -> str:
            """The official name of the module that serves a stream."""
            if split or (shared and c.variant == "modality_sharing"):
                return f"{kind}_f{stream[1]}"
            if shared:
                return f"{kind}_fv"
            if kind == "ff":
                return {"fv": "ff_cv", "fa": "ff_ca"}.get(stream, f"ff_{stream}")
            return f"{kind}_{stream}"

        chunks: dict[str, list[Tensor]] = {}
        for place, stream in enumerate(s):
            if split or (shared and c.variant == "modality_sharing"):
                emb = lin(f"{at}time_scale_shift_{stream[1]}.linear", F.silu(time))
            else:
                emb = lin(f"{at}time_scale_shift.linear", F.silu(time))
                emb = emb if shared else emb[:, 6 * h * place : 6 * h * (place + 1)]
            chunks[stream] = [e[:, None] for e in emb.chunk(6, 1)]
        q, k, v = {}, {}, {}
        for stream, tokens in s.items():
            m = chunks[stream]
            name = at + of(stream, "qkv")
            a, b, v[stream] = parts(f"{name}.qkv", ln(tokens) * (1 + m[0]) + m[4], 3)
            q[stream] = turn[stream](head_norm(f"{name}.q_norm", a))
            k[stream] = turn[stream](head_norm(f"{name}.k_norm", b))
        if split:
            res = {
                n: lin(f"{at}joint_attns.{'va'.index(n[1])}.proj", attention(q[n], k[n], v[n]))
                for n in s
            }
        else:
            mixed = lin(
                f"{at}joint_attn.proj",
                attention(*(torch.cat([z[n] for n in s], 1) for z in (q, k, v))),
            )
            res = dict(zip(s, mixed.split([z.shape[1] for z in s.values()], 1), strict=True))
        s = {n: z + res[n] * chunks[n][1] for n, z in s.items()}
        if split:
            scale, gate, shift = (
                e[:, None]
                for e in lin(f"{at}time_scale_shift_cross.linear", F.silu(time)).chunk(3, 1)
            )
            (cq,) = parts(f"{at}q_fv.q", ln(s["fv"]) * (1 + scale) + shift, 1)
            cq = turn_video(head_norm(f"{at}q_fv.q_norm", cq), 0)
            ks, vs = [], []
            for n in ("pv", "fa", "pa"):
                a, b = parts(f"{at}kv_{n}.kv", ln(s[n]), 2)
                if "kv_norm" in c.parity:
                    b = head_norm(f"{at}kv_{n}.k_norm", b)
                else:
                    a = head_norm(f"{at}kv_{n}.k_norm", a)
                ks.append(turn[n](a))
                vs.append(b)
            cross = lin(f"{at}cross_attn.proj", attention(cq, torch.cat(ks, 1), torch.cat(vs, 1)))
            s["fv"] = s["fv"] + cross * gate
        for n in ("fv",) if last else tuple(s):
            m = chunks[n]
            fed = mlp(at + of(n, "ff"), ln(s[n]) * (1 + m[2]) + m[5], F.gelu, "linear1", "linear2")
            s[n] = s[n] + fed * m[3]

    # the code unpacks (shift, scale) but passes them on as (scale, shift)
    first, second = lin("final_layer.adaLN_modulation.linear", F.silu(time)).chunk(2, 1)
    out = lin("final_layer.linear", ln(s["fv"], 1e-6) * (1 + first[:, None]) + second[:, None])
    image = torch.zeros_like(x)
    n = 0
    for frame in range(x.shape[2]):
        for row in range(0, x.shape[3], p):
            for column in range(0, x.shape[4], p):
                block = out[:, n].reshape(rows, p, p, -1).permute(0, 3, 1, 2)
                image[:, :, frame, row : row + p, column : column + p] = block
                n += 1
    return image
