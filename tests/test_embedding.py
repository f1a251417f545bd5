"""Learned text: a word stands for its vectors, gradients reach them, and nothing else moves."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import Cascade, weights_digest
from unitune.models.files import Model
from unitune.models.text import T5, EncoderStorage
from unitune.storage.store import Store
from unitune.tuning import learned
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import StepDone
from unitune.tuning.learned import Learned
from unitune.tuning.recipe import Recipe, Tuning
from unitune.tuning.work import Work
from unitune.types import Diverged, Example, Refused, Request, Stopped, Tuned

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
TUNING = Tuning(lr=1e-2, steps=4, batch_size=2, snapshots=(2,))
CPU = torch.device("cpu")
POCKET = Path(backend.__file__).parent.parent / "assets" / "pocket" / "base"


@pytest.fixture(scope="module")
def floyd(tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    return backend.load(
        "tiny",
        tiny.floyd(tmp_path_factory.mktemp("tiny")),
        stages=("base", "sr256"),
        device=CPU,
        dtype=torch.float32,
    )


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    model = Model(
        "tiny",
        ("base",),
        family="stable_diffusion",
        path=str(tiny.sd15(tmp_path_factory.mktemp("sd"))),
    )
    return backend.build(model, device=CPU, dtype=torch.float32)


@pytest.fixture(params=["floyd", "latent"])
def cascade(request: pytest.FixtureRequest) -> Cascade:
    return request.getfixturevalue(request.param)


def rows(cascade: Cascade, *words: str) -> torch.Tensor:
    return torch.cat([cascade.text_encoder.vector(word) for word in words])


def bare(cascade: Cascade, text: str) -> torch.Tensor:
    return cascade.text_encoder.encode([text])


@pytest.mark.parametrize(
    ("with_word", "learned", "plain"),
    [
        ("a <image> in the snow", {"<image>": ["cat"]}, "a cat in the snow"),
        ("<image>", {"<image>": ["dog"]}, "dog"),
        ("<image> and <image>", {"<image>": ["cat"]}, "cat and cat"),
        ("A <Image> at night ", {"<Image>": ["cat"]}, "a cat at night"),
        ("a <x> in a <y>", {"<x>": ["red", "cat"], "<y>": ["city"]}, "a red cat in a city"),
        (" ".join(["<image>"] * 100), {"<image>": ["cat"]}, " ".join(["cat"] * 100)),
        ("a cat", {"<image>": ["dog"]}, "a cat"),
    ],
)
def test_a_word_with_known_vectors_is_the_known_words(
    with_word: str, learned: dict[str, list[str]], plain: str
):
    encoder = T5(POCKET, CPU, storage=EncoderStorage(), identity="")
    vectors = {
        word: torch.cat([encoder.vector(known) for known in words])
        for word, words in learned.items()
    }
    assert torch.equal(encoder.encode_with([with_word], vectors), encoder.encode([plain]))


def test_in_clips_vocabulary_too(latent: Cascade):
    expected = bare(latent, "b a c")
    assert torch.equal(
        latent.text_encoder.encode_with(["b <image> c"], {"<image>": rows(latent, "a")}), expected
    )
    both = latent.text_encoder.encode_with(["b <image> c", "a"], {"<image>": rows(latent, "a")})
    torch.testing.assert_close(both, torch.cat([expected, bare(latent, "a")]))


def test_gradients_reach_the_vectors_and_nothing_else(cascade: Cascade):
    vectors = (rows(cascade, "a", "b") + 0.1).requires_grad_()
    cascade.text_encoder.encode_with(["c <image>"], {"<image>": vectors}).square().sum().backward()
    assert vectors.grad is not None and bool((vectors.grad.abs().sum(dim=1) > 0).all())
    network = cascade.text_encoder._in_memory()
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert len(cascade.text_encoder.table(network)._forward_hooks) == 0


def test_using_knows_the_word_and_forgets_it(cascade: Cascade):
    before, unknown = (
        weights_digest(cascade.text_encoder._in_memory()),
        cascade.encode(["a <image>"]).clone(),
    )
    vectors = rows(cascade, "b") * 3
    with cascade.using(Tuned("<image>", tokens={"<image>": vectors})):
        known = cascade.encode(["a <image>", "b"])
        assert not torch.equal(known[:1], unknown)
        torch.testing.assert_close(
            known, cascade.text_encoder.encode_with(["a <image>", "b"], {"<image>": vectors})
        )
    with cascade.using(Tuned("<image>", tokens={"<image>": vectors * 2})):
        assert not torch.equal(cascade.encode(["a <image>"]), known[:1])
    assert (
        torch.equal(cascade.encode(["a <image>"]), unknown)
        and weights_digest(cascade.text_encoder._in_memory()) == before
    )
    with pytest.raises(KeyError), cascade.using(Tuned("<image>", tokens={"<image>": vectors})):
        cascade.encode(["<image> c"])
        raise KeyError("stop here")
    assert torch.equal(cascade.encode(["<image> c"]), bare(cascade, "<image> c"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("abc", r"'abc' is 3 pieces .*simpler word: method.initializer=cat"),
        ("", "unknown"),
        ("é", "'é' is unknown"),
    ],
)
def test_a_word_without_a_vector_of_its_own_is_refused(floyd: Cascade, word: str, said: str):
    with pytest.raises(Refused, match=said):
        floyd.text_encoder.vector(word)


def test_an_encoder_that_is_not_kept_is_read_and_released(floyd: Cascade, tmp_path: Path):
    folder = tiny.floyd(tmp_path / "tiny") / "base"
    encoder = T5(
        folder,
        CPU,
        storage=EncoderStorage(keep=False, store=Store(tmp_path / "store")),
        identity="x",
    )
    assert encoder._network is None
    vectors = encoder.vector("a")
    assert encoder._network is not None
    found = encoder.encode_with(["b <image>"], {"<image>": vectors})
    encoder.release()
    assert encoder._network is None and not list((tmp_path / "store").glob("embedding-*"))
    torch.testing.assert_close(
        found, floyd.text_encoder.encode_with(["b <image>"], {"<image>": rows(floyd, "a")})
    )


def learn(
    cascade: Cascade, store: Store, tuning: Tuning = TUNING, *, step: int = 4, seed: int = 0,
    report: StepDone | None = None, text: Callable = lambda e, k: e,
) -> Learned:  # fmt: skip
    """Optimise the embedding of "a"."""
    work = Work(Recipe("test"), cascade, EXAMPLE, store, seed, report)
    return learned.learn(work, tuning, step, {}, start=lambda: cascade.encode(["a"]), text=text)


def test_only_the_tensor_moves(floyd: Cascade, tmp_store: Store):
    before = [weights_digest(stage.network) for stage in floyd.stages]
    found = learn(floyd, tmp_store)
    assert torch.equal(found.start, floyd.encode(["a"])) and not torch.equal(
        found.tensor, found.start
    )
    assert (
        float((found.tensor - found.start).abs().max()) <= 4 * 1e-2 * 1.01
    )  # Adam's first steps are at most lr each
    assert [weights_digest(stage.network) for stage in floyd.stages] == before
    assert not any(
        p.requires_grad or p.grad is not None
        for stage in floyd.stages
        for p in stage.network.parameters()
    )


def test_learned_once_then_read_also_in_the_middle(floyd: Cascade, tmp_store: Store):
    steps: list[int] = []
    first = learn(floyd, tmp_store, report=lambda stage, step, steps_, loss: steps.append(step))
    again, middle = (
        learn(floyd, Store(tmp_store.path)),
        learn(floyd, tmp_store, step=2),
    )
    short = learn(floyd, tmp_store, replace(TUNING, steps=2), step=2)
    assert (
        steps == [1, 2, 3, 4]
        and torch.equal(first.tensor, again.tensor)
        and first.cost == again.cost
    )
    assert torch.equal(middle.tensor, short.tensor) and not torch.equal(middle.tensor, first.tensor)
    assert (
        (first.cost.optimizer_steps, first.cost.network_evaluations) == (4, 8)
        and first.cost.stored_bytes > 0
        and first.cost.seconds > 0
    )
    assert not torch.equal(learn(floyd, tmp_store, seed=1).tensor, first.tensor)
    with pytest.raises(
        Refused,
        match=r"no snapshot of the embedding at 3 steps; there are 0, 2, 4: change snapshot=",
    ):
        learn(floyd, tmp_store, step=3)


def test_interrupted_and_resumed_is_as_undisturbed(floyd: Cascade, tmp_path: Path):
    whole = learn(floyd, Store(tmp_path / "whole")).tensor
    store = Store(tmp_path / "often")

    def stop_at(at: int) -> Callable:
        return lambda stage, step, steps, loss: (
            os.kill(os.getpid(), signal.SIGTERM) if step == at else None
        )

    for at in (1, 3):
        with pytest.raises(Stopped):
            learn(floyd, store, report=stop_at(at))
        assert not list(store.path.glob("embedding-*"))
    done: list[int] = []
    resumed = learn(floyd, store, report=lambda stage, step, steps, loss: done.append(step)).tensor
    assert done == [4] and torch.equal(resumed, whole)


def test_what_failed_is_not_stored_and_frees_the_encoder(floyd: Cascade, tmp_store: Store):
    freed: list[int] = []
    cascade = replace(floyd, release=lambda: freed.append(1))
    cascade.encode(["a"])
    freed.clear()
    with pytest.raises(Diverged, match="smaller lr"):
        learn(cascade, tmp_store, text=lambda e, k: e * float("nan"))
    assert freed == [1] and not list(tmp_store.path.glob("embedding-*"))


def test_batches_with_a_text_of_their_own_are_the_pictures_from_a_step_on(floyd: Cascade):
    stage, text = floyd.stage("sr256"), floyd.encode(["a"])
    tuning = Tuning(lr=1.0, batch_size=3, crop=16)
    plain = OneImage(stage, EXAMPLE, text, 0, tuning)
    later = OneImage(stage, EXAMPLE, lambda k: text * k, 0, tuning, first=5)
    ours, theirs = later.batch(2), plain.batch(7)
    for name in ("x_t", "target", "t"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert ours.condition.low is not None and theirs.condition.low is not None
    assert torch.equal(ours.condition.low, theirs.condition.low)
    assert torch.equal(ours.condition.text, 2 * theirs.condition.text)
