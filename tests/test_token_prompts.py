"""What names the image by conf/token.

After tuning on a description the embedded model tells it from the empty prompt, so that prompt
guidance is one.
"""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from omegaconf import OmegaConf
from test_conf import composed

from unitune import prompts, rng
from unitune.benchmarks.manifest import Folder
from unitune.cli import arguments
from unitune.cli.settings import check_settings
from unitune.diffusion.stage import Condition, reduced
from unitune.methods.unitune import UniTune
from unitune.models import pocket
from unitune.models.cascade import Cascade
from unitune.storage.store import Store
from unitune.tuning import make, naming
from unitune.tuning.recipe import Tuning
from unitune.types import Draw, Example, Refused, Request

DEMO = pocket.FOLDER.parent / "demo"
DESCRIBED = Example(
    "one",
    torch.zeros(1, 3, 32, 32),
    (Request("a dog in a city"),),
    caption="a cat in a city",
    noun="cat",
)
BARE = replace(DESCRIBED, caption="")
START = 0.95  # of the paper's late start


def named(run: ModuleType, cascade: Cascade, example: Example, *settings: str) -> tuple[str, str]:
    """The text that is tuned on and the text that is sampled."""
    cfg = composed(*settings)
    names = naming.named(run.make(cfg.method).recipe(example), cascade, example, seed=0)
    return names.about, run.make(cfg.sampler).texts(
        example, [Draw(example.requests[0], 0)], tuned=names
    )[0]


def test_a_known_caption_is_tuned_on_and_the_edited_one_sampled_alone(
    run: ModuleType, cascade: Cascade
):
    assert (
        named(run, cascade, DESCRIBED)
        == ("a cat in a city", "a dog in a city")
        == named(run, cascade, DESCRIBED, "token=description")
    )


def test_without_a_caption_the_rare_token_stands_before_the_edit(run: ModuleType, cascade: Cascade):
    assert named(run, cascade, BARE) == ("beikkpic", "beikkpic a dog in a city")
    assert (
        named(run, cascade, DESCRIBED, "token=beikkpic")
        == named(run, cascade, BARE, "token=beikkpic")
        == ("beikkpic", "beikkpic a dog in a city")
    )


def test_other_models_are_tuned_on_the_rare_token_whatever_is_known(
    run: ModuleType, cascade: Cascade
):
    for model in ("if_xl", "if_l", "if_m", "sd15", "sd21"):
        assert named(run, cascade, DESCRIBED, f"model={model}") == (
            "beikkpic",
            "beikkpic a dog in a city",
        )


def test_token_description_without_a_caption_is_refused(run: ModuleType, cascade: Cascade):
    with pytest.raises(Refused, match=r"asks for \{caption\}, but the base image has none"):
        named(run, cascade, BARE, "token=description")


def test_a_description_is_refused_before_loading_unless_a_rare_token_may_stand_in(typed):
    answer = typed("token=description", "edit=a dog", "metrics=none")
    assert (
        answer.code == 2
        and "describe it: caption='a cat in a city'" in answer.err
        and answer.err.strip().count("\n") == 0
    )
    for method in ("unitune", "dreambooth"):
        cfg = composed(*arguments.prepared([f"method={method}", "edit=a dog"]))
        check_settings(OmegaConf.to_container(cfg, resolve=True))  # not refused


def test_a_token_that_is_typed_stands_before_the_edit(run: ModuleType, cascade: Cascade):
    for example in (DESCRIBED, BARE):
        assert named(run, cascade, example, "token.text=xyz") == ("xyz", "xyz a dog in a city")


def test_dreambooth_takes_the_rare_token_where_the_text_is_a_description(
    run: ModuleType, cascade: Cascade
):
    cat = replace(DESCRIBED, requests=(Request("a cat at night"),))
    assert named(run, cascade, cat, "method=dreambooth") == (
        "a beikkpic cat",
        "a beikkpic cat at night",
    )
    assert named(run, cascade, cat, "method=dreambooth", "token.rare=xyz") == (
        "a xyz cat",
        "a xyz cat at night",
    )
    assert named(run, cascade, cat, "method=dreambooth", "token.text=xyz") == (
        "a xyz cat",
        "a xyz cat at night",
    )
    drawn = prompts.random_rare_token(cascade.pieces, seed=0)
    assert named(run, cascade, cat, "method=dreambooth", "token=random")[0] == f"a {drawn} cat"
    said = "puts a rare word before the noun, and a description is none; choose token=beikkpic"
    with pytest.raises(Refused, match=f"method=dreambooth {said}"):
        named(run, cascade, cat, "method=dreambooth", "token=description")


def test_prompt_guidance_on_pocket_compares_two_prompts_that_differ(tmp_store: Store):
    """At the late start its reference, the description, is told from the empty prompt.

    Their difference is a fifth of the edit's at least; else it is plain guidance.
    """
    model = pocket.cascade(device="cpu", precision="fp32")
    (example, *_) = Folder(path=Path(DEMO)).examples(256)
    stage, edit = (
        model.stages[0],
        next(request.prompt for request in example.requests if request.prompt != example.caption),
    )
    method = UniTune(
        {"base": Tuning(lr=2.5e-4, steps=32, batch_size=2, snapshots=())},
        stages=("base",),
        prompt="{caption}",
    )
    tuned = make.prepare(method.recipe(example), model, example, store=tmp_store)
    assert tuned.about == example.caption
    base = reduced(example.image, stage.resolution)
    t = torch.full((4,), stage.schedule.level(START))
    eps = torch.cat(
        [
            rng.noise(
                base.shape, seed=seed, example=example.digest, stage="base", role="test", step=0
            )
            for seed in range(4)
        ]
    )
    x_t = stage.schedule.add_noise(base.expand(4, -1, -1, -1), eps, t)
    with model.using(tuned):
        described, empty, edited = (
            stage.predict(x_t, t, Condition(model.encode([text] * 4)))
            for text in (example.caption, "", edit)
        )
    references, change = ((x - described).square().mean().sqrt() for x in (empty, edited))
    assert float(references) >= 0.2 * float(change), (
        f"{float(references):.3f} between the references, {float(change):.3f} by the edit"
    )
