import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unitune import metrics
from unitune.metrics import score
from unitune.metrics.perceptual import STLPIPS, weights_file
from unitune.metrics.pixel import (
    PSNR,
    SSIM,
    BaseErrorInsideMask,
    ErrorInsideMask,
    MSEOutsideMask,
    TargetPSNR,
)
from unitune.metrics.statistics import DERIVED
from unitune.types import Edit, Example, Refused, Request

SEEDED = torch.Generator().manual_seed(0)
BASE = torch.rand(1, 3, 64, 64, generator=SEEDED) * 1.6 - 0.8


def edit_of(image: torch.Tensor, *, base: torch.Tensor = BASE, **request: object) -> Edit:
    asked = Request("a cat", **request)
    return Edit(
        Example("one", base, (asked,)),
        asked,
        seed=0,
        weight=4.0,
        start=0.9,
        prompt="beikkpic a cat",
        image=image,
    )


def have_stlpips() -> bool:
    try:
        return weights_file().exists()
    except Refused:
        return False


needs_weights = pytest.mark.skipif(
    not have_stlpips(), reason="the weights of stlpips-pytorch are not installed"
)


def test_psnr_has_its_closed_form():
    # an error of 0.1 on [-1, 1] is 0.05 on [0, 1]: 20 log10(1 / 0.05) dB
    assert PSNR()([edit_of(BASE + 0.1)])[0] == pytest.approx(20 * math.log10(20), abs=1e-4)
    assert PSNR()([edit_of(BASE)])[0] == 100


def test_ssim_is_one_for_equal_pictures_and_reads_black_as_zero():
    assert SSIM()([edit_of(BASE)])[0] == pytest.approx(1.0, abs=1e-6)
    a, b = 0.25, 0.5  # flat pictures on [0, 1]: only the luminance term is left
    flat = edit_of(torch.full_like(BASE, 2 * a - 1), base=torch.full_like(BASE, 2 * b - 1))
    assert SSIM()([flat])[0] == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-4)


def test_ssim_falls_with_noise():
    noise = torch.randn(BASE.shape, generator=torch.Generator().manual_seed(1))
    values = SSIM()([edit_of(BASE + s * noise) for s in (0.05, 0.2, 0.6)])
    assert 1 > values[0] > values[1] > values[2]


def test_mse_outside_counts_only_what_must_stay():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    changed = BASE.clone()
    changed[..., :32] += 0.7
    assert MSEOutsideMask()([edit_of(changed, mask=mask)]) == [0.0]
    changed[..., 48:] += 0.2  # half of what must stay, by 0.1 on [0, 1]
    assert MSEOutsideMask()([edit_of(changed, mask=mask)])[0] == pytest.approx(0.005, rel=1e-4)


def test_errors_inside_are_those_of_edit_and_base_to_the_target_where_the_mask_lets_change():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :16] = 1
    mask[..., 16:32] = 0.5  # at least 0.5 is inside
    mask[..., 32:48] = 0.49
    target, image = BASE + 0.4, BASE + 0.1
    image[..., :16] += 0.5  # off by 0.2 and by 0.3 in equal parts, so by 0.1 and 0.15 on [0, 1]
    image[..., 32:] = 0.9  # outside nothing counts
    edit = edit_of(image, target=target, mask=mask)
    assert ErrorInsideMask()([edit]) == pytest.approx([(0.1**2 + 0.15**2) / 2], rel=1e-5)
    assert BaseErrorInsideMask()([edit]) == pytest.approx([0.2**2], rel=1e-5)
    colour = edit_of(BASE + torch.tensor([0.2, 0.0, 0.0])[:, None, None], target=BASE, mask=mask)
    assert ErrorInsideMask()([colour]) == pytest.approx(
        [0.01 / 3], rel=1e-5
    )  # channels are averaged
    copy, answer = (
        edit_of(BASE, target=target, mask=mask),
        edit_of(target, target=target, mask=mask),
    )
    assert ErrorInsideMask()([copy]) == BaseErrorInsideMask()([copy]) and ErrorInsideMask()(
        [answer]
    ) == [0.0]
    assert (
        ErrorInsideMask()([answer, edit]) == [0.0, *ErrorInsideMask()([edit])]
        and ErrorInsideMask()([]) == []
    )
    assert not ErrorInsideMask.higher_is_better and (
        ErrorInsideMask.name,
        BaseErrorInsideMask.name,
    ) == ("error_inside", "base_error_inside")


