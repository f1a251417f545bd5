"""What a person types reaches the config as typed."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from unitune.cli import arguments
from unitune.errors import Refused

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
    assert arguments.quoted([argument], sweep=True) == [argument]


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


def test_a_group_is_never_null():
    with pytest.raises(Refused, match="model=null chooses nothing"):
        arguments.prepared(["model=null"], groups={"method": ["unitune"], "model": ["pocket"]})


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


def test_prompts_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "prompts.txt").write_text(
        "\ufeffa dog, running\n\n  a cat's hat \n", encoding="utf-8"
    )
    for folder in (tmp_path, "~"):
        read = arguments.edit_prompts(f"@{folder}/prompts.txt")
        assert read == ("a dog, running", "a cat's hat")
    assert arguments.edit_prompts("a dog, @home") == ("a dog, @home",)
    assert arguments.edit_prompts(["a", "b"]) == ("a", "b")
    assert arguments.edit_prompts(None) == ()
    wrongs: list[Any] = [None, 1.5, {"a": 1}, ["b"]]
    for wrong in wrongs:
        with pytest.raises(Refused, match="no text; put each prompt in quotes"):
            arguments.edit_prompts(["a", wrong])
    with pytest.raises(Refused, match=r"missing\.txt"):
        arguments.edit_prompts("@missing.txt")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(Refused, match="UTF-8"):
        arguments.edit_prompts(f"@{tmp_path}/bytes")
