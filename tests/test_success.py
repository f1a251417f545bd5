"""Edit success in three columns, and which edits are feasible.

A judge with written answers where the rule is asked, the shipped judge where its eyes are.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unitune import images, metrics
from unitune.benchmarks.manifest import Folder
from unitune.metrics import judge as reading
from unitune.metrics import success
from unitune.metrics.judge import Judge, read_facts, save_judge, shared_judge
from unitune.metrics.success import COLUMNS, BaseSuccess, EditSuccess, obstacles
from unitune.runs import reference_rows
from unitune.scenes import Object, Scene, render
from unitune.scenes.changes import change_place
from unitune.types import Edit, Example, Picture, Refused, Request

ASSETS = Path(__file__).parent.parent / "src/unitune/assets"
PLAIN = {
    "nouns": {"cat"},
    "colours": set(),
    "place": "city",
    "time": "day",
    "style": "plain",
    "count": 1,
    "right": {},
}
APPEAR, STAY = {"place": "snow"}, {"nouns": ["cat"], "time": "day"}
FACTS = {**APPEAR, **STAY}
SNOW = Request("a cat in the snow", facts=FACTS, appear=APPEAR, stay=STAY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    save_judge(Judge(), made := tmp_path_factory.mktemp("judge"))
    return made


class Written:
    """Pictures and what the judge is to see in each; how many it was shown is counted."""

    def __init__(self) -> None:
        self.answers: dict[float, Mapping[str, object]] = {}
        self.shown: list[float] = []

    def picture(self, *, size: int = 64, **seen: object) -> Picture:
        level = len(self.answers) / 64
        self.answers[level] = PLAIN | seen
        return torch.full((1, 3, size, size), level)

    def read(self, judge: Judge, image: torch.Tensor) -> list[Mapping[str, object]]:
        levels = [float(row[0, 0, 0]) for row in image]
        self.shown += levels
        return [self.answers[level] for level in levels]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Written:
    written = Written()
    monkeypatch.setattr(success, "read_facts", written.read)
    return written


def edit_of(base: Picture, request: Request, image: Picture) -> Edit:
    return Edit(Example("one", base, (request,)), request, 0, 4.0, 0.9, request.prompt, image)


def feasible(judge: Judge, examples: list[Example]) -> list[bool]:
    """Whether the edit success of each request of each example, in order, can be measured."""
    asked = [(example.image, request) for example in examples for request in example.requests]
    return [not why for why in obstacles(judge, asked)]


def columns(folder: Path, edits: list[Edit]) -> list[tuple[float, ...]]:
    """Appear, stay and both of each edit; None is no number."""
    rows = metrics.score([EditSuccess(folder, column) for column in COLUMNS], edits)
    return [tuple(None if math.isnan(row[name]) else row[name] for name in COLUMNS) for row in rows]


def test_what_appears_and_what_stays_are_told_apart(world, folder):
    base, target = world.picture(), world.picture(place="snow")
    request = replace(SNOW, target=target)
    seen = [
        {"place": "snow"},
        {"place": "snow", "nouns": {"dog"}},
        {},
        {"time": "night"},
        {"place": "snow", "nouns": {"cat", "dog"}},
    ]
    found = columns(folder, [edit_of(base, request, world.picture(**what)) for what in seen])
    assert found == [
        (1, 1, 1),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 0),
        (1, 1, 1),
    ]  # nouns that nobody asked for do not count


def test_reference_rows_are_scored_as_edits_are(world, folder):
    example = Example("one", world.picture(), (replace(SNOW, target=world.picture(place="snow")),))
    rows = dict(reference_rows.model_free(example))
    assert columns(folder, [rows["copy"], rows["target"]]) == [(0, 1, 0), (1, 1, 1)]


def test_edits_that_a_copy_satisfies_or_whose_target_fails_have_no_number_whatever_is_judged(
    world, folder
):
    right, wrong = world.picture(place="snow"), world.picture(nouns={"dog"})
    cases = {
        "copy": (world.picture(place="snow"), replace(SNOW, target=right)),
        "target": (world.picture(), replace(SNOW, target=world.picture(place="snow", nouns=set()))),
        "facts": (world.picture(), Request("a cat in the snow", target=right)),
        "": (world.picture(), replace(SNOW, target=right)),
    }
    judge = shared_judge(folder)
    assert obstacles(judge, list(cases.values())) == list(cases)
    assert feasible(
        judge, [Example("one", base, (request,)) for base, request in cases.values()]
    ) == [False, False, False, True]
    for why, (base, request) in cases.items():
        pictures = [base, wrong, right, *([request.target] if request.target is not None else [])]
        found = columns(folder, [edit_of(base, request, image) for image in pictures])
        assert all(
            (None in row) == bool(why) and (not why or set(row) == {None}) for row in found
        ), why


def test_the_success_of_a_copy_tells_why_an_edit_has_none(world, folder):
    told = {"": 0.0, "facts": None, "copy": 1.0, "target": 0.0}
    requests = [
        replace(SNOW, target=world.picture(place="snow")),
        Request("x"),
        SNOW,
        replace(SNOW, target=world.picture()),
    ]
    bases = [world.picture(), world.picture(), world.picture(place="snow"), world.picture()]
    assert obstacles(shared_judge(folder), list(zip(bases, requests, strict=True))) == [*told]
    edits = [
        edit_of(base, request, world.picture(time="night"))
        for base, request in zip(bases, requests, strict=True)
    ]
    rows = metrics.score([EditSuccess(folder), BaseSuccess(folder)], edits)
    assert [None if math.isnan(row["both_base"]) else row["both_base"] for row in rows] == [
        *told.values()
    ]
    assert [math.isnan(row["both"]) for row in rows] == [bool(why) for why in told]
    card = BaseSuccess(folder).card
    assert (
        "on the base image" in card["what"]
        and card["nan"] == "a request without facts"
        and BaseSuccess(folder)([]) == []
    )


def test_without_a_target_the_copy_alone_decides(world, folder):
    judge = shared_judge(folder)
    assert obstacles(judge, [(world.picture(), SNOW), (world.picture(place="snow"), SNOW)]) == [
        "",
        "copy",
    ]


def test_facts_without_their_parts_have_both_only(world, folder):
    base = world.picture()
    edits = [
        edit_of(base, request, world.picture(place="snow"))
        for request in (
            Request("a", facts=FACTS),
            Request("b", facts=FACTS, appear=APPEAR),
            Request("c"),
        )
    ]
    assert columns(folder, edits) == [(None, None, 1), (1, None, 1), (None, None, None)]


def test_feasible_counts_each_request_of_each_example_in_order(world, folder):
    night = Request("a cat at night", facts={"time": "night"})
    examples = [
        Example("a", world.picture(), (SNOW, Request("a cat"), night)),
        Example("b", world.picture(time="night"), (night, SNOW)),
        Example("c", world.picture(), ()),
    ]
    assert feasible(shared_judge(folder), examples) == [True, False, True, False, True]
    assert feasible(shared_judge(folder), []) == [] and EditSuccess(folder)([]) == []


def test_each_base_image_and_target_is_read_once_per_call(world, folder):
    base = world.picture()
    requests = tuple(
        replace(SNOW, prompt=prompt, target=world.picture(place="snow")) for prompt in ("a", "b")
    )
    example = Example("one", base, requests)
    edits = [
        Edit(example, request, seed, 4.0, 0.9, "", world.picture())
        for request in requests
        for seed in range(3)
    ]
    EditSuccess(folder)(edits)
    assert sorted(world.shown) == sorted(world.answers) and len(world.shown) == 1 + 2 + 6


def test_pictures_of_several_sizes_are_judged_together(world, folder):
    edits = [
        edit_of(world.picture(size=size), SNOW, world.picture(size=size, place=place))
        for size, place in ((256, "snow"), (64, "city"), (32, "snow"))
    ]
    assert [row[2] for row in columns(folder, edits)] == [1, 0, 1]


def test_three_columns_load_one_judge(folder, monkeypatch):
    monkeypatch.setattr(reading, "load_judge", load := Counted(reading.load_judge))
    reading._loaded.cache_clear()
    made = [EditSuccess(folder, column) for column in COLUMNS]
    assert load.calls == 1 and len({id(metric.judge) for metric in made}) == 1
    assert [metric.name for metric in made] == ["appear", "stay", "both"] and EditSuccess(
        folder
    ).name == "both"


class Counted:
    """A function whose calls are counted."""

    def __init__(self, function) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


def test_cards_say_what_is_asked_and_which_edits_have_no_number(folder):
    (folder / "card.json").write_text('{"place": 0.98765}')
    cards = metrics.cards([EditSuccess(folder, column) for column in COLUMNS])
    assert len({card["what"] for card in cards.values()}) == 3 and {
        card["better"] for card in cards.values()
    } == {"higher"}
    assert (
        "must appear" in cards["appear"]["what"]
        and "must stay" in cards["stay"]["what"]
        and "all facts" in cards["both"]["what"]
    )
    assert all(
        "not feasible" in card["nan"]
        and "base image" in card["nan"]
        and card["held-out place"] == "0.988"
        for card in cards.values()
    )


def test_an_unknown_column_is_refused(folder):
    with pytest.raises(
        Refused, match=r"column='success' of the edit success; allowed: appear, stay, both"
    ):
        EditSuccess(folder, "success")


@pytest.mark.parametrize(
    "facts",
    [
        {"noun": ["cat"]},
        {"nouns": ["minion"]},
        {"nouns": "cat"},
        {"place": "mars"},
        {"count": 5},
        {"colours": ["pink"]},
        {"order": "cat"},
    ],
)
def test_facts_that_the_judge_cannot_read_are_refused(folder, facts):
    picture = torch.zeros(1, 3, 64, 64)
    with pytest.raises(Refused):
        EditSuccess(folder)([edit_of(picture, Request("a", facts=facts), picture)])
    with pytest.raises(Refused):
        feasible(shared_judge(folder), [Example("one", picture, (Request("a", facts=facts),))])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"facts": {}, "appear": APPEAR},
            r"appear asks for \{'place': 'snow'\}, but the request's facts are empty; "
            "appear may name only what facts names too",
        ),
        ({"facts": {}, "stay": STAY}, "stay asks for .* facts are empty"),
        (
            {"appear": {"place": "beach"}},
            r"appear asks for \{'place': 'beach'\}, but the request's facts hold .*'snow'.* "
            "add it there, or take it out of appear",
        ),
        ({"stay": {"style": "plain"}}, r"stay asks for \{'style': 'plain'\}"),
        ({"stay": {"nouns": ["cat", "dog"]}}, "stay asks for .*dog"),
        ({"stay": {"nouns": "cat"}}, "stay asks for .*'cat'"),
        (
            {"facts": {"order": ["cat", "dog"]}, "appear": {"order": ["dog", "cat"]}},
            "appear asks for .*order",
        ),
    ],
)
def test_what_appears_or_stays_must_be_among_the_facts(folder, parts, said):
    request = Request("a cat in the snow", **({"facts": FACTS} | parts))
    for column in COLUMNS:
        with pytest.raises(Refused, match=rf"^'a cat in the snow': {said}") as refused:
            EditSuccess(folder, column).check(request)
        assert "\n" not in str(refused.value)


def test_parts_of_the_facts_are_accepted(folder):
    facts = {"nouns": ["cat", "dog"], "count": 2, "order": ["dog", "cat"]}
    EditSuccess(folder).check(
        Request(
            "a",
            facts=facts,
            appear={"nouns": ["dog"], "order": ["dog", "cat"]},
            stay={"nouns": ["cat"]},
        )
    )
    EditSuccess(folder).check(Request("a"))


def test_facts_are_refused_before_anything_is_sampled(folder):
    picture = torch.zeros(1, 3, 64, 64)
    for request, said in (
        (Request("a cat", facts={"noun": ["cat"]}), "unknown fact 'noun'"),
        (Request("a cat", stay=STAY), "'a cat': stay asks for"),
    ):
        with pytest.raises(Refused, match=said):
            metrics.check(
                [EditSuccess(folder)], [Example("cat", picture, (Request("a dog"), request))]
            )


def test_the_reading_decides(folder):
    """The network's own reading, not a written one: what it sees is found, and nothing else is."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = read_facts(shared_judge(folder), image)[0]
    right = {name: seen[name] for name in ("place", "time", "style", "count")} | {
        "nouns": sorted(seen["nouns"])
    }
    counts = {"count": seen["count"] % 3 + 1}
    requests = [Request("a", facts={**right, **other}) for other in ({}, counts)]
    assert [success.found(request.facts, seen) for request in requests] == [True, False]
    same = [
        edit_of(image, requests[0], image)
    ]  # the picture is its own base image: a copy satisfies it
    assert math.isnan(EditSuccess(folder)(same)[0])
    assert EditSuccess(folder)([edit_of(image, requests[1], image)]) == [0.0]


