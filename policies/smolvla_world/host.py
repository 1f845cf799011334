"""SmolVLA: a SmolVLM and an action expert that run layer by layer side by side.

Axes: B rows, P prefix tokens, S suffix tokens, H actions. Even layers are joint
self-attention over [prefix, suffix] with separate weights per stream. In odd layers the
VLM attends to itself, and the expert's queries, with positions from 0, look only at the
VLM's rotated keys and values of that layer, projected once more.
Source: FAMILIES C.0; LeRobot policies/smolvla/smolvlm_with_expert.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, SmolVLMConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMModel

from policies.smolvla_world.attention import (
    Tokens,
    attend,
    block_mask,
    positions,
    rotate,
    time_embedding,
)
from policies.smolvla_world.config import HostConfig

After = Callable[[int, Tensor], Tensor]  # (layers done, suffix states) -> suffix states


@dataclass(frozen=True)
class Cache:
    """What a suffix needs of a prefix.

    Attributes:
        layers: For each layer rotated keys and values, [B, P, kv heads, head dim] each.
        valid: bool [B, P].
    """

    layers: list[tuple[Tensor, Tensor]]
    valid: Tensor

    def repeated(self, times: int) -> Cache:
        """Every row `times` times, one after the other."""
        layers = [
            (k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.layers
        ]
        return Cache(layers, self.valid.repeat_interleave(times, 0))


class Host(nn.Module):
    """The policy that every variant builds on."""

    def __init__(self, config: HostConfig) -> None:
        super().__init__()
        self.config = config
        vlm, width = config.vlm, config.expert_hidden
        # no special tokens: nothing is generated, and the defaults lie outside tiny vocabularies
        no_tokens: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
        text = {
            "model_type": "llama", "vocab_size": vlm.vocabulary, "hidden_size": vlm.hidden,
            "num_hidden_layers": vlm.layers, "num_attention_heads": vlm.heads,
            "num_key_value_heads": vlm.kv_heads, "head_dim": vlm.head_dim,
            "intermediate_size": vlm.ffn, "rms_norm_eps": 1e-5, **no_tokens,
        }  # fmt: skip
        vision = {
            "hidden_size": vlm.vision_hidden, "num_hidden_layers": vlm.vision_layers,
            "num_attention_heads": vlm.vision_heads, "intermediate_size": vlm.vision_ffn,
            "image_size": vlm.image_px, "patch_size": vlm.patch_px,
        }  # fmt: skip
        self.vlm: Any = SmolVLMModel(
            SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=vlm.shuffle)
        )
        expert = LlamaConfig(
            hidden_size=width, intermediate_size=config.expert_ffn, vocab_size=1,
            num_hidden_layers=vlm.layers, num_attention_heads=vlm.heads,
            num_key_value_heads=vlm.kv_heads, head_dim=vlm.head_dim, rms_norm_eps=1e-5,
            **no_tokens,
        )  # fmt: skip
        self.expert: Any = LlamaModel(expert)
        self.expert.embed_tokens = None
        cached = vlm.kv_heads * vlm.head_dim
        for index, layer in enumerate(self.expert.layers):
            if not self.joint(index):
                layer.self_attn.k_proj = nn.Linear(cached, cached, bias=False)
                layer.self_attn.v_proj = nn.Linear(cached, cached, bias=False)
        self.state_proj = nn.Linear(config.max_state_dim, vlm.hidden)
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.max_action_dim)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        if config.freeze_vlm:
            self.vlm.requires_grad_(False)

    def joint(self, layer: int) -> bool:
        """Whether a layer is joint self-attention."""
        return layer % self.config.self_attention_every == 0

    # -------------------------------------------------------------------- tokens

    def pictures(self, frames: Tensor) -> Tensor:
        """Resize with padding on the left and top, and scale to -1..1.

        Args:
            frames: uint8 [B, height, width, 3].

        Returns:
            float32 [B, 3, side, side].
        """
        side = self.config.vlm.image_px
        x = frames.permute(0, 3, 1, 2).float() / 255
        height, width = x.shape[2:]
        ratio = max(height, width) / side
        size = (int(height / ratio), int(width / ratio))
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return F.pad(x, (side - size[1], 0, side - size[0], 0)) * 2 - 1

    def see(self, pictures: Tensor) -> Tensor:
        """Give image tokens [B, n, VLM width] of pictures [B, 3, side, side]."""
        return self.vlm.connector(self.vlm.vision_model(pixel_values=pictures).last_hidden_state)

    def prefix(
        self, pictures: Sequence[Tensor], text: Tensor, text_valid: Tensor, state: Tensor
    ) -> tuple[Tokens, Tokens]:
        """Embed what does not change while denoising.

        Args:
            pictures: One [B, 3, side, side] per camera.
            text: int64 [B, n].
            text_valid: bool [B, n].
            state: [B, max_state_dim].

        Returns:
            Images and language (one block), and the state (a block of its own).
        """
        scale = math.sqrt(self.config.vlm.hidden)
        seen = [Tokens.of(self.see(p) * scale, first=False, rest=False) for p in pictures]
        words = self.vlm.text_model.embed_tokens(text) * scale
        language = Tokens(words, text_valid, seen[0].starts.new_zeros(text.shape[1]))
        own = Tokens.of(self.state_proj(state)[:, None], first=True, rest=True)
        return Tokens.join(*seen, language), own

    def suffix(self, noisy: Tensor, time: Tensor) -> Tensor:
        """Embed noisy actions [B, H, max_action_dim] at times [B] as [B, H, expert width]."""
        actions = self.action_in_proj(noisy)
        c = self.config
        when = time_embedding(time, actions.shape[-1], c.min_period, c.max_period)
        both = torch.cat([actions, when[:, None].expand_as(actions).to(actions.dtype)], dim=-1)
        return self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both)))

    # -------------------------------------------------------------------- layers

    def fill(self, prefix: Tokens) -> Cache:
        """Run the VLM over a prefix and keep its keys and values."""
        return self._read(prefix)[0]

    def read(self, prefix: Tokens) -> Tensor:
        """Run the VLM over a prefix: its normed states [B, P, VLM width]."""
        return self.vlm.text_model.norm(self._read(prefix)[1])

    def _read(self, prefix: Tokens) -> tuple[Cache, Tensor]:
        mask, where = block_mask(prefix.valid, prefix.starts), positions(prefix.valid)
        x, kept = prefix.embeddings, []
        for layer in self.vlm.text_model.layers:
            q, k, v = self._project(layer, x, where)
            kept.append((k, v))
            x = self._finish(layer, x, attend(q, k, v, mask))
        return Cache(kept, prefix.valid), x

    def denoise(self, cache: Cache, suffix: Tokens, after: After | None = None) -> Tensor:
        """Run the expert over a suffix, with a filled cache.

        Args:
            cache: Of the prefix.
            suffix: Its first token must begin a block.
            after: Called with the number of layers done and the suffix states.

        Returns:
            Normed suffix states [B, S, expert width].
        """
        own = block_mask(suffix.valid, suffix.starts)
        seen = (cache.valid[:, None] & suffix.valid[:, :, None]).expand(-1, suffix.length, -1)
        mask = torch.cat([seen, own], dim=2)
        from_zero = positions(suffix.valid)
        where = cache.valid.sum(1, keepdim=True) + from_zero
        x = suffix.embeddings
        for index, (layer, (key, value)) in enumerate(
            zip(self.expert.layers, cache.layers, strict=True)
        ):
            if self.joint(index):
                q, k, v = self._project(layer, x, where)
                k, v = torch.cat([key, k], dim=1), torch.cat([value, v], dim=1)
                x = self._finish(layer, x, attend(q, k, v, mask))
            else:
                x = self._finish(layer, x, self._cross(layer, x, key, value, seen, from_zero))
            x = after(index + 1, x) if after else x
        return self.expert.norm(x)

    def together(
        self, prefix: Tokens, suffix: Tokens, after: After | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run both streams in one pass without a cache: training, and the cache's check.

        Returns:
            Normed prefix states [B, P, VLM width] and suffix states [B, S, expert width].
        """
        valid = torch.cat([prefix.valid, suffix.valid], dim=1)
        mask = block_mask(valid, torch.cat([prefix.starts, suffix.starts]))
        where, n = positions(valid), prefix.length
        from_zero = where[:, n:] - where[:, n:].amin(1, keepdim=True)
        x, y = prefix.embeddings, suffix.embeddings
        for index, (theirs, ours) in enumerate(
            zip(self.vlm.text_model.layers, self.expert.layers, strict=True)
        ):
            q, k, v = self._project(theirs, x, where[:, :n])
            if self.joint(index):
                q2, k2, v2 = self._project(ours, y, where[:, n:])
                both = attend(
                    torch.cat([q, q2], 1), torch.cat([k, k2], 1), torch.cat([v, v2], 1), mask
                )
                x, y = self._finish(theirs, x, both[:, :n]), self._finish(ours, y, both[:, n:])
            else:
                y = self._finish(ours, y, self._cross(ours, y, k, v, mask[:, n:, :n], from_zero))
                x = self._finish(theirs, x, attend(q, k, v, mask[:, :n, :n]))
            y = after(index + 1, y) if after else y
        return self.vlm.text_model.norm(x), self.expert.norm(y)

    def _project(self, layer: Any, x: Tensor, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed, attention, base = layer.input_layernorm(x), layer.self_attn, self.config.rope_base
        q, k, v = (
            p(normed).unflatten(-1, (-1, self.config.vlm.head_dim))
            for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return rotate(q, where, base), rotate(k, where, base), v

    def _cross(
        self, layer: Any, x: Tensor, key: Tensor, value: Tensor, mask: Tensor, where: Tensor
    ) -> Tensor:
        heads = (-1, self.config.vlm.head_dim)
        q = layer.self_attn.q_proj(layer.input_layernorm(x)).unflatten(-1, heads)
        k = layer.self_attn.k_proj(key.flatten(2)).unflatten(-1, heads)
        v = layer.self_attn.v_proj(value.flatten(2)).unflatten(-1, heads)
        return attend(rotate(q, where, self.config.rope_base), k, v, mask)

    @staticmethod
    def _finish(layer: Any, x: Tensor, attended: Tensor) -> Tensor:
        x = x + layer.self_attn.o_proj(attended)
        return x + layer.mlp(layer.post_attention_layernorm(x))
