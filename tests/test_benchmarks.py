import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unitune import images
from unitune.benchmarks.manifest import Folder, first
from unitune.benchmarks.pie import PIEBench, decode, plain
from unitune.benchmarks.tedbench import TEdBench
from unitune.metrics.pixel import MSE, PSNR
from unitune.runs import precomputed
from unitune.storage import records
from unitune.types import Refused


def picture(path: Path, value: int, size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, dtype=np.uint8)).save(path)
    return path


def folder(root: Path, *lines: dict) -> Path:
    for name in ("a.png", "b.png"):
        if not (root / name).exists():
            picture(root / name, 60)
    (root / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_a_line_holds_noun_and_outputs(tmp_path):
    picture(tmp_path / "theirs/x.png", 200)
    root = folder(
        tmp_path,
        {"image": "a.png", "edit": "a dog", "noun": "cat", "outputs": {"other": "theirs/x.png"}},
        {"image": "b.png", "edit": "a dog"},
    )
    first, second = Folder(root).examples(16)
    assert (first.noun, second.noun) == ("cat", "")
    (edit,) = Folder(root, limit=1).outputs("other", 16)
    assert edit.example.id == "a" and edit.request.prompt == edit.prompt == "a dog"
    torch.testing.assert_close(edit.image, torch.full((1, 3, 16, 16), 200 / 127.5 - 1))
    with pytest.raises(Refused, match="no output 'other' of 'a dog'; it holds: none"):
        Folder(root).outputs("other", 16)


def test_the_field_imagic_is_an_output(tmp_path):
    root = folder(tmp_path, {"image": "a.png", "edit": "a dog", "imagic": "b.png"})
    assert Folder(root).outputs("imagic", 16)[0].image.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("field", ["image", "target", "mask", "outputs"])
@pytest.mark.parametrize("path", ["../out.png", "/etc/hostname", "link.png", "missing.png"])
def test_no_path_leaves_the_folder_or_is_missing(tmp_path, field, path):
    picture(tmp_path / "out.png", 0)
    root = folder(tmp_path / "in")
    (root / "link.png").symlink_to(tmp_path / "out.png")
    line = {"image": "a.png", "edit": "x"} | {
        field: {"theirs": path} if field == "outputs" else path
    }
    folder(root, line)
    with pytest.raises(
        Refused, match="no such file" if path == "missing.png" else "leaves the benchmark's folder"
    ):
        Folder(root).outputs("theirs", 16) if field == "outputs" else Folder(root).examples(16)


def test_ids_and_edits_are_unique(tmp_path):
    picture(tmp_path / "a/b.png", 1)
    picture(tmp_path / "a-b.jpg", 1)
    with pytest.raises(Refused, match=r"a/b\.png and a-b\.jpg would both have the id 'a-b'"):
        Folder(
            folder(tmp_path, {"image": "a/b.png", "edit": "x"}, {"image": "a-b.jpg", "edit": "x"})
        ).examples(16)
    with pytest.raises(Refused, match=r"the edit 'x' of a\.png twice"):
        Folder(
            folder(tmp_path, {"image": "a.png", "edit": "x"}, {"image": "a.png", "edit": "x"})
        ).examples(16)


def test_a_mask_of_another_size_is_refused(tmp_path):
    picture(tmp_path / "mask.png", 255, (64, 64))
    with pytest.raises(Refused, match=r"mask\.png is 64x64 px, its image 32x32 px"):
        Folder(folder(tmp_path, {"image": "a.png", "edit": "x", "mask": "mask.png"})).examples(16)


@pytest.mark.parametrize("path", ["{root}/a.png", "a\0.png", "\ud800.png"])
@pytest.mark.parametrize("field", ["image", "mask"])
def test_a_path_is_relative_and_can_be_a_files_name(tmp_path, field, path):
    root = folder(tmp_path)
    (root / "edits.jsonl").write_text(
        json.dumps({"image": "a.png", "edit": "x"} | {field: path.format(root=root)})
    )
    with pytest.raises(Refused, match="relative to"):
        Folder(root).examples(16)


@pytest.mark.parametrize("limit", [-1, 0.5, True])
def test_a_limit_is_a_number_of_images(tmp_path, limit):
    root = folder(tmp_path, {"image": "a.png", "edit": "x"}, {"image": "b.png", "edit": "x"})
    assert [len(Folder(root, limit=count).examples(16)) for count in (0, 1, 2, 9)] == [2, 1, 2, 2]
    with pytest.raises(Refused, match=r"benchmark\.limit must be a whole number"):
        first([], limit)


def test_a_line_may_hold_any_letter_and_must_be_utf8(tmp_path):
    root = folder(tmp_path)
    (root / "edits.jsonl").write_text(
        '{"image": "a.png", "edit": "a\u2028dog"}\n', encoding="utf-8"
    )
    assert Folder(root).examples(16)[0].requests[0].prompt == "a\u2028dog"
    (root / "edits.jsonl").write_bytes(b'{"image": "a.png", "edit": "caf\xe9"}\n')
    with pytest.raises(Refused, match="line 1: "):
        Folder(root).examples(16)


LINE = {"image": "a.png", "edit": "x"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"image": "a.png"}, "edit"),
        (LINE | {"image": 3}, "image is 3"),
        (LINE | {"nuon": ""}, "'nuon'"),
        (LINE | {"composed_alike": "yes"}, "composed_alike is 'yes'"),
        (LINE | {"local": 1}, "local is 1"),
        (LINE | {"facts": ["cat"]}, "facts is"),
        (LINE | {"outputs": "x.png"}, "outputs is 'x.png'"),
        (LINE | {"outputs": {"imagic": 3}}, "outputs is"),
    ],
)
def test_lines_that_are_not_edits_are_refused_by_number(tmp_path, line, said):
    with pytest.raises(Refused, match=rf"line 2: .*{said}"):
        Folder(folder(tmp_path, {"image": "a.png", "edit": "y"}, line)).examples(16)


