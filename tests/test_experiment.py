import csv
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from unitune import images
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.methods.dreambooth import DreamBooth
from unitune.methods.imagic import Imagic
from unitune.methods.textual_inversion import TextualInversion
from unitune.methods.unitune import UniTune
from unitune.methods.untuned import Untuned
from unitune.metrics.pixel import PSNR, TargetPSNR
from unitune.models import cascade, tiny
from unitune.models.cascade import Cascade, weights_digest
from unitune.report import tables
from unitune.runs import experiment, outcome, preflight, rescore
from unitune.runs.experiment import Setting
from unitune.runs.plans import Dials, Seeds
from unitune.runs.selection import Choice, Redraw
from unitune.storage import records
from unitune.tuning.class_images import ClassImages
from unitune.tuning.finetune import Tuning
from unitune.types import Draw, Edit, Example, Refused, Request, Stopped

SIZE = 32


class Brightness:
    """A metric whose answer is known: the mean of the picture."""

    name = "brightness"
    higher_is_better = True
    card: Mapping[str, str] = {}

    def __call__(self, edits: list[Edit]) -> list[float]:
        return [float(edit.image.mean()) for edit in edits]


class Curves:
    def __init__(self) -> None:
        self.lines: list[tuple[dict[str, float], int | None]] = []
        self.ended = ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((metrics, step))

    def finalize(self, status: str) -> None:
        self.ended = status


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Iterator[Cascade]:
    folder = tiny.floyd(tmp_path_factory.mktemp("experiment"))
    yield cascade.load(
        "tiny", folder, stages=("base", "sr256"), device=torch.device("cpu"), dtype=torch.float32
    )


def picture(level: float) -> torch.Tensor:
    return torch.full((1, 3, SIZE, SIZE), level)


def example(name: str = "cat", *requests: Request) -> Example:
    return Example(
        name,
        picture(0.5),
        requests or (Request("a dog"), Request("a cat in the snow", target=picture(-0.5))),
        caption="a cat",
    )


def run(chosen: Setting, examples: list[Example], folder: Path) -> list[records.Record]:
    folder.mkdir(exist_ok=True)
    return experiment.run(chosen, examples, folder=folder)


def setting(model: Cascade, store, **more) -> Setting:
    sampler = Sampler(
        "quick", steps=2, start=0.8, guidance=Guidance(weight=2.0), sr=SuperResolution(steps=2)
    )
    return replace(Setting(model, Untuned(), sampler, [Brightness()], store, Seeds(2)), **more)


def tuned() -> UniTune:
    return UniTune(
        {"base": Tuning(lr=1e-2, steps=4, batch_size=1, snapshots=(2,))},
        stages=("base",),
        prompt="beikkpic",
    )


def test_seeds_are_in_order_and_another_run_takes_others():
    requests = (Request("a"), Request("b"))
    first, second = (Seeds(3).draws(example("x", *requests), seed) for seed in (0, 1))
    assert [(draw.request.prompt, draw.seed) for draw in first] == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 1),
        ("b", 2),
    ]
    assert not {draw.seed for draw in first} & {draw.seed for draw in second}
    for count in (0, -1, 1.5):
        with pytest.raises(Refused, match="seeds must be"):
            Seeds(count)  # type: ignore[arg-type]


def test_dials_are_all_pairs_of_one_request():
    draws = Dials((2, 4), (0.8, 1)).draws(example(), 7)
    assert [(draw.weight, draw.start) for draw in draws] == [
        (2.0, 0.8),
        (2.0, 1.0),
        (4.0, 0.8),
        (4.0, 1.0),
    ]
    assert {draw.request.prompt for draw in draws} == {"a dog"} and {
        draw.seed for draw in draws
    } == {7}
    edits = [
        Edit(example(), draw.request, 7, draw.weight or 0, draw.start or 0, "", picture(0))
        for draw in draws
    ]
    layout = Dials((2, 4), (0.8, 1)).layout(edits)
    assert {row: list(columns) for row, columns in layout.items()} == {
        "weight 2": ["start 0.8", "start 1"],
        "weight 4": ["start 0.8", "start 1"],
    }
    assert layout["weight 4"]["start 0.8"] is edits[2]


