"""What holds for every metric: order, mixed sizes, no number where it does not apply, a full card.

Features are computed once, and weights that cannot be had are refused.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import scoring
import torch

from unitune.metrics import batches, cards, score, weights
from unitune.metrics.clip import PocketClip, StockClip, features_of, image_features
from unitune.metrics.lpips import LPIPS, UneditedLPIPS, heads
from unitune.metrics.pixel import (
    MSE,
    PSNR,
    SSIM,
    ErrorInsideMask,
    MSEOutsideMask,
    TargetPSNR,
    UneditedMSE,
    UneditedPSNR,
    UneditedSSIM,
)
from unitune.metrics.similarity import (
    Alignment,
    DirectionalSimilarity,
    EditedAlignment,
    ImageSimilarity,
)
from unitune.metrics.structure import StructureDistance
from unitune.types import Edit, Example, Metric, Refused, Request


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> PocketClip:
    torch.manual_seed(0)
    return PocketClip(scoring.pocket(tmp_path_factory.mktemp("pocket")) / "clip")


@pytest.fixture(scope="module")
def every(pocket: PocketClip, tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    """All metrics that compare with the base image, prompt or mask; random weights."""
    folder = tmp_path_factory.mktemp("weights")
    stock = StockClip(scoring.MODEL, "random", str(scoring.stock_clip(folder)))
    clips = [
        kind(source)
        for source in (pocket, stock)
        for kind in (Alignment, EditedAlignment, DirectionalSimilarity, ImageSimilarity)
    ]
    nets = [
        kind(net, str(scoring.backbone(folder, net)))
        for net in ("alex", "squeeze")
        for kind in (LPIPS, UneditedLPIPS)
    ]
    pixels = [
        PSNR(),
        SSIM(),
        MSE(),
        UneditedPSNR(),
        UneditedSSIM(),
        UneditedMSE(),
        MSEOutsideMask(),
        TargetPSNR(),
        ErrorInsideMask(),
    ]
    return [*clips, *nets, *pixels, StructureDistance(str(scoring.dino(folder)))]


def edits_of(*sizes: int) -> list[Edit]:
    g = torch.Generator().manual_seed(3)
    edits = []
    for number, size in enumerate(sizes):
        base, mask = (
            torch.rand(1, 3, size, size, generator=g) * 2 - 1,
            torch.zeros(1, 1, size, size),
        )
        mask[..., : size // 3, : size // 2] = 1
        requests = tuple(
            Request(text, mask=mask, target=base.flip(3)) for text in ("a red dog", "a tree")
        )
        example = Example(f"{number}", base, requests, caption="a cat")
        edits += [
            Edit(example, r, k, 4.0, 0.9, r.prompt, torch.rand(base.shape, generator=g) * 2 - 1)
            for r in requests
            for k in range(2)
        ]
    return [edits[k] for k in torch.randperm(len(edits), generator=g).tolist()]


def test_scores_of_mixed_sizes_in_any_order_are_those_of_each_edit_alone(every):
    edits = edits_of(72, 64, 72)
    together = score(every, edits)
    for edit, row in list(zip(edits, together, strict=True))[:5]:
        assert row == pytest.approx(score(every, [edit])[0], rel=1e-4, abs=1e-5)
    assert together[::-1] == [
        pytest.approx(row, rel=1e-4, abs=1e-5) for row in score(every, edits[::-1])
    ]
    assert all(len({row[name] for row in together}) > 6 for name in together[0])


def test_a_metric_without_edits_has_no_scores(every):
    assert score(every, []) == [] and all(metric([]) == [] for metric in every)


def test_what_does_not_apply_is_no_number(every):
    edit = edits_of(64)[0]
    bare = replace(edit, request=Request("a red dog"), example=replace(edit.example, caption=" "))
    (row,) = score(every, [bare])
    absent = {name for name, value in row.items() if math.isnan(value)}
    assert absent == {
        name
        for name in row
        if name.startswith("direction")
        or "edited" in name
        or "target" in name
        or "outside" in name
        or "inside" in name
    }
    full, empty = (
        replace(edit, request=replace(edit.request, mask=torch.full((1, 1, 64, 64), value)))
        for value in (1.0, 0.0)
    )
    (of_full,), (of_empty,) = score(every, [full]), score(every, [empty])
    assert all(math.isnan(of_full[name]) for name in row if "unedited" in name or "outside" in name)
    assert {name for name, value in of_empty.items() if math.isnan(value)} == {
        name for name in row if "alignment_edited" in name or name == "error_inside"
    }
    assert of_empty["mse_unedited"] == pytest.approx(of_empty["mse"]) and of_full[
        "alignment_edited"
    ] == pytest.approx(of_full["alignment"], abs=1e-5)


def test_a_copy_of_the_base_image_has_no_direction_and_no_distance(every):
    edit = edits_of(64)[0]
    (row,) = score(every, [replace(edit, image=edit.example.image)])
    assert math.isnan(row["direction"])
    assert row["image_similarity"] == pytest.approx(1, abs=1e-5) and row["ssim"] == pytest.approx(1)
    assert all(
        row[name] == pytest.approx(0, abs=1e-6)
        for name in row
        if name.startswith(("lpips", "mse", "structure"))
    )


def test_direction_is_the_angle_of_the_changes(pocket):
    edit = edits_of(64)[0]
    ahead, back = (
        Request("a red dog"),
        replace(edit, image=edit.example.image, example=replace(edit.example, image=edit.image)),
    )
    there = DirectionalSimilarity(pocket)([replace(edit, request=ahead)])[0]
    assert DirectionalSimilarity(pocket)([replace(back, request=ahead)])[0] == pytest.approx(
        -there, abs=1e-5
    )
    turned = replace(
        back, request=Request("a cat"), example=replace(back.example, caption="a red dog")
    )
    assert DirectionalSimilarity(pocket)([turned])[0] == pytest.approx(there, abs=1e-5)


def test_unedited_scores_ignore_what_the_mask_lets_change(every):
    edit = edits_of(64)[0]
    mask = edit.request.mask
    assert mask is not None
    inside = replace(edit, image=torch.where(mask == 1, edit.image, edit.example.image))
    (row,) = score(every, [inside])
    assert (
        row["mse_unedited"] == row["mse_outside"] == 0
        and row["psnr_unedited"] == 100
        and row["ssim_unedited"] == pytest.approx(1)
    )
    assert row["lpips_squeeze_unedited"] == pytest.approx(0, abs=1e-7) and row["mse"] > 0.01
    (row,) = score(every, [edit])
    assert row["mse_unedited"] == pytest.approx(
        row["mse_outside"] * float(1 - mask.mean()), rel=1e-4
    )  # its mean goes over all pixels


def test_sizes_that_differ_are_refused(every, pocket):
    edit = edits_of(64)[0]
    small = replace(edit, image=torch.zeros(1, 3, 48, 48))
    for metric in every:
        if not metric.name.startswith(
            ("alignment", "direction", "image_similarity")
        ):  # features have one size whatever the picture's
            with pytest.raises(Refused, match=r"is 64x64 px, the edit 48x48 px"):
                metric([small])
    with pytest.raises(Refused, match="the mask is 64x64 px"):
        EditedAlignment(pocket)([small])


def test_a_picture_and_a_text_are_encoded_once(pocket, monkeypatch):
    clip, edits = pocket.load(), edits_of(64, 72)
    clip.texts.clear()
    clip.pictures.clear()
    seen, texts = [], []
    encode_image, encode_text = clip.network.encode_image, clip.network.encode_text
    monkeypatch.setattr(
        clip.network, "encode_image", lambda x, **k: seen.append(len(x)) or encode_image(x, **k)
    )
    monkeypatch.setattr(
        clip.network, "encode_text", lambda x, **k: texts.append(len(x)) or encode_text(x, **k)
    )
    score(
        [
            Alignment(pocket),
            DirectionalSimilarity(PocketClip(str(pocket.folder))),
            ImageSimilarity(pocket),
        ],
        edits,
    )
    assert sum(seen) == len(edits) + 2 and sum(texts) == 3
    torch.testing.assert_close(
        features_of(clip, [edits[1].image])[0], image_features(clip, edits[1].image)[0]
    )
    kept = len(clip.pictures)
    del edits
    assert kept == 10 and len(clip.pictures) == 0  # features go with their pictures


def test_features_of_a_base_image_are_computed_once():
    edits, seen = edits_of(64, 72, 64), []

    def features(x: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(x))
        return [x.mean(dim=(2, 3)), x.amax(dim=(2, 3))]

    values = batches.paired(
        edits,
        features,
        lambda a, b: torch.stack([(x - y).abs().sum(dim=1) for x, y in zip(a, b, strict=True)]).sum(
            dim=0
        ),
    )
    assert sum(seen) == len(edits) + 3
    of = [
        [torch.cat([x.mean((2, 3)), x.amax((2, 3))]) for x in (e.image, e.example.image)]
        for e in edits
    ]
    expected = [float((a - b).abs().sum()) for a, b in of]
    assert values == pytest.approx(expected, rel=1e-5)


def test_every_card_is_full(every):
    written = cards(every)
    assert list(written) == [metric.name for metric in every] and len(set(written)) == len(every)
    for name, card in written.items():
        assert {
            "better",
            "what",
            "backbone",
            "preprocessing",
            "resize",
            "nan",
            "averaging",
            "version",
        } <= set(card), name
        assert all(isinstance(value, str) and value for value in card.values())
    assert (
        "ViT" in written["structure"]["backbone"]
        and "SqueezeNet" in written["lpips_squeeze_unedited"]["backbone"]
    )
    assert {
        card["better"]
        for name, card in written.items()
        if name.startswith(("alignment", "psnr", "ssim"))
    } == {"higher"}


def test_metrics_of_one_folder_share_a_clip_until_its_weights_change(tmp_path):
    folder = scoring.pocket(tmp_path) / "clip"
    first = PocketClip(folder).load()
    assert PocketClip(folder).load() is first
    scoring.pocket(tmp_path)
    assert PocketClip(folder).load() is not first


def test_the_heads_of_lpips_are_of_the_authors_shapes():
    assert [head.shape[1] for head in heads("alex")] == [64, 192, 384, 256, 256]
    assert [head.shape[1] for head in heads("squeeze")] == [64, 128, 256, 384, 384, 512, 512]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (
            lambda: Alignment(StockClip("ViT-B-32", "openai")),
            r"the CLIP ViT-B-32 \(openai\) is not .*; give file= its open_clip_model\.safetensors",
        ),
        (
            lambda: LPIPS("alex"),
            r"the backbone of LPIPS \(alex\) is not on this machine.*"
            r"give file= its weights \(https://.*alexnet",
        ),
        (lambda: LPIPS("squeeze"), r"LPIPS \(squeeze\).*squeezenet1_1"),
        (
            lambda: StructureDistance(),
            r"the DINO facebook/dino-vitb8 is not .*; give source= a folder",
        ),
        (lambda: LPIPS("vgg"), "no network 'vgg'; use one of alex, squeeze"),
        (lambda: StockClip("ViT-B-33", "openai").load(), "'ViT-B-33' is no plain CLIP"),
        (
            lambda: StockClip("ViT-B-32", "openia").load(),
            "no weights 'openia'; open_clip knows: openai, laion400m_e31",
        ),
        (
            lambda: StockClip("ViT-B-32", "openai", "absent.safetensors").load(),
            r"absent\.safetensors: no such file",
        ),
        (lambda: LPIPS("alex", "absent.pth"), r"absent\.pth: no such file of weights"),
    ],
)
def test_weights_that_cannot_be_had_are_refused_in_a_line_within_3_seconds(
    build, said, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(Refused, match=said) as refused:
        build()
    assert time.monotonic() - began < 3 and "\n" not in str(refused.value)


def test_weights_of_something_else_are_refused(tmp_path):
    (tmp_path / "not.safetensors").write_text("x")
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(Refused, match="only safetensors are read"):
        StockClip("ViT-B-32", "openai", str(tmp_path / "not.safetensors")).load()
    with pytest.raises(Refused, match="cannot be read as a plain state dict"):
        LPIPS("alex", str(tmp_path / "evil.pth"))
    with pytest.raises(Refused, match="does not hold torchvision's alexnet"):
        LPIPS("alex", str(scoring.backbone(tmp_path, "squeeze")))
    with pytest.raises(Refused, match=r"no ViT in .*: config\.json is missing"):
        StructureDistance(str(tmp_path))


def test_a_state_dict_is_read_from_either_kind_of_file(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    assert torch.equal(weights.read(tmp_path / "a.pth")["a"], torch.ones(2))
    assert set(weights.read(scoring.backbone(tmp_path, "squeeze"))) >= {"features.0.weight"}
