"""Learning rates, steps and guidance weights are those of the model that is chosen."""

import re

import pytest
import yaml
from test_conf import CONF, composed


def test_the_rate_follows_model_and_optimizer_and_the_command_line_wins():
    pocket = composed().model  # its numbers are measured ones, which tests of the search hold
    for optimizer in ("adamw", "adafactor"):
        assert (
            composed(f"optimizer={optimizer}").method.tune.base.lr
            == pocket.dials.unitune.lr[optimizer]
        )
    for method in ("unitune", "dreambooth", "imagic"):
        tune = composed("model=if_xl", f"method={method}").method.tune
        assert (tune.base.lr, tune.sr256.lr) == (3e-6, 1e-8)  # IF-II's own
        tune = composed(f"method={method}", "lr=1e-5", "optimizer=adafactor").method.tune
        assert (tune.base.lr, tune.sr256.lr) == (1e-5, pocket.sr.lr.adafactor)
        tune = composed(f"method={method}", "sr_lr=2e-5").method.tune
        assert (tune.base.lr, tune.sr256.lr) == (pocket.dials[method].lr.adamw, 2e-5)


def test_the_rates_that_are_advised_for_lora_reach_every_stage():
    """What a comment of conf/adapter says to type."""
    text = (CONF / "adapter/lora.yaml").read_text().replace("\n# ", " ")
    advised = re.search(r"about ten times those.*?, (\S+=.*)$", text, re.MULTILINE)
    assert advised is not None
    for method in ("unitune", "dreambooth", "imagic"):
        cfg = composed(f"method={method}", "adapter=lora", *advised[1].split())
        assert len(cfg.method.tune) == 2 and {tuning.lr for tuning in cfg.method.tune.values()} == {
            cfg.lr
        }


def test_a_method_may_have_its_own_dials_on_a_model():
    """Rates and steps are read by the method, the rest by the sampler that it is published with.

    That sampler reads them under another method too.
    """
    own = [
        "model.dials.imagic.lr={adamw:1e-3,adafactor:1e-2}",
        "model.dials.imagic.steps=9",
        "model.dials.imagic.text=0.3",
        "model.dials.imagic.weight=5",
    ]
    cfg = composed("method=imagic", "budget=model", "model.dials.imagic.embedding_mix=0.9", *own)
    assert (
        cfg.lr,
        cfg.steps,
        cfg.method.embedding.lr,
        cfg.sampler.guidance.weight,
        cfg.sampler.text.eta,
    ) == (1e-3, 9, 0.3, 5, 0.9)
    assert (
        composed("method=imagic", "optimizer=adafactor", *own).lr == 1e-2
        and composed("method=imagic", "lr=7", *own).method.tune.base.lr == 7
    )
    other = composed("budget=model", "sampler=imagic", *own)
    assert (other.lr, other.steps, other.sampler.guidance.weight) == (
        composed().lr,
        composed().model.dials.unitune.steps,
        5,
    )
    word = composed(
        "method=textual_inversion",
        "model.dials.textual_inversion.word=0.5",
        "model.dials.textual_inversion.weight=6",
    )
    assert (word.method.embedding.lr, word.sampler.guidance.weight, word.lr) == (
        0.5,
        6,
        word.model.lr.adamw,
    )
    for method, dials in {"unitune": "unitune", "untuned": "sdedit"}.items():
        cfg = composed(
            f"method={method}", f"model.dials.{dials}.start=0.6", f"model.dials.{dials}.weight=9"
        )
        assert (cfg.sampler.start, cfg.sampler.guidance.weight) == (0.6, 9)
    assert (
        composed("method=dreambooth", "model.dials.dreambooth.weight=8").sampler.guidance.weight
        == 8
    )
    assert composed("method=untuned", "budget=model").steps == 0


def paths(tree: dict, above: str = "") -> set[str]:
    return {
        p
        for k, v in tree.items()
        for p in (paths(v, f"{above}{k}.") if isinstance(v, dict) else {above + k})
    }


@pytest.mark.parametrize("name", ["if_xl", "sd15"])
def test_no_model_inherits_the_dials_that_were_found_on_another(name):
    pocket, own, neutral = (
        yaml.safe_load((CONF / f"model/{file}.yaml").read_text())
        for file in ("pocket", name, "neutral")
    )
    assert own["defaults"] == ["neutral"] and "defaults" not in neutral
    found = {
        path
        for path in paths(pocket)
        if path.split(".")[0] in ("steps", "step", "guidance", "lr", "sr", "dials", "crop")
    }
    # A node that refers to another stands for all that is below it.
    covered = paths(own) | paths(neutral)
    assert len(found) > 25 and not {
        path
        for path in found
        if not any(path == own or path.startswith(f"{own}.") for own in covered)
    }


