"""Attention whose probabilities can be edited: processors in the place of diffusers' own for one network call, which take no other arithmetic than theirs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unitune.models.libraries import (
    AttnAddedKVProcessor,
    AttnAddedKVProcessor2_0,
    AttnProcessor,
    AttnProcessor2_0,
)
from unitune.prompt_to_prompt.chains import Chains
from unitune.types import Refused

SEPARATE = (
    AttnProcessor,
    AttnProcessor2_0,
)  # Stable Diffusion: a layer attends to the text or to its own pixels
JOINT = (
    AttnAddedKVProcessor,
    AttnAddedKVProcessor2_0,
)  # IF: keys are [text; pixels] under one softmax


@contextmanager
def controlled(network: Any, chains: Chains | None) -> Iterator[None]:
    """Give every attention layer's probabilities to `chains` inside the context, where they want any; the network's own processors always come back."""
    if chains is None or not chains.active:
        yield
        return
    stock = dict(network.attn_processors)
    if other := next(
        (processor for processor in stock.values() if not isinstance(processor, SEPARATE + JOINT)),
        None,
    ):
        raise Refused(
            f"prompt-to-prompt does not know attention by {type(other).__name__}; use another sampler, or diffusers' default attention"
        )
    try:
        network.set_attn_processor(
            {
                name: (Joint if isinstance(old, JOINT) else Separate)(old, chains)
                for name, old in stock.items()
            }
        )
        yield
    finally:
        network.set_attn_processor(dict(stock))


@dataclass(frozen=True)
class Joint:
    """Attention of IF: the first L columns are the text's, the rest the layer's own pixels' (none in layers of cross-attention alone)."""

    stock: Any
    chains: Chains

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend (B, C, H, W) to the text (B, L, D) and to itself."""
        x, L = hidden_states.flatten(2).transpose(1, 2), encoder_hidden_states.shape[1]
        if attention_mask is not None or not self.chains.wants(text=L, pixels=x.shape[1]):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask)
        text = (
            attn.norm_encoder_hidden_states(encoder_hidden_states)
            if attn.norm_cross
            else encoder_hidden_states
        )
        x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        k, v = attn.add_k_proj(text), attn.add_v_proj(text)
        if not attn.only_cross_attention:
            k, v = torch.cat([k, attn.to_k(x)], dim=1), torch.cat([v, attn.to_v(x)], dim=1)
        out = attend(attn, attn.to_q(x), k, v, chains=self.chains, text=L)
        return hidden_states + out.transpose(1, 2).reshape(hidden_states.shape)


@dataclass(frozen=True)
class Separate:
    """Attention of Stable Diffusion's transformer blocks: to the text where it is given, else to the layer's own pixels."""

    stock: Any
    chains: Chains

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend (B, N, C)."""
        L = 0 if encoder_hidden_states is None else encoder_hidden_states.shape[1]
        plain = (
            hidden_states.ndim == 3
            and attention_mask is None
            and not attn.residual_connection
            and attn.group_norm is None
            and not attn.norm_cross
        )
        if not plain or not self.chains.wants(text=L, pixels=hidden_states.shape[1]):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        return (
            attend(
                attn,
                attn.to_q(hidden_states),
                attn.to_k(keys),
                attn.to_v(keys),
                chains=self.chains,
                text=L,
            )
            / attn.rescale_output_factor
        )


def attend(attn: Any, q: Tensor, k: Tensor, v: Tensor, *, chains: Chains, text: int) -> Tensor:
    """Attend with probabilities that `chains` edits in its rows, (B, N, C); the rows behind never hold theirs in memory."""
    q, k, v = (y.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for y in (q, k, v))
    R = chains.rows
    with torch.autocast(q.device.type, enabled=False):
        M = torch.softmax(q[:R].float() @ k[:R].float().transpose(-1, -2) * attn.scale, dim=-1)
        out = [(chains.edit(M, text=text).to(v) @ v[:R])]
    if len(q) > R:
        out.append(F.scaled_dot_product_attention(q[R:], k[R:], v[R:]).to(v))
    y = torch.cat(out).transpose(1, 2).flatten(2)
    return attn.to_out[1](attn.to_out[0](y))
