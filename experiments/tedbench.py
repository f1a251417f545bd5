"""Imagic's published outputs on TEdBench beside copies of the originals, scored with every metric that needs no download.

Command:  python experiments/tedbench.py --path DIR   (TEdBench as published, or a folder with edits.jsonl; no picture of it is kept)
Claim:    the scores tell an edit from a copy: a copy keeps everything (ST-LPIPS 0, SSIM 1, image similarity 1), an edit does not.
          The pocket CLIP and judge know the scenes world only, so alignment on photographs says little here; direction, progress and edit success have no number, as
          TEdBench has neither captions nor facts.
Writes:   experiments/records/tedbench.jsonl, and the cards of its scores in tedbench-cards.json
Minutes:  1 on two CPU cores.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from unitune.benchmarks.tedbench import TEdBench
from unitune.metrics import statistics
from unitune.metrics.clip import Pocket
from unitune.metrics.perceptual import STLPIPS
from unitune.metrics.pixel import (
    MSE,
    PSNR,
    SSIM,
    BaseErrorInsideMask,
    ErrorInsideMask,
    MSEOutsideMask,
    TargetPSNR,
)
from unitune.metrics.similarity import Alignment, DirectionalSimilarity, ImageSimilarity
from unitune.metrics.success import COLUMNS, EditSuccess
from unitune.report import tables
from unitune.runs import precomputed
from unitune.storage import records
from unitune.types import Metric

ROOT = Path(__file__).parent.parent
POCKET = ROOT / "src/unitune/assets/pocket"
RECORDS = ROOT / "experiments/records"


def offline() -> list[Metric]:
    """The metrics of conf/metrics/offline.yaml."""
    clip = Pocket(POCKET / "clip")
    similar = [Alignment(clip), DirectionalSimilarity(clip), ImageSimilarity(clip)]
    pixels = [
        PSNR(),
        SSIM(),
        MSE(),
        TargetPSNR(),
        MSEOutsideMask(),
        ErrorInsideMask(),
        BaseErrorInsideMask(),
    ]
    return [
        *similar,
        STLPIPS(),
        *pixels,
        *(EditSuccess(POCKET / "judge", column) for column in COLUMNS),
    ]


def table(done: list[records.Record]) -> str:
    """Means over images with their intervals; scores that apply to no picture are left out."""
    edits, references = (
        [record for record in done if (record.row == "edit") is made] for made in (True, False)
    )
    names = statistics.measured(edits)
    return tables.markdown(
        tables.named(
            {"Imagic, published": edits},
            references,
            scores=dict(zip(names, names, strict=True)),
            costs={},
        )
    ).rstrip()


def main() -> None:
    """Score, record, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument(
        "--resolution", type=int, default=256, help="px at which pictures are compared"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "tedbench"
        made.mkdir()
        done = precomputed.score(
            TEdBench(chosen.path),
            offline(),
            name="imagic",
            resolution=chosen.resolution,
            folder=made,
        )
        RECORDS.mkdir(exist_ok=True)
        shutil.copyfile(made / records.FILE, RECORDS / "tedbench.jsonl")
        shutil.copyfile(made / "cards.json", RECORDS / "tedbench-cards.json")
    print(table(done))


if __name__ == "__main__":
    main()