POCKET = yaml.safe_load((CONF / "model/pocket.yaml").read_text())
STEPS = {"ancestral": "DDPM()", "deterministic": "DDIM(eta=0.0)"}


@pytest.mark.parametrize(
    ("model", "steps", "step", "sr_steps", "sr_step"),
    [
        ("pocket", POCKET["steps"], "ancestral", POCKET["sr"]["steps"], "deterministic"),
        *((name, 100, "ancestral", 50, "ancestral") for name in ("if_xl", "if_l", "if_m")),
        *((name, 50, "deterministic", 1, "deterministic") for name in ("sd15", "sd21")),
    ],
)
def test_steps_and_their_rules_are_the_models(run, model, steps, step, sr_steps, sr_step):
    for name in ("base", "unitune", "sdedit", "cfg"):
        sampler = run.make(composed(f"model={model}", f"sampler={name}").sampler)
        assert (sampler.steps, repr(sampler.step), sampler.sr.steps, repr(sampler.sr.step)) == (
            steps,
            STEPS[step],
            sr_steps,
            STEPS[sr_step],
        )
    pictures = run.make(composed(f"model={model}", "method=dreambooth").method).class_images
    assert (pictures.steps, pictures.sr.steps, repr(pictures.sr.step)) == (
        steps,
        sr_steps,
        STEPS[sr_step],
    )
    published = {
        "imagic": "deterministic",
        "textual_inversion": "deterministic",
        "dreambooth": "ancestral",
        "prompt_to_prompt": "deterministic",
    }
    for name, rule in published.items():
        sampler = run.make(composed(f"model={model}", f"sampler={name}").sampler)
        assert repr(sampler.step) == STEPS[rule] and sampler.steps == (
            50 if name == "prompt_to_prompt" else steps
        )


def test_a_step_rule_from_the_command_line(run):
    cfg = composed(
        "sampler.step=${model.rules.deterministic}",
        "sampler.sr.step=${model.rules.ancestral}",
        "sampler.steps=7",
    )
    sampler = run.make(cfg.sampler)
    assert (repr(sampler.step), repr(sampler.sr.step), sampler.steps) == (
        "DDIM(eta=0.0)",
        "DDPM()",
        7,
    )
    assert (
        run.make(
            composed("sampler.step={_target_:unitune.diffusion.steps.DDIM,eta:0.5}").sampler
        ).step.eta
        == 0.5
    )


def test_weights_are_the_models_own():
    """Where none was measured on a tuned model, IF's and Stable Diffusion's own ones stand."""
    for sampler in (
        "unitune",
        "sdedit",
        "dreambooth",
        "textual_inversion",
        "imagic",
        "cfg",
        "masked",
        "prompt_guidance",
    ):
        for model, weight in {
            "if_xl": 7.0,
            "sd15": 7.5,
            "pocket": POCKET["dials"].get(sampler, {"weight": POCKET["guidance"]})["weight"],
        }.items():
            assert (
                composed(f"model={model}", f"sampler={sampler}").sampler.guidance.weight == weight
            )


def test_dreambooth_samples_super_resolution_at_the_level_it_is_tuned_at():
    for sampler in ("dreambooth", "unitune"):
        cfg = composed("method=dreambooth", f"sampler={sampler}")
        assert cfg.method.tune.sr256.low_level == cfg.sampler.sr.noise_level == 1e-5
    assert (
        composed("method=unitune", "sampler=dreambooth").sampler.sr.noise_level
        == POCKET["sr"]["noise_level"]
    )


def test_the_tuning_prompt_is_the_tokens_or_the_models():
    told = {
        token: composed(f"token={token}").method for token in ("description", "beikkpic", "model")
    }
    assert [(m.prompt, m.uncaptioned, m.template) for m in told.values()] == [
        ("{caption}", "", ""),
        ("beikkpic", "beikkpic", ""),
        ("{caption}", "beikkpic", ""),
    ]
    assert {composed(f"model={model}").method.prompt for model in ("if_m", "sd15")} == {"beikkpic"}


@pytest.mark.parametrize("method", ["unitune", "dreambooth", "imagic"])
def test_super_resolution_has_its_own_number_of_steps_in_every_method_that_tunes_weights(method):
    cfg = composed(f"method={method}", "steps=7")
    assert (cfg.method.tune.base.steps, cfg.method.tune.sr256.steps) == (7, 7)
    cfg = composed(f"method={method}", "steps=7", "budget.sr_steps=3")
    assert (cfg.method.tune.base.steps, cfg.method.tune.sr256.steps) == (7, 3)
