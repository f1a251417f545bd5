import os
from io import StringIO
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from unitune.cli import arguments, ending
from unitune.cli.ending import Ended
from unitune.errors import Diverged, Refused
from unitune.models import tiny

ASSETS = Path("/package/assets")
PROMPTS = [
    "a cat in the snow, pencil sketch",
    "the cat's hat",
    "'tis a cat",
    "a cat's",
    'a "quoted" cat',
    "[a cat] (or a dog) {or both}",
    "x=1 & y!=2 # not a comment",
    "a=b=c",
    "une forêt d'été, Zürich",
    "a 🐈 in space",
    "50% off!; rm -rf / | cat",
    "back\\slash \\' end\\",
    "costs $5 or ${oc.env:HOME}",
    "\\${x} and \\\\${y}",
    "tab\tand\nnew line",
    " spaces around ",
    "123",
    "true",
    "1e-4",
    "${",
    "~cat",
    "@",
]


def as_read(argument: str) -> object:
    """What a config holds after Hydra has read the argument."""
    override = OverridesParser.create().parse_override(argument)
    assert not override.is_sweep_override()
    return OmegaConf.create({"value": override.value()}).value


@pytest.mark.parametrize("prompt", PROMPTS)
def test_free_text_arrives_as_typed(prompt):
    (argument,) = arguments.quoted([f"edit={prompt}"])
    assert as_read(argument) == prompt


@pytest.mark.parametrize(
    "argument",
    [
        "edit='a dog'",
        'edit="a dog"',
        "edit=['a dog','a cat']",
        "edit=null",
        "sampler=cfg,sdedit",
        "-m",
        "--help",
        "lr=1e-4",
    ],
)
def test_what_is_hydra_already_stays(argument):
    assert arguments.quoted([argument]) == [argument]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_literals_survive_the_two_resolutions_of_hydra(prompt):
    config = OmegaConf.create(arguments.literals({"a": [{"b": prompt}], "n": 1, "none": None}))
    OmegaConf.resolve(config)
    assert config.a[0].b == prompt and config.n == 1 and config.none is None


def test_flags_may_stand_anywhere():
    assert arguments.prepared(["lr=1,2", "-m", "--config-name", "score", "~logger", "seed=1"]) == [
        "-m",
        "--config-name",
        "score",
        "lr=1,2",
        "~logger",
        "seed=1",
    ]


@pytest.mark.parametrize(
    ("typed", "added"),
    [
        ([], []),
        (["lr=1"], []),
        (["edit=a"], ["benchmark=image", "image=${assets:demo/cat-city-0.png}"]),
        (["image=x.png"], ["benchmark=image"]),
        (["image=x.png", "edit=a"], ["benchmark=image"]),
        (["edit=a", "benchmark=folder"], []),
    ],
)
def test_own_pictures_choose_their_benchmark(typed, added):
    assert arguments.with_benchmark(typed) == [*typed, *added]


@pytest.mark.parametrize("more", ["lr=1", "sampler=cfg", "+x=1"])
def test_from_stands_alone(more):
    with pytest.raises(Refused, match=more.lstrip("+").partition("=")[0]):
        arguments.prepared(["from=somewhere", more])
    assert arguments.prepared(["-m", "from=some, where", "store.path=x"]) == [
        "-m",
        "from='some, where'",
        "store.path=x",
    ]


def test_prompts_of_a_file(tmp_path):
    (tmp_path / "prompts.txt").write_text(
        "\ufeffa dog, running\n\n  a cat's hat \n", encoding="utf-8"
    )
    assert arguments.edit_prompts(f"@{tmp_path}/prompts.txt") == ("a dog, running", "a cat's hat")
    assert arguments.edit_prompts("a dog, @home") == ("a dog, @home",)
    assert arguments.edit_prompts(["a", "b"]) == ("a", "b")
    assert arguments.edit_prompts(None) == ()
    with pytest.raises(Refused, match=r"missing\.txt"):
        arguments.edit_prompts("@missing.txt")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(Refused, match="UTF-8"):
        arguments.edit_prompts(f"@{tmp_path}/bytes")


