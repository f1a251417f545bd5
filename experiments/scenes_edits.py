"""Tuned against untuned on edits whose right answer is known: what tuning on the image buys at the same sampler, prompts and seeds.

Command:  python run.py -m method=unitune,untuned sampler=unitune benchmark=scenes benchmark.limit=8 seeds=1 hydra.sweep.dir=outputs/scenes_edits
          python experiments/scenes_edits.py outputs/scenes_edits        (the kept records: with sampler.guidance.weight=6, the default of their time)
Expected: tuned edits keep what must stay (lower error outside the mask, nearer the exact target) and lose little edit success and alignment.
Minutes:  about 12 on two CPU cores: eight tunings, then 24 edits with one seed for both methods.

Means with 95 % intervals by bootstrap over base images (edits of one image share its tuning); differences are taken image by image.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from unitune import records
from unitune.records import Record

RECORD = Path(__file__).parent / "records" / "scenes_edits.jsonl"
METRICS = {
    "success": "edit success (judge)", "alignment": "alignment (pocket CLIP)", "mse_outside": "error outside the mask, x 1000",
    "psnr_target": "PSNR to the exact target, dB", "psnr": "PSNR to the base image, dB", "stlpips": "ST-LPIPS to the base image",
}  # fmt: skip
SCALE = {"mse_outside": 1000.0}


def by_image(lines: list[dict], method: str, metric: str) -> dict[str, float]:
    """Average a metric over the edits and seeds of each base image."""
    groups: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line["method"] == method and line["scores"].get(metric) is not None:
            groups[line["example"]].append(line["scores"][metric] * SCALE.get(metric, 1.0))
    return {image: float(np.mean(values)) for image, values in groups.items()}


def with_interval(values: list[float]) -> str:
    """Write a mean with its 95 % bootstrap interval over images."""
    if len(values) < 2 or np.ptp(values) == 0:
        return f"{np.mean(values):.3g}"
    low, high = bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return f"{np.mean(values):.3g} [{low:.3g}, {high:.3g}]"


def line_of(record: Record) -> dict:
    """Keep what the table needs."""
    return {name: getattr(record, name) for name in ("method", "sampler", "example", "kind", "aligned", "prompt", "seed", "weight", "start", "scores")}


def table(lines: list[dict]) -> str:
    """Write the comparison as Markdown."""
    edits = sum(line["method"] == "unitune" for line in lines)
    images = len({line["example"] for line in lines})
    rows = [f"{edits} samples of {len({(line['example'], line['prompt']) for line in lines})} edits of {images} images, each method.", ""]
    rows += ["| what | tuned | untuned | tuned less untuned |", "|---|---|---|---|"]
    for metric, label in METRICS.items():
        tuned, untuned = (by_image(lines, method, metric) for method in ("unitune", "untuned"))
        if tuned and untuned:
            paired = [tuned[image] - untuned[image] for image in tuned if image in untuned]
            rows.append(f"| {label} | {with_interval([*tuned.values()])} | {with_interval([*untuned.values()])} | {with_interval(paired)} |")
    rows += ["", "| type | edits | success tuned | success untuned |", "|---|---|---|---|"]
    for kind in dict.fromkeys(line["kind"] for line in lines):
        own = [line for line in lines if line["kind"] == kind]
        shares = [np.mean([line["scores"]["success"] for line in own if line["method"] == method]) for method in ("unitune", "untuned")]
        rows.append(f"| {kind} | {len({(line['example'], line['prompt']) for line in own})} | {shares[0]:.2f} | {shares[1]:.2f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of the sweep; without it the table comes from the committed record")
    options = parser.parse_args()
    if options.runs:
        lines = [line_of(record) for record in records.merge(records.read(options.runs)) if record.row == "edit"]
        RECORD.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(table([json.loads(line) for line in RECORD.read_text().splitlines()]))


if __name__ == "__main__":
    main()
