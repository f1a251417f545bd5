"""What the scoring networks learn: the judge reads facts, the pocket CLIP matches pictures and captions; and how good both are on unseen scenes."""

from collections import deque
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from transformers import T5Tokenizer

from unitune.metrics.clip import Clip, build_clip, image_features, save_clip, text_features, tokens
from unitune.metrics.judge import Judge, save_judge
from unitune.pretrain import networks
from unitune.pretrain.data import STYLE, Batch, SceneBatches
from unitune.pretrain.tasks import fact_loss, pixels
from unitune.scenes import Scene, caption, random_scene, render
from unitune.scenes.vocabulary import COLOURFUL, NOUNS, PLACES, article

RECENT = 8  # batches from which the statistics of batch normalisation are taken anew at an export


def augment(image: Float[Tensor, "B 3 H W"], generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
    """Make clean renders look a little like samples: brightness and contrast jitter for all, slight blur for a quarter, noise for half."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand((len(image), 1, 1, 1), generator=generator, device=image.device) * (high - low) + low

    side = image.shape[-1]
    smaller = int(torch.randint(side * 5 // 8, side * 7 // 8, (), generator=generator, device=image.device))
    blurred = F.interpolate(F.interpolate(image, (smaller, smaller), mode="area"), image.shape[-2:], mode="bilinear", align_corners=False)
    x = torch.where(uniform(0.0, 1.0) < 0.25, blurred, image) * uniform(0.88, 1.12) + uniform(-0.12, 0.12)
    sigma = uniform(-0.12, 0.12).clamp(min=0)
    return (x + sigma * torch.randn(image.shape, generator=generator, device=image.device)).clamp(-1, 1)


def refresh_statistics(network: nn.Module, pictures: deque[Tensor]) -> None:
    """Measure batch normalisation's means and variances under the present (averaged) weights, from recent pictures; the mode is kept."""
    if pictures:
        update_bn(list(pictures), network)


class JudgeTask:
    """The judge learns the facts of lightly damaged renders."""

    size = 64
    tokenizer = None

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.network = Judge().to(device)
        self.generator = torch.Generator(device)
        self.recent: deque[Tensor] = deque(maxlen=RECENT)

    def loss(self, batch: Batch, resolution: int) -> Tensor:
        """Cross entropies of all facts."""
        assert batch.image is not None
        x = augment(pixels(batch.image, self.device), self.generator)
        self.recent.append(x)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(x.contiguous(memory_format=torch.channels_last))
        return fact_loss({name: value.float() for name, value in logits.items()}, batch)

    def export(self, folder: Path) -> None:
        """Write the judge."""
        refresh_statistics(self.network, self.recent)
        save_judge(self.network, folder)


class ClipTask:
    """The pocket CLIP learns which caption of the batch belongs to which picture (InfoNCE both ways, arXiv 2103.00020)."""

    size = 64

    def __init__(self, device: torch.device, *, text_folder: Path) -> None:
        self.device = device
        self.tokenizer = T5Tokenizer.from_pretrained(text_folder / "tokenizer")
        self.clip = build_clip(self.tokenizer)
        self.network = self.clip.network.to(device)
        self.generator = torch.Generator(device)
        self.words = set(networks.vocabulary())
        self.recent: deque[Tensor] = deque(maxlen=RECENT)

    def clean(self, text: str) -> str:
        """Take the rare word off a training caption; empty where nothing else is in it."""
        return " ".join(word for word in text.split() if word.strip(",") in self.words)

    def loss(self, batch: Batch, resolution: int) -> Tensor:
        """Symmetric cross entropy of the cosines times the learned scale; pictures without a caption are left out."""
        assert batch.image is not None
        captions = [self.clean(text) for text in batch.captions]
        kept = [k for k, text in enumerate(captions) if text]
        x = pixels(batch.image[kept], self.device)
        self.recent.append(x)
        with torch.autocast(self.device.type, torch.bfloat16):
            pictures = self.network.encode_image(x.contiguous(memory_format=torch.channels_last))
            texts = self.network.encode_text(tokens(self.clip, [captions[k] for k in kept]).to(self.device))
        cosines = F.normalize(pictures.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
        logits = cosines * self.network.logit_scale.exp().clamp(max=100)
        right = torch.arange(len(kept), device=self.device)
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2

    def export(self, folder: Path) -> None:
        """Write the CLIP with its tokenizer."""
        refresh_statistics(self.network.visual, self.recent)
        save_clip(self.clip, folder)


@torch.no_grad()
def evaluate_judge(network: Judge, *, count: int, seed: int) -> dict[str, float]:
    """Measure the judge on `count` clean renders of compositions it never saw: shares of right answers by fact.

    `nouns_exact` asks for the whole set of nouns; `noun_single` only whether the one object of one-object scenes is seen; `colours` for the whole set of
    colours of coloured styles; `side` whether an object that stands clearly left or right is told to.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    right: dict[str, list[Tensor]] = {name: [] for name in ("nouns_exact", "noun_single", "colours", "side", "place", "time", "style", "count")}
    colourful = torch.tensor([STYLE[style] for style in COLOURFUL])
    stream = SceneBatches(seed=seed, batch_size=min(64, count), size=64, held_out=True)
    for k in range(-(-count // stream.batch_size)):
        batch = stream.batch(k)
        assert batch.image is not None
        logits = {name: value.cpu() for name, value in network(pixels(batch.image, device)).items()}
        found, there = logits["nouns"] > 0, batch.nouns > 0
        right["nouns_exact"].append((found == there).all(dim=1))
        right["colours"].append(((logits["colours"] > 0) == (batch.colours.amax(dim=1) > 0)).all(dim=1)[torch.isin(batch.style, colourful)])
        right["side"].append(((logits["side"] > 0) == (batch.side > 0))[batch.side >= 0])
        right["noun_single"].append((found & there).any(dim=1)[batch.count == 0])
        for name in ("place", "time", "style", "count"):
            right[name].append(logits[name].argmax(dim=1) == getattr(batch, name))
    network.train(was_training)
    return {name: float(torch.cat(values)[:count].float().mean()) for name, values in right.items()}


def _pictures(scenes: list[Scene]) -> Float[Tensor, "B 3 64 64"]:
    return pixels(torch.from_numpy(np.stack([render(s, 64)[0] for s in scenes])).permute(0, 3, 1, 2), torch.device("cpu"))


def evaluate_clip(clip: Clip, *, count: int, seed: int, choices: int = 16) -> dict[str, float]:
    """Measure a pocket CLIP without training it further, on `count` compositions it never saw.

    `caption_of_16`: the right one among 16 captions of other unseen scenes (chance 0.06); `noun`: the object of one-object scenes among all nouns,
    the text features averaged over places.
    """
    clip.network.eval()
    rng = np.random.default_rng([seed, 1])
    scenes = [random_scene(rng, held_out=True) for _ in range(-(-count // choices) * choices)]
    captions = [caption(s, rng) for s in scenes]
    pictures, texts = (x.unflatten(0, (-1, choices)) for x in (image_features(clip, _pictures(scenes)), text_features(clip, captions)))
    chosen = [captions[k // choices * choices + int(pick)] for k, pick in enumerate((pictures @ texts.mT).argmax(dim=2).flatten())]
    nouns = text_features(clip, [f"{article(n)} {n} {phrases[0]}" for n in NOUNS for phrases in PLACES.values()]).unflatten(0, (len(NOUNS), -1)).mean(dim=1)
    singles = [random_scene(rng, held_out=True, counts=(1.0,)) for _ in range(count)]
    picks = (image_features(clip, _pictures(singles)) @ F.normalize(nouns, dim=-1).T).argmax(dim=1)
    names = list(NOUNS)
    return {
        f"caption_of_{choices}": float(np.mean([a == b for a, b in zip(chosen, captions, strict=True)])),
        "noun": float(np.mean([names[int(k)] == s.objects[0].noun for k, s in zip(picks, singles, strict=True)])),
    }
