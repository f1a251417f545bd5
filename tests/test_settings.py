"""Settings that cannot work are refused; what will not work as hoped is said."""

from pathlib import Path

import pytest

from unitune.cli.advice import advice
from unitune.cli.settings import check_settings
from unitune.errors import Refused
from unitune.models import tiny

ASSETS = Path("/package/assets")


def settings(tmp_path: Path, **more: object) -> dict:
    tuning = {"lr": 3e-4, "steps": 128, "snapshots": [16, 32]}
    model = {
        "name": "pocket",
        "path": str(tmp_path),
        "stages": ["base"],
        "lr": {"adamw": 3e-4},
        "sr": {"lr": {"adamw": 1e-8}},
        "note": "only scenes",
    }
    return {
        **{"image": None, "edit": None, "snapshot": None, "selection": None, "paste": False},
        **{"seed": 0, "seeds": 4, "oracle": 1, "steps": 128, "batch_size": 4},
        "optimizer": {"name": "adamw"},
        "store": {"path": "store", "budget_gib": 20},
        "model": model,
        "method": {
            "name": "unitune",
            "prompt": "beikkpic",
            "tune": {"base": tuning, "sr256": tuning},
        },
        "stage": {"tuned": ["base"]},
        "sampler": {"template": "{rare} {edit}"},
        "benchmark": {"name": "demo", "path": str(ASSETS / "demo")},
        **more,
    }


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"oracle": 0.5}, "oracle must be a whole number"),
        ({"oracle": -1}, r"oracle must be 0 \(no reference samples\) or more of them, got -1"),
        ({"steps": "many"}, "steps must be a whole number"),
        (
            {"machine": {"threads": 1e9}},
            r"machine\.threads must be a whole number, got 1000000000\.0",
        ),
        ({"store": None}, "store must hold path and budget_gib, got None"),
        ({"edit": "a dog"}, "no effect with benchmark=demo"),
        ({"noun": "cat"}, "noun= describes one's own picture .* benchmark=demo brings its own"),
        ({"benchmark": {"name": "image", "path": None}}, "image=FILE"),
        (
            {
                "sampler": {"template": "{caption} {edit}"},
                "benchmark": {"name": "image", "path": "x", "caption": ""},
            },
            "describe it: caption=",
        ),
        ({"x": {"_target_": "os.system"}}, "os.system"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, more, said):
    with pytest.raises(Refused, match=said):
        check_settings(settings(tmp_path, **more))


def test_a_rate_of_weights_where_none_are_tuned(tmp_path):
    learned = {
        "method": {"name": "textual_inversion", "prompt": "<image>", "embedding": {"lr": 0.03}}
    }
    assert not advice(settings(tmp_path, lr=3e-4, **learned), ASSETS)
    (line,) = advice(settings(tmp_path, lr=1e-4, **learned), ASSETS)
    assert "method=textual_inversion tunes none: set method.embedding.lr" in line


def test_settings_that_work(tmp_path, caplog):
    tiny.floyd(tmp_path)
    for at in (None, 0, 16, 128):
        check_settings(settings(tmp_path, snapshot=at))
    assert not caplog.records
    with pytest.raises(Refused, match="no model folder"):
        check_settings(settings(tmp_path / "absent"))


def test_a_low_rate_is_said_for_tuned_stages_only(tmp_path):
    rates = {"name": "unitune", "tune": {"base": {"lr": 2.9e-5}, "sr256": {"lr": 1e-9}}}
    (line,) = advice(settings(tmp_path, method=rates), ASSETS)
    assert "2.9e-05 of base" in line and "0.0003" in line
    assert not advice(
        settings(tmp_path, method={"name": "unitune", "tune": {"base": {"lr": 3e-5}}}), ASSETS
    )
    assert not advice(settings(tmp_path, method={"name": "untuned"}), ASSETS)


def test_a_low_rate_is_measured_by_the_stages_and_the_methods_own(tmp_path):
    both = {"stage": {"tuned": ["base", "sr256"]}}
    model = settings(tmp_path)["model"] | {"stages": ["base", "sr256"]}
    rates = {"name": "unitune", "tune": {"base": {"lr": 3e-4}, "sr256": {"lr": 1e-8}}}
    assert not advice(settings(tmp_path, model=model, method=rates, **both), ASSETS)
    own = settings(
        tmp_path, model=model, method=rates, dials={"lr": {"adamw": 4e-3}}, lr=4e-3, **both
    )
    (line,) = advice(own, ASSETS)
    assert "0.0003 of base" in line and "0.004" in line
    low = rates | {"tune": {"base": {"lr": 3e-4}, "sr256": {"lr": 9e-10}}}
    (line,) = advice(settings(tmp_path, model=model, method=low, **both), ASSETS)
    assert "9e-10 of sr256" in line and "1e-08" in line
    (line,) = advice(
        settings(
            tmp_path, model={k: v for k, v in model.items() if k != "sr"}, method=rates, **both
        ),
        ASSETS,
    )
    assert (
        "1e-08 of sr256" in line and "0.0003" in line
    )  # of an older run, which had one rate for all


def test_a_rate_of_a_stage_that_is_not_tuned(tmp_path):
    model = settings(tmp_path)["model"] | {"stages": ["base", "sr256"]}
    rates = {"name": "unitune", "tune": {"base": {"lr": 3e-4}, "sr256": {"lr": 1e-8}}}

    def said(tuned: list[str], **given: float) -> list[str]:
        return advice(
            settings(tmp_path, model=model, method=rates, stage={"tuned": tuned}, **given), ASSETS
        )

    assert said(["sr256"], lr=1e-4) == [
        "lr= is the rate of base, and sr256 alone is tuned: set sr_lr"
    ]
    assert said(["base"], sr_lr=1e-4) == [
        "sr_lr= is the rate of the stages above base, and base alone is tuned: set lr"
    ]
    for tuned in (["base"], ["sr256"], ["base", "sr256"]):
        assert not said(tuned) and not said(tuned, lr=3e-4, sr_lr=1e-8)  # conf's own
    assert (
        not said(["base"], lr=1e-4)
        and not said(["sr256"], sr_lr=1e-4)
        and not said(["base", "sr256"], lr=1e-4, sr_lr=1e-4)
    )


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("image", "cat.jpg", True),
        ("photo", "/x/chelsea.png", True),
        ("image", "/package/assets/demo/a.png", False),
        ("demo", "/x", False),
    ],
)
def test_own_pictures_are_outside_the_small_world(tmp_path, name, path, said):
    benchmark = {"name": name, "path": path}
    assert ("only scenes" in advice(settings(tmp_path, benchmark=benchmark), ASSETS)) is said
