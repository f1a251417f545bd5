"""Our numbers beside the reference implementations, on 20 pictures.

Where a model's weights need a download, both sides get the same random ones.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import scoring
import torch
import torch.nn.functional as F
import torchmetrics.functional.image as theirs
from PIL import Image
from torchmetrics.functional.image import lpips as their_lpips
from transformers import ViTModel

from unitune import images
from unitune.metrics import pixel
from unitune.metrics.clip import StockClip
from unitune.metrics.lpips import LPIPS, UneditedLPIPS
from unitune.metrics.similarity import (
    Alignment,
    DirectionalSimilarity,
    EditedAlignment,
    ImageSimilarity,
)
from unitune.metrics.structure import StructureDistance
from unitune.types import Edit, Example, Refused, Request

NAN = float("nan")
CAPTIONS = ("a cat in a city", "a red house, sketched")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only make two threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _pictures(count: int, seed: int) -> torch.Tensor:
    """Smooth at several scales, as photographs are, and of whole bytes."""
    g = torch.Generator().manual_seed(seed)
    coarse = [
        F.interpolate(torch.randn(count, 3, n, n, generator=g), (96, 96), mode="bicubic") / n**0.3
        for n in (3, 9, 30, 96)
    ]
    return torch.stack(coarse).sum(dim=0).mul(40).add(128).round().clamp(0, 255) / 127.5 - 1


@pytest.fixture(scope="module")
def edits() -> list[Edit]:
    """20 edits of 5 base images, out of order; masks of half the picture."""
    bases = _pictures(5, seed=0)
    changed = _pictures(20, seed=1)
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 20:80, 10:60] = 1
    examples = [
        Example(
            f"{k}", base[None], (Request(f"a dog number {k}", mask=mask),), caption=CAPTIONS[k % 2]
        )
        for k, base in enumerate(bases)
    ]
    mixed = [0.6 * bases[k % 5] + 0.4 * image for k, image in enumerate(changed)]
    return [
        Edit(
            examples[k % 5], examples[k % 5].requests[0], k, 4.0, 0.9, "", image[None].clamp(-1, 1)
        )
        for k, image in enumerate(mixed)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def _unit(edit: Edit, *, masked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    assert edit.request.mask is not None
    stays = 1 - edit.request.mask if masked else 1
    return (edit.image + 1) / 2 * stays, (edit.example.image + 1) / 2 * stays


@pytest.mark.parametrize(
    ("metric", "reference", "masked"),
    [
        (pixel.PSNR(), partial(theirs.peak_signal_noise_ratio, data_range=1.0), False),
        (pixel.SSIM(), partial(theirs.structural_similarity_index_measure, data_range=1.0), False),
        (pixel.MSE(), F.mse_loss, False),
        (pixel.UneditedPSNR(), partial(theirs.peak_signal_noise_ratio, data_range=1.0), True),
        (
            pixel.UneditedSSIM(),
            partial(theirs.structural_similarity_index_measure, data_range=1.0),
            True,
        ),
        (pixel.UneditedMSE(), F.mse_loss, True),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_pixel_scores_are_those_of_torchmetrics_and_torch_within_1e_5(
    edits, metric, reference, masked
):
    expected = [float(reference(*_unit(edit, masked=masked))) for edit in edits]
    assert metric(edits) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert len({round(value, 4) for value in expected}) > 5  # pictures that differ


@pytest.mark.parametrize("net", ["alex", "squeeze"])
@pytest.mark.parametrize("masked", [False, True])
def test_lpips_with_a_random_backbone_and_the_true_heads_is_that_of_torchmetrics_within_1e_5(
    edits, folder, net, masked
):
    file = scoring.backbone(folder, net)
    reference = their_lpips._LPIPS(net=net, pnet_rand=True)  # its heads are the authors'
    flat = scoring.convolutions(net)
    slices: Any = (
        reference.net.slices
        if net == "squeeze"
        else [getattr(reference.net, f"slice{k}") for k in range(1, 6)]
    )
    for piece in slices:
        piece.load_state_dict({name: flat[name] for name in piece.state_dict()})
    metric = UneditedLPIPS(net, str(file)) if masked else LPIPS(net, str(file))
    with torch.no_grad():
        expected = [float(reference(*_unit(edit, masked=masked), normalize=True)) for edit in edits]
    assert metric(edits) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert min(expected) > 1e-3


@pytest.fixture(scope="module")
def clip(folder: Path) -> tuple[StockClip, torch.nn.Module, object, object]:
    """Ours, and open_clip's network, preprocessing and tokenizer with the same random weights."""
    source = StockClip(scoring.MODEL, "random", str(scoring.stock_clip(folder)))
    network, _, preprocess = open_clip.create_model_and_transforms(
        scoring.MODEL, pretrained=str(folder / "clip.safetensors")
    )
    return source, network.eval(), preprocess, open_clip.get_tokenizer(scoring.MODEL)