def tedbench(root: Path) -> Path:
    """As published: the list, two originals of one stem, outputs named by image and text."""
    pairs = [
        ("bird.jpeg", "A bird. Flying high."),
        ("bird.png", "A bird looking backwards."),
        ("bird.jpeg", "A bird."),
    ]
    for image, _ in pairs:
        picture(root / "originals" / image, 90, (48, 32))
    for k, name in enumerate(
        ("bird.jpeg-A_bird._Flying_high", "bird.png-A_bird_looking_backwards", "bird.jpeg-A_bird")
    ):
        picture(root / f"imagic/{name}.png", 10 * k, (48, 32))
    (root / "input_list.json").write_text(
        json.dumps([{"img_name": image, "target_text": text} for image, text in pairs])
    )
    return root


def test_tedbench_is_read_as_published(tmp_path):
    benchmark = TEdBench(tedbench(tmp_path))
    assert [(e.id, [r.prompt for r in e.requests]) for e in benchmark.examples(16)] == [
        ("bird-jpeg", ["A bird. Flying high.", "A bird."]),
        ("bird-png", ["A bird looking backwards."]),
    ]
    levels = [float(edit.image.mean()) for edit in benchmark.outputs("imagic", 16)]
    assert levels == pytest.approx([k * 10 / 127.5 - 1 for k in (0, 2, 1)], abs=1e-3)


def test_tedbench_reads_a_manifest_too_and_refuses_the_rest(tmp_path):
    assert (
        TEdBench(folder(tmp_path / "m", {"image": "a.png", "edit": "x", "imagic": "b.png"}))
        .outputs("imagic", 16)[0]
        .example.id
        == "a-png"
    )
    with pytest.raises(Refused, match=r"needs input_list\.json"):
        TEdBench(tmp_path).examples(16)
    (tmp_path / "input_list.json").write_text('[{"img_name": "a"}]')
    with pytest.raises(Refused, match="target_text"):
        TEdBench(tmp_path).examples(16)
    tedbench(tmp_path / "t")
    (tmp_path / "t/imagic/bird.jpeg-A_bird.png").unlink()
    assert (
        len(TEdBench(tmp_path / "t").examples(16)) == 2
    )  # outputs are asked for by those who score them
    with pytest.raises(Refused, match=r"bird\.jpeg-A_bird\.png: no such file"):
        TEdBench(tmp_path / "t").outputs("imagic", 16)


