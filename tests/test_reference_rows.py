"""Reference rows that the model makes: ceilings of super-resolution and the oracle."""

from dataclasses import replace

import torch
from analytic import FakeCascade, FakeStage, Gaussian

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.interpolation import Interpolation
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.diffusion.stage import reduced
from unitune.masks.sources import Given
from unitune.runs import reference_rows
from unitune.storage import records
from unitune.types import Example, Request

TARGET = torch.full((1, 3, 32, 32), -0.5)
IMAGE = torch.full((1, 3, 32, 32), 0.5)
ONE = Request("a dog", composed_alike=True, target=TARGET, mask=torch.zeros(1, 1, 32, 32))
EXAMPLE = Example("one", IMAGE, (ONE, Request("a fox")), caption="a cat")
SAMPLER = Sampler(
    "test",
    template="{rare} {edit}",
    start=0.5,
    steps=3,
    guidance=Guidance(2.0, reference="{caption}"),
    sr=SuperResolution(steps=2, start=0.3),
)


def fake(*, stages: int = 2) -> FakeCascade:
    made = [
        FakeStage(Gaussian(0.05), resolution=16),
        FakeStage(Gaussian(0.5, mu=0.0), name="sr256", resolution=32),
    ]
    return FakeCascade(made[:stages], {"a dog": 0.3, "a cat": -0.3})


def rows(cascade: FakeCascade, sampler: Sampler = SAMPLER, seeds: tuple[int, ...] = (0, 1)):
    return reference_rows.made(cascade, sampler, EXAMPLE, seeds=seeds)


def test_a_request_with_a_target_has_ceilings_and_an_oracle_of_each_seed():
    found = rows(fake())
    assert [row for row, _ in found] == [
        "copy through super-resolution",
        "target through super-resolution",
        "oracle",
        "oracle",
    ]
    assert {row for row, _ in found} <= set(records.REFERENCES)
    assert all(edit.request is ONE and edit.image.shape == IMAGE.shape for _, edit in found) and [
        edit.seed for _, edit in found[2:]
    ] == [0, 1]


def test_the_ceilings_start_at_the_perfect_picture_of_the_first_stage():
    cascade = fake()
    (_, copied), (_, target), *_ = rows(cascade)
    assert (
        float((copied.image.mean() - 0.5).abs()) < 0.25
        and float((target.image.mean() + 0.5).abs()) < 0.25
    )
    again = SAMPLER.refined(cascade, EXAMPLE, [reduced(TARGET, 16)], texts=["a dog"])[0]
    assert torch.equal(again, target.image)


def test_the_oracle_knows_nothing_of_the_image():
    """Neither late start, mask, interpolation, nor a reference prompt about the image."""
    held = replace(SAMPLER, mask=Given(), interpolation=Interpolation("on"))
    cascade, other = fake(), fake()
    plain, masked = rows(cascade)[2:], rows(other, held)[2:]
    assert all(torch.equal(a.image, b.image) for (_, a), (_, b) in zip(plain, masked, strict=True))
    assert all(
        edit.start == 1.0 and edit.prompt == "a dog" and edit.weight == 2.0 and edit.mask is None
        for _, edit in plain
    )


def test_the_oracle_is_the_same_beside_every_method():
    found = [
        reference_rows.made(
            fake(), replace(SAMPLER, guidance=Guidance(w)), EXAMPLE, seeds=[0], weight=3.0
        )[-1][1]
        for w in (2.0, 7.0)
    ]
    assert [edit.weight for edit in found] == [3.0, 3.0] and torch.equal(
        found[0].image, found[1].image
    )


def test_no_reference_row_pushes_away_from_the_text_of_a_tuning():
    """The later stages' guidance may name {tuned}: of nothing tuned that is the empty prompt."""

    def told(text: str, weight: float = 3.0):
        stages = [
            FakeStage(Gaussian(0.05), name=name, resolution=size)
            for name, size in (("base", 16), ("sr256", 32))
        ]
        return rows(
            FakeCascade(stages, {"a dog": 0.3, "a cat": -0.3}),
            replace(SAMPLER, sr=replace(SAMPLER.sr, guidance=Guidance(weight, reference=text))),
        )

    plain, off = told(""), told("", weight=1.0)
    assert [row for row, _ in plain] == [
        "copy through super-resolution",
        "target through super-resolution",
        "oracle",
        "oracle",
    ]
    for found in (told("{tuned}"), told("{caption}")):
        assert all(
            torch.equal(a.image, b.image) for (_, a), (_, b) in zip(plain, found, strict=True)
        )
    assert not any(
        torch.equal(a.image, b.image) for (_, a), (_, b) in zip(plain, off, strict=True)
    ), "guidance does something"


def test_a_ceiling_says_the_text_that_it_was_sampled_with():
    assert [(row, edit.prompt) for row, edit in rows(fake(), seeds=(0,))] == [
        ("copy through super-resolution", "a cat"),
        ("target through super-resolution", "a dog"),
        ("oracle", "a dog"),
    ]


def test_without_a_target_a_second_stage_or_seeds_there_is_less():
    assert (
        reference_rows.made(
            fake(), SAMPLER, replace(EXAMPLE, requests=EXAMPLE.requests[1:]), seeds=[0]
        )
        == []
    )
    assert [row for row, _ in reference_rows.made(fake(stages=1), SAMPLER, EXAMPLE, seeds=[0])] == [
        "oracle"
    ]
    assert [row for row, _ in rows(fake(), seeds=())] == [
        "copy through super-resolution",
        "target through super-resolution",
    ]


def test_their_texts_are_listed_before():
    assert set(reference_rows.texts(EXAMPLE)) == {"a cat", "a dog", ""}