HOSTILE = [
    "os.system", "os.remove", "posix.system", "builtins.eval", "builtins.exec", "builtins.open", "builtins.__import__", "subprocess.run", "subprocess.Popen",
    "subprocess.check_output", "joblib.load", "pandas.read_pickle", "numpy.load", "torch.load", "pickle.loads", "importlib.import_module", "shutil.rmtree",
    "runpy.run_path", "logging.os.system", "unitune.images.os.system", "unitune.storage.store.shutil.rmtree", "unitune.storage.store.os.remove", "unitune.storage.store._delete",
    "unitune.images.save_png", "unitune.runs.experiment.Path", "unitune.types.Protocol", "unitune.missing.Name", "unitune.storage.store.Missing", "unitune.", "unitune",
    "unitunes.store.Store", "pytorch_lightning.Trainer", "pytorch_lightning.loggers.wandb.os.system", "pytorch_lightning.loggers.logger.rank_zero_only", "os",
]  # fmt: skip


@pytest.mark.parametrize("target", [*HOSTILE, "", 5])
def test_targets_of_others_are_refused(target):
    for tree in ({"_target_": target}, {"a": [{"b": {"_target_": target, "_args_": ["touch x"]}}]}):
        with pytest.raises(
            Refused, match=r"allowed are classes of unitune and pytorch_lightning\.loggers"
        ):
            arguments.check_targets(tree)


def test_own_classes_are_allowed():
    arguments.check_targets(
        {
            "a": [{"_target_": "unitune.storage.store.Store"}],
            "b": {"_target_": "pytorch_lightning.loggers.CSVLogger"},
            "c": None,
            "d": "os.system",
        }
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("first\nsecond", "first"),
        ("\n  In 'config': Could not find 'sampler/foo'\n\nAvailable options in 'sampler':\n\tbase\n\tcfg\nConfig search path:\n\tprovider=x, path=y",
         "In 'config': Could not find 'sampler/foo'; available: base, cfg"),
        ("Error in call to target 'a.B':\nTypeError('no foo')\nfull_key: sampler", "Error in call to target 'a.B': TypeError('no foo') (sampler)"),
        ("Missing mandatory value: path\n    full_key: benchmark.path\n    object_type=dict", "Missing mandatory value: path (benchmark.path)"),
        ("", "ValueError"),
    ],
)  # fmt: skip
def test_errors_become_one_line(text, line):
    assert ending.one_line(ValueError(text)) == line


def told(ended: Ended) -> tuple[int, list[str]]:
    stream = StringIO()
    return ended.tell(stream), stream.getvalue().splitlines()


def test_exit_codes_and_what_is_said():
    ended = Ended()
    assert told(ended) == (0, [])
    ended.failed(Refused("no cat"), refused=True)
    assert told(ended) == (2, ["unitune: no cat"])
    ended.failed(Diverged("nan"), refused=False)
    assert told(ended)[0] == 1
    stopped = Ended()
    stopped.stopped(15)
    assert told(stopped)[0] == 143 and told(stopped)[1][0].startswith("unitune: stopped")


def test_a_sweep_lists_its_failed_cells():
    ended = Ended()
    ended.failed(
        Refused("no cat"), refused=True, cell="1-unitune-cfg", overrides=["sampler=cfg", "seeds=0"]
    )
    ended.failed(
        RuntimeError("broken\nmore"),
        refused=False,
        cell="12-unitune-cfg",
        overrides=["sampler=cfg"],
    )
    code, lines = told(ended)
    assert code == 1
    assert lines == [
        "unitune: 2 runs of the sweep failed:",
        "  1-unitune-cfg   no cat  sampler=cfg seeds=0",
        "  12-unitune-cfg  broken  sampler=cfg",
    ]


def test_refusals_leave_no_folder_and_results_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = Ended()
    for name in ("outputs/sweep/0", "outputs/sweep/1"):
        Path(ended.noted(name)).mkdir(parents=True)
    ended.noted("outputs/sweep")
    Path("outputs/sweep/multirun.yaml").touch()
    Path("outputs/sweep/0/config.yaml").touch()
    Path("outputs/sweep/1/scores.jsonl").touch()
    ended.failed(RuntimeError("a bug"), refused=False)
    told(ended)
    assert Path("outputs/sweep/0/config.yaml").exists()  # what failed may be looked at
    ended.failures[:] = []
    ended.failed(Refused("no"), refused=True)
    told(ended)
    assert (
        not Path("outputs/sweep/0").exists()
        and Path("outputs/sweep/1/scores.jsonl").exists()
        and Path("outputs/sweep/multirun.yaml").exists()
    )
    os.remove("outputs/sweep/1/scores.jsonl")
    told(ended)
    assert list(tmp_path.iterdir()) == []