@pytest.mark.parametrize("size", [64, 256])
def test_the_edits_of_the_demo_are_feasible_and_their_parts_are_those_of_the_scenes(size):
    (example,) = Folder(ASSETS / "demo").examples(size)
    assert feasible(shared_judge(ASSETS / "pocket/judge"), [example]) == [True] * 4
    for request in example.requests:
        assert (
            {**request.appear, **request.stay} == request.facts
            and request.appear
            and not set(request.appear) & set(request.stay)
        )
    before = Scene("city", "day", (Object("cat", 0.5, 0.9, 0.5),))
    edit = change_place(before, "snow")
    assert (example.requests[0].appear, example.requests[0].stay, example.requests[0].facts) == (
        edit.appear,
        edit.stay,
        edit.facts,
    )


def test_the_shipped_judge_tells_a_scene_from_its_copy():
    before = Scene("beach", "day", (Object("cat", 0.5, 0.9, 0.5),))
    edit = change_place(before, "snow")
    base, target = (images.from_uint8(picture) for picture in (render(before)[0], edit.target()))
    request = Request(
        edit.prompt, target=target, facts=edit.facts, appear=edit.appear, stay=edit.stay
    )
    rows = dict(reference_rows.model_free(Example("one", base, (request,))))
    assert columns(ASSETS / "pocket/judge", [rows["copy"], rows["target"]]) == [
        (0, 1, 0),
        (1, 1, 1),
    ]
