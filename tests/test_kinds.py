"""Every group and every field of conf/ given a value of a wrong kind: one line that names it."""

from pathlib import Path
from typing import Any

import pytest
from test_conf import CONF

from unitune.cli import arguments, groups, kinds, targets
from unitune.errors import Refused
from unitune.runs import preflight

GROUPS = groups.options(CONF)
FIELDS = kinds.fields(CONF)
SHAPES = {
    "null": None,
    "list": [1, "x"],
    "fields": {"_target_": "x"},
    "text": "nonsense",
    "number": 7,
}


def refusal(run, *given, **more) -> str:
    with pytest.raises(Refused) as refused:
        run(*given, **more)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("group", [name for name in GROUPS if name != "hydra"])
@pytest.mark.parametrize("flags", [[], ["-m"]], ids=["run", "sweep"])
def test_a_group_takes_the_name_of_one_option(group, flags):
    known = GROUPS[group]
    values = ["null", "NULL", "", "''", "[]", f"[{known[0]}]", "[a,b]", "{a:1}", "7", "true"]
    values += [f"{known[0]},null", f"[{known[0]}],{known[0]}"] if flags else []
    values += [] if group.startswith("hydra") else [f"{known[0]}x", f"conf/{known[0]}.yaml"]
    for value in values:
        for sign in ("", "+", "++"):
            given = f"{sign}{group}={value}"
            line = refusal(arguments.prepared, [*flags, given], groups=GROUPS)
            assert given in line and known[0] in line
    assert group in refusal(arguments.prepared, [f"~{group}"], groups=GROUPS)
    given = [*flags, f"{group}={known[0]}"]
    assert arguments.prepared(given, groups=GROUPS) == given


def test_a_misspelt_option_is_told_the_nearest():
    for given, near in (("experiment=basline", "baselines"), ("sampler=cgf", "cfg")):
        line = refusal(arguments.prepared, [given], groups=GROUPS)
        assert f"did you mean {near!r}?" in line
    own = ["--config-dir", "mine", "sampler=own"]
    assert arguments.prepared(own, groups=GROUPS) == own


def nested(name: str, value: object) -> dict:
    """Settings with one field, below others that seem to name a class."""
    first, _, rest = name.partition(".")
    return {first: {"_target_": "x", **nested(rest, value)} if rest else value}


@pytest.mark.parametrize("top", sorted({name.partition(".")[0] for name in FIELDS}))
def test_a_field_refuses_what_is_not_of_its_kind(top):
    for name in (one for one in FIELDS if one.partition(".")[0] == top):
        expected = kinds.of(name, FIELDS)
        for value in SHAPES.values():
            kind, settings = kinds.kind(value), nested(name, value)
            if not expected or kind in expected:
                kinds.check(settings, FIELDS, exact=True)
                continue
            line = refusal(kinds.check, settings, FIELDS, exact=True)
            assert line.startswith(f"{name} ") and len(line) < 400
            if kind not in kinds.SINGLE or kinds.NUMBER not in expected:
                assert refusal(kinds.check, settings, FIELDS) == line


def test_few_fields_are_open():
    """Those that an interpolation computes from several; their code refuses what it cannot use."""
    open_ = [name for name in FIELDS if not kinds.of(name, FIELDS)]
    assert len(open_) < len(FIELDS) / 10 and not {"seed", "caption", "sampler.step"} & {*open_}
    assert {"edit", "benchmark.prompts", "snapshot"} <= {*open_}, "null stands for what is typed"