ITEM = {
    "image_path": "1_change_object_80/1_artificial/1_animal/111.jpg",
    "original_prompt": "a [cat] sitting next to a mirror",
    "editing_prompt": "a [dog] sitting next to a mirror",
    "editing_instruction": "...",
    "editing_type_id": "1",
    "blended_word": "cat dog",
    "mask": [512 * 100 + 30, 50, 512 * 101 + 30, 50],
}


def pie(root: Path, mapping: dict, size: tuple[int, int] = (512, 512)) -> Path:
    for item in mapping.values():
        picture(root / "annotation_images" / item["image_path"], 100, size)
    (root / "mapping_file.json").write_text(json.dumps(mapping))
    return root


def test_pie_bench_is_read_as_published(tmp_path):
    root = pie(
        tmp_path,
        {
            "111": ITEM,
            "112": ITEM
            | {
                "image_path": "0_random/112.jpg",
                "editing_type_id": "0",
                "mask": [],
                "blended_word": "",
            },
        },
    )
    first, second = PIEBench(root).examples(512)
    (request,) = first.requests
    assert (first.caption, request.prompt) == (
        "a cat sitting next to a mirror",
        "a dog sitting next to a mirror",
    )
    assert (first.noun, request.kind, second.noun, second.requests[0].kind) == (
        "cat",
        "change object",
        "",
        "random",
    )
    assert request.mask is not None and request.mask.shape == (1, 1, 512, 512)
    assert request.mask.sum() == 100 + 4 * 511  # two runs, and the border
    assert request.mask[0, 0, 100, 29:81].tolist() == [0.0, *[1.0] * 50, 0.0]
    small = PIEBench(root, limit=1).examples(64)[0].requests[0].mask
    assert (
        small is not None
        and small.shape == (1, 1, 64, 64)
        and small[0, 0, 12, 1:12].tolist() == [0.0, 0.0, *[1.0] * 7, 0.0, 0.0]
    )


def test_outputs_of_pie_bench_are_square_and_named_by_method(tmp_path):
    root = pie(tmp_path, {"111": ITEM})
    path = root / "output/ddim+p2p/annotation_images" / ITEM["image_path"]
    picture(path, 30, (512, 512))
    assert PIEBench(root).outputs("ddim+p2p", 64)[0].image.mean() == pytest.approx(
        30 / 127.5 - 1, abs=0.02
    )
    picture(path, 30, (2048, 512))
    with pytest.raises(Refused, match=r"2048x512 px.*square edit alone"):
        PIEBench(root).outputs("ddim+p2p", 64)
    with pytest.raises(Refused, match="no such file"):
        PIEBench(root).outputs("other", 64)


def test_masks_are_runs_of_pixels():
    assert (
        decode([7, 2], side=5).flatten().tolist()
        == [1.0] * 5 + [1, 0, 1, 1, 1] + [1, 0, 0, 0, 1] * 2 + [1.0] * 5
    )
    assert torch.equal(
        decode([12, 1000], side=5), decode([12, 13], side=5)
    )  # a run stops at the end
    for runs, said in (
        ([1], "start, length"),
        ([1, -1], "start, length"),
        ("x", "start, length"),
        ([25, 1], "of another size"),
    ):
        with pytest.raises(Refused, match=said):
            decode(runs, side=5)


def test_brackets_are_taken_out_of_prompts():
    assert plain(" a [red] house [and a tree]") == "a red house and a tree"


@pytest.mark.parametrize("path", ["../../out.jpg", "/etc/hostname"])
def test_no_path_leaves_pie_bench(tmp_path, path):
    pie(tmp_path, {"1": ITEM})
    (tmp_path / "mapping_file.json").write_text(json.dumps({"1": ITEM | {"image_path": path}}))
    with pytest.raises(Refused, match="leaves the benchmark's folder"):
        PIEBench(tmp_path).examples(64)