@pytest.mark.parametrize(
    ("weights", "starts", "said"),
    [
        ((math.nan,), (1.0,), "finite"),
        ((1.0,), (0.0,), "starts"),
        ((1.0,), (1.1,), "starts"),
        ((), (1.0,), "at least one"),
    ],
)
def test_dials_out_of_range_are_refused(weights, starts, said):
    with pytest.raises(Refused, match=said):
        Dials(weights, starts)


def test_a_run_writes_pictures_scores_and_a_grid(model, tmp_store, tmp_path):
    curves = Curves()
    done = run(setting(model, tmp_store, logger=curves), [example()], tmp_path)
    assert records.read(tmp_path) == done
    edits, references = (
        [r for r in done if r.row in rows] for rows in (("edit",), records.REFERENCES)
    )
    assert [(r.prompt, r.seed, r.method, r.sampler, r.model, r.steps) for r in edits] == [
        (prompt, seed, "untuned", "quick", "tiny", 0)
        for prompt in ("a dog", "a cat in the snow")
        for seed in (0, 1)
    ]
    assert {(r.weight, r.start) for r in edits} == {(2.0, 0.8)}
    for record in done:
        saved = images.load(tmp_path / record.image, size=SIZE).image
        assert record.scores["brightness"] == pytest.approx(float(saved.mean()), abs=2 / 255)
    assert [(r.row, r.prompt) for r in references[3:]] == [
        (f"{row} through super-resolution", "a cat in the snow") for row in ("copy", "target")
    ]
    assert [(r.row, r.prompt, r.scores["brightness"]) for r in references[:3]] == [
        ("copy", "a dog", 0.5), ("copy", "a cat in the snow", 0.5), ("target", "a cat in the snow", -0.5)
    ]  # fmt: skip
    assert len({r.image for r in done}) == len(done) and (tmp_path / "grid.png").is_file()
    assert (
        edits[0].environment["batch"] == 4
        and edits[0].environment["dtype"] == "float32"
        and edits[0].environment["device"] == "cpu"
    )
    # per item: base 2 steps x 2 (guidance), super-resolution 2 steps x 1
    assert edits[0].cost["evaluations"] == 6 and edits[0].cost["optimizer_steps"] == 0
    assert curves.ended == "success"
    assert tables.overall(done)["copy of the base/brightness"] == 0.5


def test_tuning_is_shared_and_leaves_the_base_weights_alone(model, tmp_store, tmp_path):
    before = weights_digest(model.stage("base").network)
    curves = Curves()
    base = setting(model, tmp_store, method=tuned(), plan=Seeds(1))
    first = run(replace(base, logger=curves), [example()], tmp_path / "a")
    assert [step for line, step in curves.lines if "cat/base/loss" in line] == [1, 2, 3, 4]
    again = run(
        replace(base, sampler=replace(base.sampler, start=1.0)),
        [example("cat", Request("a bird"))],
        tmp_path / "b",
    )
    untouched = run(replace(base, snapshot=0), [example()], tmp_path / "c")
    middle = run(replace(base, snapshot=2), [example()], tmp_path / "d")
    assert (
        len(list(tmp_store.path.glob("tuned-*"))) == 1
        and weights_digest(model.stage("base").network) == before
    )
    assert [done[0].steps for done in (first, again, untouched, middle)] == [4, 4, 0, 2]
    assert (
        first[0].text == "beikkpic a dog"
        and first[0].cost["optimizer_steps"] == again[0].cost["optimizer_steps"] == 4
    )
    levels = {done[0].scores["brightness"] for done in (first, untouched, middle)}
    assert len(levels) == 3  # each state of the weights samples differently


def test_the_same_run_gives_the_same_bytes(model, tmp_store, tmp_path):
    for name in ("a", "b"):
        run(setting(model, tmp_store), [example()], tmp_path / name)
    pictures = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert len(pictures) == 4 + 3 + 2 + 1 and all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in pictures
    )