@pytest.mark.parametrize(
    "metric", [ErrorInsideMask(), BaseErrorInsideMask()], ids=lambda metric: metric.name
)
def test_errors_inside_need_a_target_and_a_mask_of_the_edit_s_size(metric):
    mask = torch.ones(1, 1, 64, 64)
    absent = [
        edit_of(BASE, mask=mask),
        edit_of(BASE, target=BASE),
        edit_of(BASE),
        edit_of(BASE, target=BASE + 0.2, mask=0.4 * mask),
    ]
    assert all(math.isnan(value) for value in metric(absent))
    for wrong in (
        {"target": BASE[..., :32], "mask": mask},
        {"target": BASE, "mask": mask[..., :32]},
    ):
        with pytest.raises(Refused, match=r"is 32x64 px, the edit 64x64 px"):
            metric([edit_of(BASE, **wrong)])
    with pytest.raises(Refused, match=r"the base image is 32x64 px"):
        metric([edit_of(BASE, base=BASE[..., :32], target=BASE, mask=mask)])


def test_metrics_that_do_not_apply_are_nan():
    assert math.isnan(MSEOutsideMask()([edit_of(BASE)])[0])
    assert math.isnan(MSEOutsideMask()([edit_of(BASE, mask=torch.ones(1, 1, 64, 64))])[0])
    assert math.isnan(TargetPSNR()([edit_of(BASE)])[0])
    assert TargetPSNR()([edit_of(BASE, target=BASE + 0.2)])[0] == pytest.approx(20.0, abs=1e-4)


def test_other_sizes_are_refused():
    with pytest.raises(Refused, match="one size"):
        PSNR()([edit_of(torch.zeros(1, 3, 32, 32))])
    with pytest.raises(Refused, match="mask"):
        MSEOutsideMask()([edit_of(BASE, mask=torch.ones(1, 1, 32, 32))])


def test_score_gives_one_dict_per_edit_in_order():
    rows = score([PSNR(), MSEOutsideMask()], [edit_of(BASE + 0.1), edit_of(BASE + 0.2)])
    assert [set(row) for row in rows] == [{"psnr", "mse_outside"}] * 2
    assert rows[0]["psnr"] > rows[1]["psnr"]
    assert score([PSNR()], []) == []
    assert score([], [edit_of(BASE)]) == [{}]


def test_score_refuses_two_metrics_of_one_name():
    with pytest.raises(Refused, match="psnr"):
        score([PSNR(), PSNR()], [edit_of(BASE)])


def test_every_card_says_what_the_number_is():
    for metric in (
        PSNR(),
        SSIM(),
        MSEOutsideMask(),
        TargetPSNR(),
        ErrorInsideMask(),
        BaseErrorInsideMask(),
    ):
        assert metric.card["what"] and metric.card["preprocessing"]


def test_the_card_of_progress_stands_where_its_parts_do(tmp_path):
    def written(*chosen) -> dict[str, dict[str, str]]:
        metrics.write_cards(chosen, tmp_path)
        return json.loads((tmp_path / "cards.json").read_text())

    assert {*metrics.OF_DERIVED} == {*DERIVED}
    assert [*written(PSNR(), ErrorInsideMask())] == ["psnr", "error_inside"]
    made = written(BaseErrorInsideMask())  # scored again
    assert {*made} == {"psnr", "error_inside", "base_error_inside", "progress"}
    card = made["progress"]
    assert (
        card["better"] == "higher"
        and "1 - error_inside / base_error_inside" in card["what"]
        and "unitune.metrics.statistics" in card["version"]
    )
    assert {*card} == {*made["psnr"]} and "summed over edits and seeds" in card["averaging"]