def test_what_is_not_pie_bench_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"needs mapping_file\.json beside annotation_images/"):
        PIEBench(tmp_path).examples(64)
    with pytest.raises(Refused, match="256x256 px; PIE-Bench's masks are of 512x512 px"):
        PIEBench(pie(tmp_path / "small", {"1": ITEM}, (256, 256))).examples(64)
    root = pie(tmp_path / "x", {"1": ITEM})
    for text, said in (
        ("[1]", "mapping of keys"),
        (json.dumps({"1": ITEM | {"editing_prompt": 3}}), "mapping of keys"),
        (json.dumps({"1": {k: v for k, v in ITEM.items() if k != "mask"}}), "mask"),
        (json.dumps({"1": ITEM, "2": ITEM}), "image .* twice"),
        (f'{{"1": {json.dumps(ITEM)}, "1": {json.dumps(ITEM)}}}', "key 1 twice"),
        (json.dumps({"1": ITEM | {"mask": [512 * 512, 3]}}), "key 1: a run begins at pixel 262144"),
    ):
        (root / "mapping_file.json").write_text(text)
        with pytest.raises(Refused, match=said):
            PIEBench(root).examples(64)


def test_the_size_of_a_file_is_known(tmp_path):
    assert images.load(picture(tmp_path / "x.png", 3, (48, 32)), size=16).source == (48, 32)


def test_outputs_are_scored_as_a_run_without_a_model(tmp_path):
    (made := tmp_path / "run").mkdir()
    done = precomputed.score(
        TEdBench(tedbench(tmp_path / "t")),
        [PSNR(), MSE()],
        name="imagic",
        resolution=32,
        folder=made,
    )
    assert done == records.read(made)
    edits, references = ([r for r in done if r.row == row] for row in ("edit", "copy"))
    assert (
        [r.method for r in edits] == ["imagic"] * 3
        and {r.method for r in references} == {""}
        and len(references) == len(done) - 3 == 3
    )
    mse = [((90 - level) / 255) ** 2 for level in (0, 20, 10)]  # bird.jpeg's two outputs come first
    assert [r.scores["mse"] for r in edits] == pytest.approx(
        mse, rel=0.05
    )  # two base images are JPEG
    assert {r.scores["psnr"] for r in references} == {100.0}
    assert (
        set(json.loads((made / "cards.json").read_text())) == {"psnr", "mse"}
        and (made / "grid.png").is_file()
    )
    assert all((made / r.image).is_file() for r in done)


@pytest.fixture
def at_work(here):
    """An empty working directory with a benchmark in it."""
    return tedbench(here / "ted")


CHOSEN = (
    "metrics.use=[{_target_: unitune.metrics.pixel.PSNR},{_target_: unitune.metrics.pixel.SSIM}]"
)


def test_the_job_scores_outputs_and_they_can_be_scored_again(at_work, typed):
    command = (
        "--config-name",
        "precomputed",
        "benchmark.path=ted",
        "model.resolution=32",
        CHOSEN,
        "hydra.run.dir=run",
    )
    done = typed(*command)
    assert (
        done.code == 0
        and "imagic" in done.out
        and "copy of the base" in done.out
        and "grid: " in done.out
    ), done.err
    assert {path.suffix for path in Path("run").iterdir()} == {".png", ".jsonl", ".json", ".yaml"}
    again = typed(
        "--config-name", "score", "runs=run", "metrics.use=[{_target_: unitune.metrics.pixel.MSE}]"
    )
    assert again.code == 0 and "mse" in again.out, again.err
    assert set(records.merge(records.read(Path("run")))[0].scores) == {"psnr", "ssim", "mse"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("benchmark.path=absent",), "no TEdBench at absent"),
        (("benchmark.path=ted", "outputs=theirs"), "holds no output 'theirs'"),
        ((), "benchmark.path"),
        (("benchmark.path=ted", "metrics=pie"), "DINO"),
    ],
)
def test_the_job_refuses_in_one_line_and_leaves_nothing(at_work, typed, arguments, said):
    done = typed(
        "--config-name",
        "precomputed",
        *(arguments if "metrics=pie" in arguments else (*arguments, CHOSEN)),
        "hydra.run.dir=run",
    )
    assert done.code == 2 and said in done.err.splitlines()[-1] and "Traceback" not in done.err, (
        done.err
    )
    assert not Path("run").exists()
