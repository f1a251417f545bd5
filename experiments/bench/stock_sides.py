"""The two sides of each row of stock.py: our sampler, and a stock diffusers pipeline."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.diffusion.steps import DDIM, DDPM, Step
from unitune.models import cascade as backend  # first: it makes torchvision importable
from unitune.models import machine, tiny
from unitune.models.files import Model
from unitune.types import Draw, Example, Request, Tuned

ROOT = Path(__file__).parent.parent.parent
POCKET = ROOT / "src/unitune/assets/pocket"
PROMPTS = ("a dog in the snow", "a cat on a beach", "a red car in a city", "an owl in a forest")
WEIGHT = 4.0
CPU = torch.device("cpu")
# Of the pipelines: steps as our loop does, without picture checker and watermark.
DDPM_OF_IF = {"variance_type": "fixed_small", "timestep_spacing": "trailing"}
DDIM_OF_SD = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
ABSENT = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
Timed = tuple[Callable[[], object], Any]  # what is timed, and the network that is counted


@dataclass(frozen=True)
class Size:
    """How much is sampled."""

    batch: int = 4
    steps: int = 16
    seeds: int = 4  # of each prompt, in the last row

    @property
    def prompts(self) -> list[str]:
        return list(PROMPTS[: self.batch])


@dataclass(frozen=True)
class Case:
    """One row: two ways to the same pictures; each loads a model."""

    name: str
    target: float  # of the time ratio
    ours: Callable[[Size], Timed]
    theirs: Callable[[Size], Timed]
    memory_target: float | None = 1.0


class Given:
    """A first stage that has its picture already, so that the stage above is measured alone."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
        return torch.zeros_like(x_t)


def loaded(*stages: str, dtype: torch.dtype = torch.float32) -> backend.Cascade:
    return backend.load(POCKET.name, POCKET, stages=stages, device=CPU, dtype=dtype)


def sampling(
    cascade: backend.Cascade, size: Size, step: Step, *, embedded: bool = True, **how: Any
) -> Callable[[], object]:
    """Return one call of our sampler; unless `embedded`, each call embeds its prompts."""
    blank = torch.zeros(1, 3, cascade.resolution, cascade.resolution)
    example = Example("bench", blank, tuple(map(Request, size.prompts)))
    seeds = range(1 if embedded else size.seeds)
    draws = [Draw(request, seed) for request in example.requests for seed in seeds]
    usual: dict[str, Any] = {"steps": size.steps, "max_pixels": 2**30}
    sampler = Sampler(
        "bench", template="{edit}", guidance=Guidance(WEIGHT), step=step, **(usual | how)
    )
    if embedded:
        cascade.encode([*PROMPTS, ""])

    def run() -> object:
        if not embedded:
            cascade.embeddings.clear()
        return sampler(cascade, example, tuned=Tuned(), draws=draws)

    return run


def pipeline(kind: str, folder: Path, **absent: Any) -> Any:
    """Load a stock pipeline that steps as our loop does."""
    import diffusers

    pipe: Any = getattr(diffusers, kind)
    pipe = pipe.from_pretrained(folder, local_files_only=True, **ABSENT, **absent)
    stable = kind.startswith("Stable")
    scheduler = diffusers.DDIMScheduler if stable else diffusers.DDPMScheduler
    own = DDIM_OF_SD if stable else DDPM_OF_IF
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **own)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def floyd(kind: str, stage: str) -> Any:
    return pipeline(kind, POCKET / stage, watermarker=None)


def asked(size: Size) -> dict[str, Any]:
    return {"guidance_scale": WEIGHT, "num_inference_steps": size.steps, "output_type": "pt"}


def embedded(pipe: Any, size: Size) -> dict[str, Any]:
    """Make the prompts' embeddings as an IF pipeline takes them."""
    embeds, negative = pipe.encode_prompt(
        size.prompts, do_classifier_free_guidance=True, clean_caption=False
    )
    return asked(size) | {"prompt_embeds": embeds, "negative_prompt_embeds": negative}


def ours_64(size: Size) -> Timed:
    cascade = loaded("base")
    return sampling(cascade, size, DDPM()), cascade.stages[0].network


def theirs_64(size: Size) -> Timed:
    pipe = floyd("IFPipeline", "base")
    call = embedded(pipe, size)
    return lambda: pipe(**call), pipe.unet


def ours_256(size: Size) -> Timed:
    cascade = loaded("base", "sr256")
    first, sr = cascade.stages
    cascade.stages = [Given(first), sr]
    how = SuperResolution(
        steps=size.steps, step=DDPM(), guidance=Guidance(WEIGHT), noise_level=0.25
    )
    return sampling(cascade, size, DDIM(), steps=1, sr=how), sr.network


def theirs_256(size: Size) -> Timed:
    base = floyd("IFPipeline", "base")  # as ours, both are in memory
    pipe = floyd("IFSuperResolutionPipeline", "sr256")
    call = embedded(base, size) | {"image": torch.zeros(size.batch, 3, 64, 64), "noise_level": 250}
    return lambda: (base, pipe(**call)), pipe.unet


def latent_folder() -> Path:
    return tiny.sd15(Path(tempfile.mkdtemp()) / "tiny")


def ours_latent(size: Size) -> Timed:
    model = Model("tiny", ("base",), family="stable_diffusion", path=str(latent_folder()))
    cascade = backend.build(model, device=CPU, dtype=torch.float32)
    return sampling(cascade, size, DDIM()), cascade.stages[0].network


def theirs_latent(size: Size) -> Timed:
    pipe = pipeline("StableDiffusionPipeline", latent_folder())
    embeds, negative = pipe.encode_prompt(size.prompts, "cpu", 1, True)
    call = asked(size) | {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    return lambda: pipe(**call), pipe.unet


def ours_many(size: Size, dtype: torch.dtype = torch.float32) -> Timed:
    cascade = loaded("base", dtype=dtype)
    return sampling(cascade, size, DDPM(), embedded=False), cascade.stages[0].network


def ours_many_as_shipped(size: Size) -> Timed:
    return ours_many(size, machine.precision("auto", CPU))


def theirs_many(size: Size) -> Timed:
    pipe = floyd("IFPipeline", "base")
    call = asked(size) | {"clean_caption": False}
    draws = [
        (prompt, torch.Generator().manual_seed(seed))
        for prompt in size.prompts
        for seed in range(size.seeds)
    ]
    return lambda: [pipe(text, generator=g, **call).images for text, g in draws], pipe.unet


CASES = (
    Case("sampling-64", 1.05, ours_64, theirs_64),
    Case("sampling-256", 1.05, ours_256, theirs_256),
    Case("sampling-latent", 1.05, ours_latent, theirs_latent),
    Case("4x4-in-one-call", 0.6, ours_many, theirs_many, None),
    Case("4x4-in-one-call, machine=auto", 0.6, ours_many_as_shipped, theirs_many, None),
)