def _theirs(
    clip, pictures: list[torch.Tensor], texts: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    _, network, preprocess, tokenizer = clip
    with torch.no_grad():
        x = torch.stack(
            [preprocess(Image.fromarray(images.to_uint8(picture))) for picture in pictures]
        )
        return network.encode_image(x, normalize=True), network.encode_text(
            tokenizer(texts), normalize=True
        )


def test_clip_cosines_with_random_weights_are_those_of_open_clip_within_2e_3(edits, clip):
    """open_clip resizes bytes and we resize floats: the tolerance is that rounding."""
    out, prompts = _theirs(clip, [e.image for e in edits], [e.request.prompt for e in edits])
    base, captions = _theirs(
        clip, [e.example.image for e in edits], [e.example.caption for e in edits]
    )
    assert Alignment(clip[0])(edits) == pytest.approx((out * prompts).sum(dim=1).tolist(), abs=2e-3)
    assert ImageSimilarity(clip[0])(edits) == pytest.approx(
        (out * base).sum(dim=1).tolist(), abs=2e-3
    )
    direction = F.cosine_similarity(out - base, prompts - captions)
    assert DirectionalSimilarity(clip[0])(edits) == pytest.approx(
        direction.tolist(), abs=2e-2
    )  # of differences, so the rounding is larger beside it
    assert direction.std() > 0.02
    parts = [(e.image + 1) * e.request.mask - 1 for e in edits]
    edited, _ = _theirs(clip, parts, ["a"])
    assert EditedAlignment(clip[0])(edits) == pytest.approx(
        (edited * prompts).sum(dim=1).tolist(), abs=2e-3
    )


def test_clip_features_without_resizing_are_those_of_open_clip_within_1e_5(edits, clip):
    small = [images.resize(e.image, 32) for e in edits]
    whole = [
        Edit(e.example, e.request, e.seed, 1.0, 1.0, "", images.from_uint8(images.to_uint8(x)))
        for e, x in zip(edits, small, strict=True)
    ]
    out, prompts = _theirs(clip, [e.image for e in whole], [e.request.prompt for e in whole])
    assert Alignment(clip[0])(whole) == pytest.approx((out * prompts).sum(dim=1).tolist(), abs=1e-5)


@pytest.mark.parametrize("white", [1, 255])  # 255: PIE-Bench normalises bytes
def test_structure_distance_with_random_weights_is_its_definition_within_1e_5(edits, folder, white):
    """Written out a second time, by hand.

    Hidden states of the layer before the last, normalised, projected to keys; cosines of all pairs.
    """
    source = scoring.dino(folder)
    vit = ViTModel.from_pretrained(source, add_pooling_layer=False).eval()
    named = dict(vit.named_modules())
    weight, bias = next(
        (m.weight, m.bias)
        for name, m in named.items()
        if name.endswith(("1.attention.k_proj", "1.attention.attention.key"))
    )
    norm = next(m for name, m in named.items() if name.endswith("1.layernorm_before"))

    def similarity(image: torch.Tensor) -> torch.Tensor:
        x = F.interpolate((image + 1) / 2, (64, 64), mode="bilinear", antialias=True)
        x = (white * x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
            [0.229, 0.224, 0.225]
        )[:, None, None]
        keys = norm(vit(x, output_hidden_states=True).hidden_states[-2])[0] @ weight.T + bias
        return torch.stack([F.cosine_similarity(key[None], keys) for key in keys])

    with torch.no_grad():
        expected = [
            float(F.mse_loss(similarity(e.image), similarity(e.example.image))) for e in edits
        ]
    assert StructureDistance(str(source), white=white)(edits) == pytest.approx(
        expected, rel=1e-4, abs=1e-7
    )
    assert min(expected) > 1e-5
    with pytest.raises(Refused, match="white must be a number above 0"):
        StructureDistance(str(source), white=0)
