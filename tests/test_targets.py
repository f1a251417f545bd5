"""Which classes a config may name."""

import pytest

from unitune.cli.targets import MOVED, check_targets
from unitune.errors import Refused

HOSTILE = [
    "os.system",
    "os.remove",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "subprocess.run",
    "subprocess.Popen",
    "subprocess.check_output",
    "joblib.load",
    "pandas.read_pickle",
    "numpy.load",
    "torch.load",
    "pickle.loads",
    "importlib.import_module",
    "shutil.rmtree",
    "runpy.run_path",
    "logging.os.system",
    "unitune.images.os.system",
    "unitune.storage.store.shutil.rmtree",
    "unitune.storage.store.os.remove",
    "unitune.storage.store._delete",
    "unitune.images.save_png",
    "unitune.runs.experiment.Path",
    "unitune.types.Protocol",
    "unitune.missing.Name",
    "unitune.storage.store.Missing",
    "unitune.",
    "unitune",
    "unitunes.store.Store",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.loggers.wandb.os.system",
    "pytorch_lightning.loggers.logger.rank_zero_only",
    "os",
]


@pytest.mark.parametrize("target", [*HOSTILE, "", 5])
def test_targets_of_others_are_refused(target):
    for tree in ({"_target_": target}, {"a": [{"b": {"_target_": target, "_args_": ["touch x"]}}]}):
        with pytest.raises(
            Refused, match=r"allowed are classes of unitune and pytorch_lightning\.loggers"
        ):
            check_targets(tree)


def test_own_classes_are_allowed():
    check_targets(
        {
            "a": [{"_target_": "unitune.storage.store.Store"}],
            "b": {"_target_": "pytorch_lightning.loggers.CSVLogger"},
            "c": None,
            "d": "os.system",
        }
    )


# What conf/ named before the modules moved into rooms; each is still allowed or has a new name.
EARLIER = """
backends.clipseg.ClipSeg benchmarks.manifest.Folder benchmarks.manifest.Picture
benchmarks.pie.PIEBench benchmarks.scenes.Drawn benchmarks.tedbench.TEdBench
diffusion.blend.Interpolation diffusion.guidance.Guidance diffusion.sampler.Sampler
diffusion.sampling.SuperResolution diffusion.steps.DDIM diffusion.steps.DDPM diffusion.texts.Mix
loggers.Csv loggers.TensorBoard loggers.Wandb masks.attention.Attention masks.sources.DiffEdit
masks.sources.Difference masks.sources.Given masks.words.Words methods.dreambooth.DreamBooth
methods.imagic.Imagic methods.textual_inversion.TextualInversion methods.unitune.UniTune
methods.untuned.Untuned metrics.clip.Pocket metrics.lpips.LPIPS metrics.lpips.UneditedLPIPS
metrics.perceptual.STLPIPS metrics.pixel.BaseErrorInsideMask metrics.pixel.ErrorInsideMask
metrics.pixel.MSE metrics.pixel.MSEOutsideMask metrics.pixel.PSNR metrics.pixel.SSIM
metrics.pixel.TargetPSNR metrics.pixel.UneditedMSE metrics.pixel.UneditedPSNR
metrics.pixel.UneditedSSIM metrics.similarity.Alignment metrics.similarity.DirectionalSimilarity
metrics.similarity.EditedAlignment metrics.similarity.ImageSimilarity metrics.stock_clip.Stock
metrics.structure.StructureDistance metrics.success.BaseSuccess metrics.success.EditSuccess
plans.Dials plans.Seeds prompt_to_prompt.control.LocalBlend prompt_to_prompt.control.PromptToPrompt
selection.Best selection.Gate store.Store tuning.adapters.Full tuning.adapters.Lora
tuning.class_images.ClassImages tuning.finetune.Tuning tuning.optimizers.Adafactor
tuning.optimizers.AdamW tuning.select.Selection
"""


@pytest.mark.parametrize("name", [f"unitune.{name}" for name in EARLIER.split()])
def test_targets_of_earlier_configs_are_allowed_or_told_their_new_name(name):
    try:
        check_targets({"_target_": name})
    except Refused as refused:
        assert f"{name!r} is of an earlier version; its name is now {MOVED[name]}:" in str(refused)
        check_targets({"_target_": MOVED[name]})