def test_the_working_directory_is_never_removed(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in (".", "..", tmp_path, tmp_path / "absent"):
        ending.remove_leftovers(Path(folder))
    assert (tmp_path / "here").is_dir()


def settings(tmp_path: Path, **more: object) -> dict:
    tuning = {"lr": 3e-4, "steps": 128, "snapshots": [16, 32]}
    return {
        "image": None, "edit": None, "seed": 0, "seeds": 4, "oracle": 1, "steps": 128, "batch_size": 4, "snapshot": None, "optimizer": {"name": "adamw"},
        "selection": None, "paste": False,
        "store": {"path": "store", "budget_gib": 20},
        "model": {"name": "pocket", "path": str(tmp_path), "stages": ["base"], "lr": {"adamw": 3e-4}, "sr": {"lr": {"adamw": 1e-8}}, "note": "only scenes"},
        "method": {"name": "unitune", "prompt": "beikkpic", "tune": {"base": tuning, "sr256": tuning}}, "stage": {"tuned": ["base"]},
        "sampler": {"template": "{rare} {edit}"}, "benchmark": {"name": "demo", "path": str(ASSETS / "demo")},
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"oracle": 0.5}, "oracle must be a whole number"),
        ({"oracle": -1}, r"oracle must be 0 \(no reference samples\) or more of them, got -1"),
        ({"steps": "many"}, "steps must be a whole number"),
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
        arguments.check_settings(settings(tmp_path, **more))


def test_a_rate_of_weights_where_none_are_tuned(tmp_path):
    learned = {
        "method": {"name": "textual_inversion", "prompt": "<image>", "embedding": {"lr": 0.03}}
    }
    assert not arguments.advice(settings(tmp_path, lr=3e-4, **learned), ASSETS)
    (line,) = arguments.advice(settings(tmp_path, lr=1e-4, **learned), ASSETS)
    assert "method=textual_inversion tunes none: set method.embedding.lr" in line


def test_settings_that_work(tmp_path, caplog):
    tiny.floyd(tmp_path)
    for at in (None, 0, 16, 128):
        arguments.check_settings(settings(tmp_path, snapshot=at))
    assert not caplog.records
    with pytest.raises(Refused, match="no model folder"):
        arguments.check_settings(settings(tmp_path / "absent"))


def test_a_low_rate_is_said_for_tuned_stages_only(tmp_path):
    rates = {"name": "unitune", "tune": {"base": {"lr": 2.9e-5}, "sr256": {"lr": 1e-9}}}
    (line,) = arguments.advice(settings(tmp_path, method=rates), ASSETS)
    assert "2.9e-05 of base" in line and "0.0003" in line
    assert not arguments.advice(
        settings(tmp_path, method={"name": "unitune", "tune": {"base": {"lr": 3e-5}}}), ASSETS
    )
    assert not arguments.advice(settings(tmp_path, method={"name": "untuned"}), ASSETS)


def test_a_low_rate_is_measured_by_the_stages_and_the_methods_own(tmp_path):
    both = {"stage": {"tuned": ["base", "sr256"]}}
    model = settings(tmp_path)["model"] | {"stages": ["base", "sr256"]}
    rates = {"name": "unitune", "tune": {"base": {"lr": 3e-4}, "sr256": {"lr": 1e-8}}}
    assert not arguments.advice(settings(tmp_path, model=model, method=rates, **both), ASSETS)
    own = settings(
        tmp_path, model=model, method=rates, dials={"lr": {"adamw": 4e-3}}, lr=4e-3, **both
    )
    (line,) = arguments.advice(own, ASSETS)
    assert "0.0003 of base" in line and "0.004" in line
    low = rates | {"tune": {"base": {"lr": 3e-4}, "sr256": {"lr": 9e-10}}}
    (line,) = arguments.advice(settings(tmp_path, model=model, method=low, **both), ASSETS)
    assert "9e-10 of sr256" in line and "1e-08" in line
    (line,) = arguments.advice(
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
        return arguments.advice(
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
    assert (
        "only scenes" in arguments.advice(settings(tmp_path, benchmark=benchmark), ASSETS)
    ) is said
