"""Processors that give what diffusers' own give where nothing is edited."""

from pathlib import Path

import pytest
import torch

from unitune.diffusion.stage import Condition
from unitune.models import attention as hooks
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import Cascade
from unitune.models.files import Model
from unitune.prompt_to_prompt.chains import Chains
from unitune.prompt_to_prompt.control import PromptToPrompt
from unitune.types import Refused

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["floyd", "sd15", "sd21"])
def cascade(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "floyd":
        return backend.load(
            "tiny", tiny.floyd(folder), stages=("base", "sr256"), device=CPU, dtype=torch.float32
        )
    folder = {"sd15": tiny.sd15, "sd21": tiny.sd21}[request.param](folder)
    return backend.build(
        Model(request.param, ("base",), "stable_diffusion", str(folder)),
        device=CPU,
        dtype=torch.float32,
    )


def chains(cascade: Cascade, control: PromptToPrompt, *edits: str, k: int = 0) -> Chains:
    made = control.chains(
        "a cat",
        edits,
        [0] * len(edits),
        tokenize=cascade.tokenize,
        offset=77 - cascade.max_tokens,
        length=77,
    )
    made.begin(k, 10, side=side(cascade))
    return made


def side(cascade: Cascade) -> int:
    return (
        cascade.stages[0]
        .encode(torch.zeros(1, 3, cascade.stages[0].resolution, cascade.stages[0].resolution))
        .shape[-1]
    )


def predict(cascade: Cascade, control: Chains | None, *texts: str) -> torch.Tensor:
    """From an x_t of every row its own."""
    stage, channels = cascade.stages[0], cascade.stages[0].channels
    x = torch.randn(
        len(texts),
        channels,
        side(cascade),
        side(cascade),
        generator=torch.Generator().manual_seed(0),
    )
    with stage.attention(control):
        return stage.predict(
            x, torch.full((len(texts),), 500), Condition(cascade.encode(list(texts)))
        )


ROWS = (
    "a cat",
    "a dog",
    "a dog at night",
    "",
    "",
    "",
)  # a source, two edits, guidance's reference of each
NOTHING = PromptToPrompt(cross_share=0.0, self_share=0.0, reweight={"a": 1.0})


def test_processors_that_edit_nothing_give_what_stock_ones_give(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
):
    control = chains(cascade, NOTHING, "a dog", "a dog at night")
    monkeypatch.setattr(Chains, "wants", lambda self, text, pixels: True)
    torch.testing.assert_close(
        predict(cascade, control, *ROWS), predict(cascade, None, *ROWS), rtol=1e-4, atol=1e-5
    )
    assert control.edited == len(cascade.stages[0].network.attn_processors)
    assert not control.moved


def test_only_the_edits_rows_change_and_processors_come_back(cascade: Cascade):
    network = cascade.stages[0].network
    before = dict(network.attn_processors)
    control = chains(cascade, PromptToPrompt(), "a dog", "a dog at night")
    out, plain = predict(cascade, control, *ROWS), predict(cascade, None, *ROWS)
    change = (out - plain).abs().amax(dim=(1, 2, 3))
    assert control.edited > 0 and control.moved
    assert float(change[[0, 3, 4, 5]].max()) < 1e-4 < 1e-3 < float(change[1:3].min())
    assert all(network.attn_processors[name] is processor for name, processor in before.items())


def test_processors_come_back_after_an_error(cascade: Cascade, monkeypatch: pytest.MonkeyPatch):
    network = cascade.stages[0].network
    before = dict(network.attn_processors)
    monkeypatch.setattr(Chains, "edit", lambda self, M, text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(cascade, chains(cascade, PromptToPrompt(), "a dog", "a dog at night"), *ROWS)
    assert all(network.attn_processors[name] is processor for name, processor in before.items())


def test_after_its_shares_the_network_keeps_its_own_processors(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
):
    control = chains(cascade, PromptToPrompt(), "a dog", "a dog at night", k=6)
    monkeypatch.setattr(Chains, "edit", lambda self, M, text: 1 / 0)
    assert torch.equal(predict(cascade, control, *ROWS), predict(cascade, None, *ROWS))


def test_equal_rows_and_prompts_stay_equal(cascade: Cascade):
    stage = cascade.stages[0]
    x = torch.randn(
        1, stage.channels, side(cascade), side(cascade), generator=torch.Generator().manual_seed(0)
    ).repeat(2, 1, 1, 1)
    with stage.attention(chains(cascade, PromptToPrompt(), "a cat")):
        source, edit = stage.predict(
            x, torch.full((2,), 500), Condition(cascade.encode(["a cat", "a cat"]))
        )
    torch.testing.assert_close(source, edit, rtol=0, atol=1e-6)


def test_attention_of_unknown_kind_is_refused(cascade: Cascade, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hooks, "SEPARATE", ())
    monkeypatch.setattr(hooks, "JOINT", ())
    with pytest.raises(Refused, match="does not know attention by Attn"):
        predict(cascade, chains(cascade, PromptToPrompt(), "a dog", "a dog at night"), *ROWS)
