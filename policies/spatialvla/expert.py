"""The action experts: what stands beside or behind the language model.

Axes: B rows, S context tokens, H horizon, A action channels, W the expert's width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.spatialvla.config import Blocks, Sharing, SpatialVLAConfig
from policies.spatialvla.transformer import RMSNorm, Stack

# openpi pi0_pytorch.py and 3dvla_late_fusion modeling_flow_expert.py
MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0


def embed_time(time: Tensor, width: int) -> Tensor:
    """Embed the flow's time: sines, then cosines, of geometrically spaced periods.

    Args:
        time: [B] in [0, 1].
        width: Even.

    Returns:
        float32 [B, width]; computed in float64, as openpi does.
    """
    share = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    period = MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** share
    angle = 2.0 * math.pi * time.double()[:, None] / period
    return torch.cat((angle.sin(), angle.cos()), -1).float()


class FlowEnds(nn.Module):
    """Where actions and time enter and the velocity leaves, named as in 3dvla_late_fusion."""

    def __init__(self, width: int, action_dim: int) -> None:
        super().__init__()
        self.action_in_proj = nn.Linear(action_dim, width)
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)
        self.action_out_proj = nn.Linear(width, action_dim)

    def time_token(self, time: Tensor) -> Tensor:
        """[B] to one token [B, 1, W]: Linear, SiLU, Linear."""
        wave = embed_time(time, self.time_mlp_in.in_features).to(self.time_mlp_in.weight.dtype)
        return self.time_mlp_out(F.silu(self.time_mlp_in(wave)))[:, None]

    def action_tokens(self, actions: Tensor) -> Tensor:
        """[B, H, A] to [B, H, W]."""
        return self.action_in_proj(actions.to(self.action_in_proj.weight.dtype))


class LateExpert(FlowEnds):
    """Reads the language model's last hidden states as a prefix: [context | time | actions].

    Source: lululuyuanyuanyuanGe/3dvla_late_fusion model/modeling_flow_expert.py; with Llama
    blocks there is no public code.
    """

    def __init__(self, config: SpatialVLAConfig) -> None:
        width = config.expert.width
        super().__init__(width, config.action.dim)
        self.model = Stack(config.expert)
        self.context_projector = nn.Linear(config.language.width, width)
        self.input_scale = config.input_scale

    def context(self, hidden: Tensor) -> Tensor:
        """Project the language model's hidden states: [B, S, language width] to [B, S, W]."""
        return self._scaled(self.context_projector(hidden))

    def suffix(self, actions: Tensor, time: Tensor) -> Tensor:
        """[time | actions]: [B, 1 + H, W]."""
        return self._scaled(torch.cat((self.time_token(time), self.action_tokens(actions)), 1))

    def _scaled(self, x: Tensor) -> Tensor:
        # transformers 4.47 made the factor a tensor of the input's own type (45.25 in bfloat16)
        return x * x.new_full((), self.input_scale)


class DeepExpert(FlowEnds):
    """Runs beside the language model, layer by layer: suffix [state? | actions | time].

    With shared layers it owns only its ends and its final norm. An independent stack may be
    narrower than the language model: heads and head size stay equal, projections bridge.

    Source: the deep-fusion plan of the SpatialVLA expert repository; openpi for the layers.
    """

    def __init__(self, config: SpatialVLAConfig) -> None:
        expert = config.expert
        super().__init__(expert.width, config.action.dim)
        self.stack: Stack | None = None
        self.expert_norm: RMSNorm | None = None
        if config.sharing is Sharing.INDEPENDENT:
            self.stack = Stack(expert)
        else:
            gemma = expert.blocks is Blocks.GEMMA
            self.expert_norm = RMSNorm(expert.width, expert.norm_eps, gemma=gemma)
        self.state_proj: nn.Linear | None = None
        if config.proprio is not None:
            self.state_proj = nn.Linear(config.proprio.dim, expert.width)

    def layers(self, language: Stack) -> nn.ModuleList:
        """Give its own layers, or the language model's."""
        return language.layers if self.stack is None else self.stack.layers

    def norm(self, hidden: Tensor) -> Tensor:
        """Apply its own final norm."""
        if self.stack is not None:
            return self.stack.norm(hidden)
        assert self.expert_norm is not None
        return self.expert_norm(hidden)

    def suffix(self, actions: Tensor, time: Tensor, state: Tensor | None) -> Tensor:
        """[state? | actions | time]: [B, (1) + H + 1, W]."""
        parts = [self.action_tokens(actions), self.time_token(time)]
        if self.state_proj is not None:
            assert state is not None
            parts.insert(0, self.state_proj(state.to(self.state_proj.weight.dtype))[:, None])
        return torch.cat(parts, 1)
