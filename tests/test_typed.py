"""Texts and paths are taken as typed; in a sweep quotes say what a comma means."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from test_conf import CONF

from unitune.cli import arguments, groups, kinds, main, typed
from unitune.errors import Refused

assert main.ending, "the module main registers what ${assets:...} in a config stands for"
FIELDS = kinds.fields(CONF)
GROUPS = groups.options(CONF)
# Fields of text that are neither prose nor a path: names out of a list that code knows.
CHOICES = {
    *(
        "name",
        "family",
        "variant",
        "weights",
        "precision",
        "stages",
    ),
    *("device", "fit", "mode", "net", "pretrained", "inversion", "weighting", "low_level"),
    *("column", "save_dir", "train", "freeze", "targets", "reads_text", "tuned"),
}
CHOSEN = {"metrics.clip.model", "sampler.reference", "sampler.sr.noise_level"}


def composed(*settings: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=arguments.prepared(settings, groups=GROUPS))


def test_every_field_of_text_is_known_as_prose_a_path_or_a_choice():
    """A new field of conf/ is put into one of them."""
    texts = [name for name in FIELDS if kinds.TEXT in kinds.of(name, FIELDS)]
    texts = [name for name in texts if not name.rpartition(".")[2].startswith("_")]
    known = [
        typed.is_text(name) + typed.is_path(name)
        + (name in CHOSEN or name.rpartition(".")[2] in CHOICES)
        for name in texts
    ]  # fmt: skip
    assert [name for name, count in zip(texts, known, strict=True) if count != 1] == []


TYPED = [
    "[V]",
    "[a cat], (or) {a dog}",
    "(50% off), x=1",
    "été in Zürich, $5 #1",
    'the cat\'s "hat"',
    "costs ${5} \\${x}",
    "ends \\",
    "123",
    "true",
]
TEXTS = [
    "caption",
    "noun",
    "token.text",
    "sampler.template",
    "sampler.guidance.reference",
    "sampler.sr.guidance.reference",
    "method.prompt",
    "method.template",
    "method.uncaptioned",
]
PATHS = ["model.path", "store.path", "benchmark.path", "metrics.clip.folder", "mask_file", "from"]


@pytest.mark.parametrize("value", TYPED)
def test_texts_and_paths_arrive_as_typed(value):
    settings = [f"{name}={value}" for name in (*TEXTS, *PATHS) if name != "from"]
    cfg = composed(*settings, f"hydra.run.dir={value.replace('$', '')}", "mask=none")
    for name in (*TEXTS, *PATHS[:-1]):
        assert OmegaConf.select(cfg, name) == value
    (setting,) = arguments.prepared([f"from={value}"])
    assert typed.options(setting) == [typed.literal(value)]


@pytest.mark.parametrize("name", ["mask.words", "mask.segmenter.model"])
def test_fields_of_one_option_arrive_as_typed(name):
    assert OmegaConf.select(composed("mask=words", f"{name}=[the] cat, x=(1)"), name) == (
        "[the] cat, x=(1)"
    )


@pytest.mark.parametrize("name", ["hydra.run.dir", "hydra.sweep.dir"])
@pytest.mark.parametrize("value", ["a (1), [b]", "é=1,2", "it's \\"])
def test_hydras_own_folders_are_taken_as_typed_in_a_sweep_too(name, value):
    for flags in ([], ["-m"]):
        setting = arguments.prepared([*flags, f"{name}={value}"])[-1]
        assert typed.options(setting) == [value]


@pytest.mark.parametrize("name", [*PATHS, "image", "runs", "folder", "hydra.run.dir"])
def test_a_tilde_is_the_home_folder(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/é (1)")
    for given in ("~/a, b", "'~/a, b'"):
        setting = arguments.prepared([f"{name}={given}"])[0]
        assert typed.options(setting) == ["/home/é (1)/a, b"]
    assert typed.options(arguments.quoted([f"{name}=~nobody here"])[0]) == ["~nobody here"]


def test_what_conf_resolves_is_resolved_in_a_path():
    cfg = composed("model.path=${assets:pocket}")
    assert cfg.model.path.endswith("assets/pocket")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("image=https://example.com/cat.png", "image=https://example.com/cat.png is an address"),
        ("mask_file=file:///tmp/a.png", "is an address"),
        ("model.repos.base=https://huggingface.co/a/b", "download it"),
        ("image=", "image= is empty"),
        ("store.path= ", "store.path= is empty"),
        ("hydra.run.dir=''", "hydra.run.dir= is empty"),
        ("hydra.sweep.dir=null", "names no folder"),
        ("edit=['a','b'", "begins as a list and cannot be read as one"),
        ("lr=)", "lr=) cannot be read"),
        ("lr=1,2", "-m runs each of them"),
        ("image='a','b'", "-m runs each of them"),
        ("=5", "=5 names no field"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(setting, said):
    with pytest.raises(Refused) as refusal:
        arguments.prepared([setting], groups=GROUPS)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["image", "edit", "token.text", "model.path", "caption"])
def test_quotes_say_what_a_comma_of_a_sweep_means(name, here):
    def read(value: str) -> list[str]:
        return typed.options(arguments.quoted([f"{name}={value}"], sweep=True)[0])

    assert read("'a.png','b.png'") == read('"a.png","b.png"') == ["a.png", "b.png"]
    assert read("'a.png,b.png'") == ["a.png,b.png"]
    assert read("a cat, sketch") == ["a cat, sketch"], "before a space it is the text's"
    with pytest.raises(Refused, match=rf"\"{name}='a\.png','b\.png'\" several"):
        read("a.png,b.png")
    (here / "a.png,b.png").touch()
    if typed.is_path(name):
        assert read("a.png,b.png") == ["a.png,b.png"]


def test_lists_of_texts_stay_lists():
    assert composed("edit=['a dog, running','a [big] cat']").edit == [
        "a dog, running",
        "a [big] cat",
    ]
    assert composed("edit=[V] a [dog]").edit == "[V] a [dog]", "no list of Hydra's"
    assert composed("method=textual_inversion", "method.templates=[a {rare}]").method.templates


def test_a_run_keeps_absolute_paths(here):
    (here / "clip").mkdir()
    cfg = composed(
        *("image=a.png", "edit=x", "model.path=m ${x}", "store.path=/s", "mask=words"),
        *("mask.segmenter.model=clip", "+model.repos.base=owner/name@main"),
    )
    kept = typed.absolute(cfg)
    assert kept.image == kept.benchmark.path == str(here / "a.png")
    assert kept.model.path == str(here / "m ${x}") and kept.store.path == "/s"
    assert kept.mask.segmenter.model == str(here / "clip")
    assert kept.model.repos.base == "owner/name@main", "no folder here is of that name"
    assert "path: ${image}" in OmegaConf.to_yaml(kept), "interpolations stay"
    assert Path(cfg.image) == Path("a.png")
