"""Attention whose probabilities can be edited.

For the time of a network call our processors replace diffusers' own; but for the edit they compute
what those compute.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unitune.diffusion.stage import AttentionEditor
from unitune.models.libraries import (
    AttnAddedKVProcessor,
    AttnAddedKVProcessor2_0,
    AttnProcessor,
    AttnProcessor2_0,
)
from unitune.types import Refused

# Stable Diffusion: a layer attends to the text or to its own pixels.
SEPARATE = (AttnProcessor, AttnProcessor2_0)
# IF: keys are [text; pixels] under one softmax.
JOINT = (AttnAddedKVProcessor, AttnAddedKVProcessor2_0)


@contextmanager
def controlled(network: Any, chains: AttentionEditor | None) -> Iterator[None]:
    """Give every attention layer's probabilities to `chains`, where they want any.

    The network's own processors always come back.
    """
    if chains is None or not chains.active:
        yield
        return
    stock = dict(network.attn_processors)
    for processor in stock.values():
        if not isinstance(processor, SEPARATE + JOINT):
            raise Refused(
                f"prompt-to-prompt does not know attention by {type(processor).__name__}; "
                "use another sampler, or diffusers' default attention"
            )
    edited = {
        name: (JointAttention if isinstance(processor, JOINT) else SeparateAttention)(
            processor, chains
        )
        for name, processor in stock.items()
    }
    try:
        network.set_attn_processor(edited)
        yield
    finally:
        network.set_attn_processor(stock)


@dataclass(frozen=True)
class JointAttention:
    """Attention of IF: the first L columns are the text's, the rest the layer's own pixels'.

    A layer that has cross-attention alone has no columns of pixels.
    """

    stock: Any
    chains: AttentionEditor

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend (B, C, H, W) to the text (B, L, D) and to itself."""
        text, L = encoder_hidden_states, encoder_hidden_states.shape[1]
        x = hidden_states.flatten(2).transpose(1, 2)
        if attention_mask is not None or not self.chains.wants(text=L, pixels=x.shape[1]):
            return self.stock(attn, hidden_states, text, attention_mask)
        if attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)
        x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        k, v = attn.add_k_proj(text), attn.add_v_proj(text)
        if not attn.only_cross_attention:
            k, v = torch.cat([k, attn.to_k(x)], dim=1), torch.cat([v, attn.to_v(x)], dim=1)
        out = attend(attn, attn.to_q(x), k, v, chains=self.chains, text=L)
        return hidden_states + out.transpose(1, 2).reshape(hidden_states.shape)


@dataclass(frozen=True)
class SeparateAttention:
    """Attention of Stable Diffusion's blocks: to the text where given, else to own pixels."""

    stock: Any
    chains: AttentionEditor

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend (B, N, C)."""
        x, text = hidden_states, encoder_hidden_states
        L = 0 if text is None else text.shape[1]
        plain = x.ndim == 3 and attention_mask is None and not attn.residual_connection
        plain = plain and attn.group_norm is None and not attn.norm_cross
        if not plain or not self.chains.wants(text=L, pixels=x.shape[1]):
            return self.stock(attn, x, text, attention_mask, temb)
        keys = x if text is None else text
        q, k, v = attn.to_q(x), attn.to_k(keys), attn.to_v(keys)
        return attend(attn, q, k, v, chains=self.chains, text=L) / attn.rescale_output_factor


def attend(
    attn: Any, q: Tensor, k: Tensor, v: Tensor, *, chains: AttentionEditor, text: int
) -> Tensor:
    """Attend with probabilities that `chains` edits in its rows, (B, N, C).

    The probabilities of the other rows are never held in memory.
    """
    q, k, v = (y.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for y in (q, k, v))
    R = chains.rows
    with torch.autocast(q.device.type, enabled=False):
        M = torch.softmax(q[:R].float() @ k[:R].float().transpose(-1, -2) * attn.scale, dim=-1)
        out = [chains.edit(M, text=text).to(v) @ v[:R]]
    if len(q) > R:
        out.append(F.scaled_dot_product_attention(q[R:], k[R:], v[R:]).to(v))
    y = torch.cat(out).transpose(1, 2).flatten(2)
    return attn.to_out[1](attn.to_out[0](y))