@needs_weights
def test_stlpips_is_zero_for_equal_pictures_and_symmetric():
    metric, other = STLPIPS(), BASE.flip(3)
    assert metric([edit_of(BASE)]) == [0.0]
    there, back = metric([edit_of(other), edit_of(BASE, base=other)])
    assert there == pytest.approx(back, rel=1e-5)
    assert there > 0
    assert "ST-LPIPS" in metric.card["what"] and not metric.higher_is_better


@needs_weights
def test_stlpips_grows_with_noise():
    noise = torch.randn(BASE.shape, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(BASE[..., :8, :8], (64, 64), mode="bicubic")
    values = STLPIPS()([edit_of(smooth + s * noise, base=smooth) for s in (0.02, 0.1, 0.4)])
    assert 0 < values[0] < values[1] < values[2]


@needs_weights
def test_stlpips_minds_a_pixel_of_shift_little():
    big = torch.nn.functional.interpolate(BASE[..., :10, :10], (80, 80), mode="bicubic").clamp(
        -1, 1
    )
    base, shifted = big[..., 8:72, 8:72], big[..., 8:72, 9:73]
    other = torch.nn.functional.interpolate(
        BASE[..., 20:28, 20:28], (64, 64), mode="bicubic"
    ).clamp(-1, 1)
    near, far = STLPIPS()([edit_of(shifted, base=base), edit_of(other, base=base)])
    assert near < 0.2 * far


@needs_weights
def test_stlpips_refuses_pictures_of_two_sizes():
    with pytest.raises(Refused, match="one size"):
        STLPIPS()([edit_of(torch.zeros(1, 3, 32, 32))])


def test_stlpips_without_its_weights_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refused, match="stlpips-pytorch"):
        STLPIPS()


THEIRS = """
import sys, types
for name in ("IPython", "torchsummary"):  # imported by the package, not needed to score
    sys.modules[name] = types.ModuleType(name)
sys.modules["IPython"].embed = sys.modules["torchsummary"].summary = None
from unitune.models.compat import ensure_torchvision
ensure_torchvision()
import torch
from stlpips_pytorch import stlpips
a, b = torch.load(sys.argv[1], weights_only=True)
with torch.no_grad():
    values = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)(a, b).flatten()
torch.save(values, sys.argv[2])
"""


@needs_weights
def test_stlpips_gives_the_numbers_of_the_authors(tmp_path: Path):
    a, b = torch.rand(2, 3, 3, 64, 72, generator=torch.Generator().manual_seed(2)) * 2 - 1
    b = torch.stack([b[0], (a[1] + 0.1 * b[1]).clamp(-1, 1), a[2].roll(1, dims=-1)])
    torch.save((a, b), tmp_path / "in.pt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", THEIRS, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(
            f"the authors' package does not run here: {done.stderr.strip().splitlines()[-1]}"
        )
    theirs = torch.load(tmp_path / "out.pt", weights_only=True)
    ours = STLPIPS()([edit_of(y[None], base=x[None]) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(torch.tensor(ours), theirs, rtol=1e-4, atol=1e-6)


@needs_weights
def test_stlpips_never_imports_the_package():
    STLPIPS()
    assert "stlpips_pytorch" not in sys.modules


@needs_weights
def test_stlpips_of_a_batch_is_that_of_each_alone():
    first, second = edit_of(BASE.flip(2)), edit_of(BASE.flip(3), base=BASE.flip(2))
    metric = STLPIPS()
    assert metric([first, second, first]) == pytest.approx(
        [*metric([first]), *metric([second]), *metric([replace(first)])], rel=1e-5
    )


@pytest.mark.parametrize("damaged", [b'{"psnr": ', b"[1]", b"\xff"])
def test_damaged_cards_are_written_anew(damaged: bytes, tmp_path: Path):
    (tmp_path / "cards.json").write_bytes(damaged)
    metrics.write_cards([PSNR()], tmp_path)
    assert [*json.loads((tmp_path / "cards.json").read_text())] == ["psnr"]
