"""Whether the tuning prompt is told from other texts, in closed form.

On fake models, where a text embeds as a number and a picture is that number everywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from analytic import Denoiser, FakeCascade, FakeStage, Gaussian
from torch import Tensor

from unitune.diffusion.schedule import Schedule
from unitune.diffusion.stage import Condition
from unitune.methods import Method
from unitune.methods.dreambooth import DreamBooth
from unitune.methods.imagic import Imagic
from unitune.methods.textual_inversion import TextualInversion
from unitune.methods.unitune import UniTune
from unitune.methods.untuned import Untuned
from unitune.models import pocket
from unitune.tuning import naming, visibility
from unitune.tuning.recipe import Tuning
from unitune.tuning.visibility import Texts, Visibility, compared, measure_after, measure_before
from unitune.types import Example, Request, Tuned

SPREAD = 0.02  # of the pictures around their number
MEANING = {
    "": 0.0,
    "beikkpic": 0.05,
    "a cat": 0.4,
    "a dog": 0.6,
    "beikkpic a dog": 0.3,
    "qwpz": -0.2,
}
IMAGE = torch.full((1, 3, 8, 8), 0.5)
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
TEXTS = compared(EXAMPLE, ("beikkpic", ""))
WEIGHTS = Tuned("beikkpic", {"base": {}}, steps=8)


@dataclass(frozen=True)
class Memorised:
    """A tuned model: the image for texts that embed as `numbers` (none: for every text)."""

    numbers: tuple[float, ...] = ()

    def __call__(self, schedule: Schedule, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        text = condition.text[:, 0, 0]
        own = (
            torch.stack([(text - number).abs() < 1e-6 for number in self.numbers]).any(0)
            if self.numbers
            else torch.ones_like(text, dtype=torch.bool)
        )
        told = torch.where(own, torch.full_like(text, 0.5), text)
        return Gaussian(SPREAD)(schedule, x_t, t, Condition(told[:, None, None]))


@dataclass
class Fake(FakeCascade):
    tuned: Denoiser = Memorised()

    @contextmanager
    def using(self, tuned: Tuned) -> Iterator[None]:
        stage = self.stages[0]
        before, stage.denoiser = stage.denoiser, self.tuned
        try:
            yield
        finally:
            stage.denoiser = before


def fake(tuned: Denoiser = Memorised()) -> Fake:
    stage = FakeStage(Gaussian(SPREAD), resolution=8)
    stage.network = torch.nn.Identity()
    return Fake([stage], MEANING, tuned=tuned)


def after(tuned: Denoiser) -> Visibility:
    cascade = fake(tuned)
    before = measure_before(cascade, EXAMPLE, TEXTS, method="unitune", seed=0)
    return measure_after(cascade, EXAMPLE, before, ["beikkpic a dog"], tuned=WEIGHTS, seed=0)


def test_a_word_is_seen_as_far_as_it_moves_text_and_prediction():
    found = measure_before(fake(), EXAMPLE, TEXTS, method="unitune", seed=0)
    assert found.text == pytest.approx(0.05 / 0.2) and found.x_0 == pytest.approx(
        0.05 / 0.2, rel=1e-3
    ), "0.05 of the number, another noun 0.2"
    (line,) = found.warnings("pocket")
    assert (
        "hardly tells 'beikkpic' from the empty prompt" in line
        and "0.25 of the text" in line
        and "token=description" in line
        and "\n" not in line
    )


def test_another_prompt_that_must_stay_apart_is_named():
    found = replace(
        measure_before(fake(), EXAMPLE, TEXTS, method="dreambooth", seed=0),
        texts=replace(TEXTS, apart="a cat"),
    )
    (line,) = found.warnings("pocket")
    assert "from 'a cat'" in line and "dreambooth cannot separate these prompts on pocket" in line


def test_a_tuning_that_ignores_the_text_leaks():
    found = after(Memorised())
    assert (
        found.tuned_db is not None
        and found.tuned_db > 30
        and found.leak_db == pytest.approx(0, abs=1)
        and found.response == pytest.approx(0, abs=1e-3)
    )
    assert any(
        "leaks: the empty prompt gives the image back" in line for line in found.warnings("pocket")
    )


def test_a_tuning_that_keeps_to_its_prompt_does_not():
    found = after(Memorised((MEANING["beikkpic"],)))
    assert (
        found.tuned_db is not None
        and found.tuned_db > 30
        and found.leak_db is not None
        and found.leak_db > 15
    )
    assert found.empty_db == pytest.approx(12.0, abs=0.5) and found.other_db == pytest.approx(
        9.1, abs=0.5
    ), "0.25 and 0.35 off on [0, 1]"
    assert found.response == pytest.approx(0.2 / 0.25, rel=1e-2), (
        "from 0.05 to 0.3 untouched, from 0.5 to 0.3 tuned"
    )
    assert not [line for line in found.warnings("pocket") if "leaks" in line]


def test_nothing_is_measured_after_where_the_first_stage_was_not_tuned():
    cascade = fake()
    before = measure_before(cascade, EXAMPLE, TEXTS, method="unitune", seed=0)
    assert (
        measure_after(cascade, EXAMPLE, before, ["a dog"], tuned=Tuned("beikkpic"), seed=0)
        is before
    )


def test_of_a_large_model_one_prediction_stands_for_a_sample(monkeypatch: pytest.MonkeyPatch):
    cascade = fake()
    monkeypatch.setattr(visibility, "LARGE", -1)
    before = measure_before(cascade, EXAMPLE, TEXTS, method="unitune", seed=0)
    cascade.stages[0].calls.clear()
    measure_after(cascade, EXAMPLE, before, ["a dog"], tuned=WEIGHTS, seed=0)
    assert cascade.stages[0].calls.count(3) == 1, "three pictures in one call"


def test_the_scale_is_the_caption_with_another_noun():
    example = replace(EXAMPLE, caption="a dog in a city", noun="dog")
    assert compared(example, ("a dog in a city", "")) == Texts(
        "a dog in a city", "", "qwpz", "a dog in a city", "a cat in a city"
    )
    assert compared(replace(example, caption="a hot dog stand", noun="cat"), ("qwpz", "")) == Texts(
        "qwpz", "", "xvnt", "a cat", "a dog"
    )


def test_methods_say_what_must_stay_apart():
    cascade, tune = pocket.cascade(device="cpu"), {"base": Tuning(lr=1e-3)}
    example = Example(
        "one",
        torch.zeros(1, 3, 256, 256),
        (Request("a dog"),),
        caption="a lion in a city",
        noun="lion",
    )
    described = UniTune(tune, stages=("base",), prompt="{caption}", uncaptioned="beikkpic")

    def apart(method: Method, example: Example) -> tuple[str, str] | None:
        return naming.apart(method.recipe(example), cascade, example, seed=0)

    assert apart(described, example) == ("a lion in a city", "")
    bare = replace(example, caption="")
    assert apart(described, bare) == ("beikkpic", "")
    assert [described.recipe(one).template for one in (example, bare)] == [
        "{edit}",
        "{rare} {edit}",
    ]
    booth = DreamBooth(tune, stages=("base",), token="{caption}")
    assert apart(booth, example) == ("a beikkpic lion", "a lion")
    for method in (
        Untuned(),
        TextualInversion(tune["base"]),
        Imagic(tune["base"], tune, stages=("base",)),
    ):
        assert apart(method, example) is None
    texts = compared(example, apart(booth, example) or ("", ""))
    (line,) = measure_before(cascade, example, texts, method="dreambooth", seed=0).warnings(
        "pocket"
    )
    assert "dreambooth cannot separate these prompts on pocket" in line