LINES = [
    ({"seed": [1, 2]}, "seed takes a number, as seed=0, got [1, 2]; to run several values"),
    ({"caption": None}, "caption takes a text, got None"),
    ({"snapshots": 16}, "snapshots takes a list, as snapshots=[16,32,64], got 16"),
    (nested("sampler.guidance", 3), "sampler.guidance holds fields (reference, rescale, weight)"),
    (
        nested("sampler.step", "ddim"),
        "sampler.step holds fields (eta), got 'ddim'; set one of these",
    ),
    ({"metrics": {"use": None}}, "metrics.use takes a list, got None"),
    ({"paste": "maybe"}, "paste takes true or false, as paste=false, got 'maybe'"),
    (
        {"mask": {"_target_": "x", "noises": "many"}},
        "mask.noises takes a number, as mask.noises=10, got 'many'",
    ),
    ({"mask": {"noises": 5}}, "mask names no class (_target_)"),
    ({"freeze": {}}, "freeze names no class (_target_)"),
    ({"method": {"tune": {"base": {"a": 1}}}}, "method names no class"),
    ({"image": ["a.png"]}, "image takes a text or nothing (null), got ['a.png']"),
]


@pytest.mark.parametrize(("settings", "said"), LINES)
def test_what_is_said(settings, said):
    assert refusal(kinds.check, settings, FIELDS, exact=True).startswith(said)


def test_a_field_that_a_class_does_not_take_is_refused():
    """As an experiment sets it that was written for another benchmark."""
    picture = "unitune.benchmarks.one_picture.OnePicture"
    settings = {"benchmark": {"_target_": picture, "name": "image", "limit": 6}}
    line = refusal(targets.check_targets, settings)
    assert line.startswith("benchmark.limit has no effect: benchmark=image takes path, prompts")
    step = {"sampler": {"step": {"_target_": "unitune.diffusion.steps.DDPM", "eta": 1}}}
    assert refusal(targets.check_targets, step).startswith("sampler.step.eta has no effect")
    store = {"_target_": "unitune.storage.store.Store", "path": "s", "budgt": 1}
    assert "budget_gib" in refusal(targets.check_targets, {"store": store})


def test_a_benchmark_without_an_edit_is_refused():
    assert preflight.CHECKS[0] is preflight.edits
    part: Any = None
    inputs = preflight.Inputs(part, part, part, [], folder=Path("a"), store=Path("b"))
    assert "holds no edit" in refusal(preflight.edits, inputs)


COMMANDS = [
    (["logger=null"], "logger=null chooses nothing; available: csv"),
    (["mask={words:x}"], "available: attention"),
    (["experiment=baselines", "edit=x"], "benchmark.limit has no effect: benchmark=image takes"),
    (["experiment=basline"], "did you mean 'baselines'?"),
    (["sampler.sr=null"], "sampler.sr holds fields"),
    (["sampler.guidance=3"], "sampler.guidance holds fields"),
    (["stage.tuned=null"], "stage.tuned takes a list"),
    (["method.tune.base=null"], "method.tune.base holds fields"),
    (["metrics.use=null"], "metrics.use takes a list"),
    (["machine.threads=x"], "machine.threads must be a whole number"),
    (["selection=best", "selection.clip=null"], "selection.clip holds fields"),
    (["edit=[null]"], "edit"),
    (["--config-name", "score", "runs=null"], "runs takes a text"),
    (["--config-name", "report"], "runs"),
    (["--config-name", "scenes", "folder=null"], "folder takes a text"),
    (["-m", "image=a.png,b.png", "edit=x"], "in a sweep (-m)"),
    (["image=https://example.com/a.png", "edit=x"], "is an address"),
]


@pytest.mark.parametrize(("given", "said"), COMMANDS, ids=[" ".join(one) for one, _ in COMMANDS])
def test_commands_are_refused_in_one_line(refused, given, said):
    assert said in refused(*given)


def test_a_sweep_of_several_pictures_goes_on_past_the_first(typed, here):
    """Both cells are reached: each says that its own picture is not there."""
    answer = typed("-m", "image='a.png','b.png'", "edit=x", "metrics=none", "seeds=1")
    assert answer.code == 2 and "2 runs of the sweep failed" in answer.err
    assert "a.png: no such file" in answer.err and "b.png: no such file" in answer.err
    assert list(here.iterdir()) == []
