"""DeepFloyd IF and Stable Diffusion as a person meets them, on tiny folders of these classes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer
from safetensors.torch import load_file
from test_run import SMALL, entries, rows, runs
from transformers import T5EncoderModel

from unitune.models import tiny
from unitune.runs import experiment

BRIEF = [setting for setting in SMALL if not setting.startswith("method")]
MODELS = ["if_m", "sd15", "sd21"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {
        "if_m": tiny.floyd(folder / "if"),
        "sd15": tiny.sd15(folder / "sd15"),
        "sd21": tiny.sd21(folder / "sd21"),
    }
    return made


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> list[str]:
    return [
        f"model={request.param}",
        f"model.path={folders[request.param]}",
        "machine.precision=fp32",
        *BRIEF,
    ]


def test_tuned_edited_and_scored(typed: Callable[..., Answer], here: Path, model: list[str]):
    pixel = "{_target_: unitune.metrics.pixel."
    chosen = f"metrics.use=[{pixel}PSNR}},{pixel}SSIM}}]"
    answer = typed(*model, "edit=['a dog','a cat at night']", chosen)
    assert answer.code == 0, answer.err
    (run,) = runs(here)
    stages = 2 if model[0] == "model=if_m" else 1
    assert answer.count("tuned base") == 1 and answer.count("tuned sr256") == stages - 1
    edits = rows(run)
    assert [line["prompt"] for line in edits] == ["a dog", "a cat at night"] and all(
        line["model"] == model[0].partition("=")[2] for line in edits
    )
    assert (
        all({"psnr", "ssim"} <= set(line["scores"]) for line in edits)
        and (run / "grid.png").is_file()
    )
    again = typed("--config-name", "score", f"runs={run}", chosen)
    assert again.code == 0, again.err
    assert [line["scores"]["ssim"] for line in rows(run)[2:]] == pytest.approx(
        [line["scores"]["ssim"] for line in edits], abs=0.02
    )  # eight bits
    assert typed(*model, "edit=a bird", "sampler=cfg").count("tuned ") == 0


def test_stopped_in_the_middle_and_resumed_to_the_same_weights(
    typed: Callable[..., Answer], here: Path, model: list[str], monkeypatch: pytest.MonkeyPatch
):
    command = [*model, "edit=a dog", "steps=3", "stage=base", "snapshots=[]"]
    report = experiment._report

    def stopping(*arguments):
        shown = report(*arguments)

        def at_step(stage: str, done: int, total: int, loss: float) -> None:
            shown(stage, done, total, loss)
            if done == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        return at_step

    monkeypatch.setattr(experiment, "_report", stopping)
    stopped = typed(*command)
    assert stopped.code == 143 and not entries(here) and not runs(here)
    monkeypatch.setattr(experiment, "_report", report)
    assert typed(*command).code == 0 and typed(*command, "store.path=other").code == 0
    (resumed,), (undisturbed,) = (
        list((here / name).glob("tuned-*/base-3.safetensors")) for name in ("store", "other")
    )
    assert resumed.read_bytes() == undisturbed.read_bytes() and len(load_file(resumed)) > 50


@pytest.mark.parametrize("name", ["if_l", "sd15"])
def test_a_hub_model_without_network_is_refused(
    typed: Callable[..., Answer], here: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "cache"))
    answer = typed(f"model={name}", *BRIEF, "edit=a dog")
    (line,) = [line for line in answer.err.splitlines() if line.startswith("unitune: ")]
    repo = {"if_l": "DeepFloyd/IF-I-L-v1.0", "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5"}[
        name
    ]
    assert (
        answer.code == 2
        and repo in line
        and "accept the licence" in line
        and "model.path" in line
        and "loading" not in answer.err
    )
    assert not runs(here) and not (here / "outputs").exists()


def test_what_a_model_lacks_is_refused(
    typed: Callable[..., Answer], here: Path, folders: dict[str, Path]
):
    sd = ["model=sd15", f"model.path={folders['sd15']}", *BRIEF, "edit=a dog"]
    for bad, said in (
        ([*sd, "stage=sr256"], "sd15 has no stage sr256 to tune; it has base"),
        (["model=if_m", f"model.path={folders['sd15']}", *BRIEF, "edit=a dog"], "base has no unet"),
        ([*sd, "sampler.guidance.rescale=1.5"], "guidance.rescale must be in [0, 1]"),
        ([*sd, "model.weights=int8"], "model.weights must be fp32 or machine"),
    ):
        answer = typed(*bad)
        (line,) = [line for line in answer.err.splitlines() if line.startswith("unitune: ")]
        assert answer.code == 2 and said in line, answer.err
        assert not runs(here) and "loading" not in answer.err


def test_t5_is_read_once_for_a_run_and_never_for_known_texts(
    typed: Callable[..., Answer],
    here: Path,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
):
    reads: list[Path] = []
    real = T5EncoderModel.from_pretrained
    monkeypatch.setattr(
        T5EncoderModel,
        "from_pretrained",
        # None: the class is asked for its shape, before anything is read.
        lambda folder, **more: (folder and reads.append(folder)) or real(folder, **more),
    )
    command = [
        "model=if_m",
        f"model.path={folders['if_m']}",
        "machine.precision=fp32",
        *BRIEF,
        "edit=['a dog','a cat']",
    ]
    first = typed(*command)
    assert first.code == 0 and len(reads) == 1, first.err
    kept = sorted((here / "store").glob("embedding-*/embedding.safetensors"))
    # The rare token, both prompts with it, the empty text; to compare, another rare word and the
    # prompts alone.
    assert len(kept) == 7
    second = typed(*command, "seed=1")
    assert second.code == 0 and len(reads) == 1 and second.count("reading the text encoder") == 0
    assert typed(*command, "edit=a bird").code == 0 and len(reads) == 2