def test_several_examples_get_a_grid_each(model, tmp_store, tmp_path):
    done = run(setting(model, tmp_store, plan=Seeds(1)), [example("one"), example("two")], tmp_path)
    assert [r.example for r in done if r.row == "edit"] == ["one", "one", "two", "two"]
    assert sorted(path.name for path in tmp_path.glob("grid*.png")) == [
        "grid-000.png",
        "grid-001.png",
    ]


def test_a_picture_of_another_size_is_refused(model, tmp_store, tmp_path):
    wrong = replace(example(), image=torch.zeros(1, 3, 64, 64))
    with pytest.raises(Refused, match=r"read at 64 px.*model\.resolution=32"):
        run(setting(model, tmp_store), [wrong], tmp_path)
    assert not list(tmp_path.glob("*.*"))


def test_advice_comes_before_tuning(model, tmp_store, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        experiment.run(
            setting(replace(model, known=frozenset({"a", "dog"})), tmp_store, method=tuned()),
            [example("cat", Request("a minion"))],
            folder=tmp_path,
        )
    lines = [record.getMessage() for record in caplog.records]
    unknown = next(k for k, line in enumerate(lines) if "'minion' is unknown" in line)
    assert unknown < next(k for k, line in enumerate(lines) if line.startswith("tuning "))


@dataclass(frozen=True)
class Last:
    """A selection that takes the last sample of all, alone."""

    name: str = "last"

    def check(self, draws: Sequence[Draw]) -> None: ...

    def __call__(self, edits: Sequence[Edit], *, example: Example, redraw: Redraw) -> list[Choice]:
        return [Choice(edits[-1], edits[-1], edits)]


def test_means_of_chosen_samples_stand_apart_from_those_of_all(model, tmp_store, tmp_path):
    done = run(
        setting(model, tmp_store, selection=Last()),
        [example("cat", Request("a dog"))],
        tmp_path,
    )
    means = tables.overall(done)
    scores = [record.scores["brightness"] or 0.0 for record in done if record.row == "edit"]
    assert (
        means["untuned + quick/brightness"] == pytest.approx(sum(scores) / 2)
        and means["untuned + quick (selected)/brightness"] == scores[-1] != scores[0]
    )


def test_advice_is_of_the_token_that_will_be_sampled(model, tmp_store, caplog):
    """DreamBooth's prompt holds placeholders and its token counts; a caption keeps its meaning; learned words are no text."""
    known = frozenset({"a", "dog", "cat"})
    whole = replace(setting(replace(model, known=known), tmp_store), snapshot=0)
    words = replace(example("cat", Request("a cat")), noun="cat")
    told = {}
    for name, method in {
        "token": DreamBooth(tuned().tune, stages=("base",), token="dog"),
        "caption": replace(tuned(), prompt="{caption}"),
        "learned": TextualInversion(Tuning(lr=1e-2, steps=1, batch_size=1), initializer="a"),
    }.items():
        caplog.clear()
        experiment._advise(replace(whole, method=method), words)
        told[name] = caplog.text
    assert "the rare token 'dog' is a common word of the model" in told["token"]
    assert told["caption"] == "", "a description is no rare token, and keeps its meaning"
    assert told["learned"] == ""


def test_advice_is_of_the_edit_alone_where_the_image_is_tuned_on_its_description(
    model, tmp_store, caplog
):
    """A long description is no part of what is sampled, and its words are no rare token's; with a sampler that puts it before the edit it is one."""
    words = replace(
        example("cat", Request("a minion in the snow")),
        caption="  ".join(["a minion in a city"] * 15),
    )
    knows = replace(model, known=frozenset({"a", "in", "the", "snow", "city"}), tokenize=str.split)
    whole = setting(knows, tmp_store, method=replace(tuned(), prompt="{caption}"))
    told = []
    for template in ("", "{edit}", "{rare} {edit}"):
        caplog.clear()
        experiment._advise(replace(whole, sampler=replace(whole.sampler, template=template)), words)
        told.append([record.getMessage() for record in caplog.records])
    unknown = "'minion' is unknown to the pocket model; use model=if_m or larger"
    assert told == [
        [unknown],
        [unknown],
        [
            "the prompt 'a minion in the snow' is 80 tokens, the model reads 76; dropped: 'minioninthesnow'",
            unknown,
        ],
    ]


def test_a_drawn_token_is_named(model, tmp_store, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        done = run(
            setting(model, tmp_store, method=replace(tuned(), prompt="{random}")),
            [example()],
            tmp_path,
        )
    token = done[0].text.removesuffix(" a dog")
    assert (
        token.isalpha()
        and f"the tuning prompt is {token!r}" in caplog.text
        and "{random}" not in caplog.text
    )


def test_scoring_again_appends_and_needs_no_model(model, tmp_store, tmp_path):
    done = run(setting(model, tmp_store, metrics=[]), [example()], tmp_path)
    again = rescore.score(tmp_path, [example()], chosen=[Brightness()])
    assert records.read(tmp_path) == [*done, *again] and [r.image for r in again] == [
        r.image for r in done
    ]
    merged = records.merge(records.read(tmp_path))
    assert len(merged) == len(done) and all(
        set(record.scores) == {"brightness"} for record in merged
    )
    third = rescore.score(tmp_path, [example()], chosen=[Brightness()])
    assert [r.scores for r in third] == [r.scores for r in again]


def test_reference_rows_are_scored_again_as_the_run_scored_them(model, tmp_store, tmp_path):
    fine = replace(example(), image=picture(0.1234567))  # no level of 8 bits
    done = run(setting(model, tmp_store, metrics=[PSNR(), TargetPSNR()]), [fine], tmp_path)
    again = rescore.score(tmp_path, [fine], chosen=[PSNR(), TargetPSNR()])
    first, second = (
        [r.scores for r in found if r.row in outcome.MODEL_FREE] for found in (done, again)
    )
    assert first == second and first[0]["psnr"] == 100
    made, read = (
        [r.scores for r in found if r.row in {*records.REFERENCES} - {*outcome.MODEL_FREE}]
        for found in (done, again)
    )
    assert len(made) == 2 and all(
        ours == pytest.approx(theirs, abs=0.01) for ours, theirs in zip(made, read, strict=True)
    ), "read from pictures of 8 bits"
    without = replace(
        fine, requests=tuple(replace(request, target=None) for request in fine.requests)
    )
    with pytest.raises(
        Refused,
        match="has the exact target of 'a cat in the snow', which cat of this benchmark lacks",
    ):
        rescore.score(tmp_path, [without], chosen=[PSNR()])


def test_a_reference_that_a_model_made_is_scored_again_from_its_picture(model, tmp_store, tmp_path):
    done = run(setting(model, tmp_store, metrics=[]), [example()], tmp_path)
    oracle = replace(done[0], row="oracle", seed=3, image="cat-oracle-000.png")
    images.save_png(picture(0.25), tmp_path / oracle.image)
    records.append(tmp_path / records.FILE, oracle)
    (again,) = [
        record
        for record in rescore.score(tmp_path, [example()], chosen=[Brightness()])
        if record.row == "oracle"
    ]
    assert (
        again.scores["brightness"] == pytest.approx(0.25, abs=1 / 255)
        and replace(again, scores={}) == oracle
    )


def test_a_run_that_is_stopped_keeps_its_curves(model, tmp_store, tmp_path, monkeypatch):
    class Stops(Brightness):
        def __call__(self, edits: list[Edit]) -> list[float]:
            raise Stopped(15)

    curves = Curves()
    with pytest.raises(Stopped):
        run(
            setting(model, tmp_store, metrics=[Stops()], method=tuned(), logger=curves),
            [example()],
            tmp_path,
        )
    assert curves.ended == "failed" and any(
        "loss" in name for line, _ in curves.lines for name in line
    )
    monkeypatch.setattr(Curves, "finalize", lambda self, status: 1 / 0)
    with pytest.raises(Stopped):  # a logger that cannot end does not hide what stopped the run
        run(
            setting(model, tmp_store, metrics=[Stops()], logger=Curves()),
            [example()],
            tmp_path / "again",
        )


@pytest.mark.parametrize("other", [example("dog"), example("cat", Request("a horse"))])
def test_scoring_with_another_benchmark_is_refused(model, tmp_store, tmp_path, other):
    run(setting(model, tmp_store, plan=Seeds(1)), [example()], tmp_path)
    before = (tmp_path / records.FILE).read_bytes()
    with pytest.raises(Refused, match="lacks"):
        rescore.score(tmp_path, [other], chosen=[Brightness()])
    assert (tmp_path / records.FILE).read_bytes() == before


def test_a_real_logger_takes_the_curves(model, tmp_store, tmp_path):
    from pytorch_lightning.loggers import CSVLogger

    logger = CSVLogger(str(tmp_path), name="", version="curves")
    run(setting(model, tmp_store, method=tuned(), logger=logger), [example()], tmp_path)
    with Path(tmp_path / "curves/metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines if line["cat/base/loss"]] == ["1", "2", "3", "4"]


def test_draws_are_what_the_sampler_gets(model, tmp_store, tmp_path):
    class One:
        def draws(self, example: Example, seed: int) -> list[Draw]:
            return [Draw(example.requests[1], 5, weight=3.0, start=0.9)]

        def layout(self, edits):
            return {"row": {"column": edits[0]}}

    (record, *_) = run(setting(model, tmp_store, plan=One()), [example()], tmp_path)
    assert (record.prompt, record.seed, record.weight, record.start) == (
        "a cat in the snow",
        5,
        3.0,
        0.9,
    )


TEXTS = {
    "unitune": tuned(),
    "described": replace(tuned(), prompt="{caption}"),
    "dreambooth": DreamBooth(
        tuned().tune, stages=("base",), class_images=ClassImages(count=2, steps=1)
    ),
    "imagic": Imagic(Tuning(lr=1e-2, steps=1, batch_size=1), tuned().tune, stages=("base",)),
    "untuned": Untuned(),
}


@pytest.mark.parametrize("name", TEXTS)
def test_all_texts_of_a_run_are_embedded_in_one_call(name, model, tmp_store, tmp_path):
    """Also those that measure how the tuning prompt is seen, and the references': an encoder that is not kept is read once, before any network trains."""
    read, freed = [], []
    counted = replace(
        model,
        encoder=lambda texts: read.append((len(freed), *texts)) or model.encoder(texts),
        release=lambda: freed.append(1),
        embeddings={},
    )
    images_ = [
        replace(example("cat"), noun="cat"),
        replace(
            example("fox", Request("a fox at night", target=picture(0.1))),
            caption="a fox",
            noun="fox",
        ),
    ]
    run(setting(counted, tmp_store, method=TEXTS[name], plan=Seeds(1), oracle=1), images_, tmp_path)
    assert freed == [1] or name == "imagic"  # which frees what it holds after each lesson as well
    assert {before for before, *_ in read} == {0} and len({text for _, text in read}) == len(read)


def test_each_tuning_on_a_text_is_noted_and_others_measure_nothing(model, tmp_store, tmp_path):
    run(
        setting(model, tmp_store, method=tuned(), plan=Seeds(1)),
        [example("one"), example("two")],
        tmp_path / "a",
    )
    noted = [
        json.loads(line) for line in (tmp_path / "a" / records.TUNINGS).read_text().splitlines()
    ]
    assert [
        (line["example"], line["method"], line["steps"], line["texts"]["tuned"]) for line in noted
    ] == [(name, "unitune", 4, "beikkpic") for name in ("one", "two")]
    assert all(
        line[value] is not None
        for line in noted
        for value in ("text", "x_0", "tuned_db", "empty_db", "other_db", "response")
    )
    learned = TextualInversion(Tuning(lr=1e-2, steps=1, batch_size=1), initializer="a")
    for name, method in {
        "untuned": Untuned(),
        "learned": learned,
        "imagic": TEXTS["imagic"],
    }.items():
        run(setting(model, tmp_store, method=method, plan=Seeds(1)), [example()], tmp_path / name)
        assert not (tmp_path / name / records.TUNINGS).exists()
    run(
        setting(model, tmp_store, method=tuned(), plan=Seeds(1), snapshot=0),
        [example()],
        tmp_path / "none",
    )
    (line,) = [
        json.loads(line) for line in (tmp_path / "none" / records.TUNINGS).read_text().splitlines()
    ]
    assert line["steps"] == 0 and line["tuned_db"] is None and line["text"] > 0, (
        "nothing was tuned: only what was before is known"
    )


def test_a_run_again_in_its_folder_notes_each_tuning_once(model, tmp_store, tmp_path):
    def noted() -> list[dict]:
        return [json.loads(line) for line in (tmp_path / records.TUNINGS).read_text().splitlines()]

    both, whole = (
        [example("one"), example("two")],
        setting(model, tmp_store, method=tuned(), plan=Seeds(1)),
    )
    run(whole, both, tmp_path)
    first = noted()
    assert [(line["example"], line["stage"]) for line in first] == [
        ("one", "base"),
        ("two", "base"),
    ] and len({line["key"] for line in first}) == 1
    assert {line["key"] for line in first} == {
        path.name for path in tmp_store.path.glob("tuned-*")
    }, "the two pictures are the same"
    with (tmp_path / records.TUNINGS).open("a") as file:
        file.write('{"example": "on')  # a process was killed
    run(whole, both[:1], tmp_path)
    assert noted() == [first[1], first[0]]
    run(replace(whole, snapshot=2), both[:1], tmp_path)
    run(
        replace(
            whole, method=replace(tuned(), tune={"base": Tuning(lr=2e-2, steps=4, batch_size=1)})
        ),
        both[:1],
        tmp_path,
    )
    assert [(line["example"], line["steps"]) for line in noted()] == [
        ("two", 4),
        ("one", 4),
        ("one", 2),
        ("one", 4),
    ] and len({x["key"] for x in noted()}) == 2
    before = [
        {name: value for name, value in line.items() if name not in ("stage", "key")}
        for line in first
    ]  # as older versions wrote it
    (tmp_path / records.TUNINGS).write_text("".join(json.dumps(line) + "\n" for line in before))
    run(whole, both[:1], tmp_path)
    assert noted() == [before[1], first[0]] and not [
        path for path in tmp_path.iterdir() if path.name.endswith(".partial")
    ]


def test_the_oracle_has_untouched_weights_and_seeds_of_its_own_run(model, tmp_store, tmp_path):
    base = setting(model, tmp_store, plan=Seeds(1), oracle=2)
    plain, tuning = (
        run(base, [example()], tmp_path / "a"),
        run(replace(base, method=tuned()), [example()], tmp_path / "b"),
    )
    for row in ("oracle", "copy through super-resolution", "target through super-resolution"):
        ours, theirs = (
            [(tmp_path / folder / r.image).read_bytes() for r in done if r.row == row]
            for folder, done in (("a", plain), ("b", tuning))
        )
        assert ours == theirs and len(ours) == (2 if row == "oracle" else 1)
    edits = [
        [(tmp_path / folder / r.image).read_bytes() for r in done if r.row == "edit"]
        for folder, done in (("a", plain), ("b", tuning))
    ]
    assert edits[0] != edits[1]
    assert [r.seed for r in plain if r.row == "oracle"] == [0, 1]
    other = run(replace(base, seed=1), [example()], tmp_path / "c")
    assert [r.seed for r in other if r.row == "oracle"] == [2, 3]
    none = run(replace(base, oracle=0), [example()], tmp_path / "d")
    assert not [r for r in none if r.row == "oracle"] and [
        r for r in none if r.row == "target through super-resolution"
    ]


def test_the_room_for_pictures_counts_every_reference(model, tmp_store, tmp_path, monkeypatch):
    needs: list[dict] = []
    monkeypatch.setattr("unitune.storage.disk.check_space", needs.append)
    one = example("cat", Request("a cat in the snow", target=picture(-0.5)))
    preflight.check(
        Untuned(),
        Seeds(1),
        [one],
        at=None,
        sizes={},
        folder=tmp_path,
        store=tmp_path / "s",
        budget_gib=1,
        oracle=3,
    )
    made = {
        record.image
        for record in run(
            setting(model, tmp_store, plan=Seeds(1), oracle=3), [one], tmp_path / "run"
        )
    }
    assert (
        len(made) == 1 + 2 + 2 + 3 and needs[0][tmp_path][1] >= 2 * len(made) * one.image.numel()
    ), "the grid is as large as all pictures"
