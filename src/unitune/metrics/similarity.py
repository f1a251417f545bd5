"""Scores of CLIP features: picture with prompt, change with change of text, picture with base.

Cosines, neither multiplied by 100 nor clamped at 0 as CLIPScore does (PIE-Bench prints 100 times
the cosine).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.metrics.batches import NAN, check_size
from unitune.metrics.card import card
from unitune.metrics.clip import ClipSource, features_of, text_features
from unitune.types import Edit, Picture

Features = Float[Tensor, "B D"]


class _ClipScore(ABC):
    """The cosine of two features of one CLIP, whose label is a part of the score's name."""

    higher_is_better = True
    kind: str
    what: str
    nan = "never"

    def __init__(self, clip: ClipSource) -> None:
        self.clip = clip.load()
        self.name = f"{self.kind}{self.clip.label}"
        self.card: Mapping[str, str] = card(self.what, nan=self.nan, **self.clip.card)

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        scores = [NAN] * len(edits)
        rows = [k for k, edit in enumerate(edits) if self._applies(edit)]
        if rows:
            a, b = self._features([edits[k] for k in rows])
            cosines = F.cosine_similarity(a, b, dim=1).clamp(-1, 1)
            # A direction of length 0 has no angle; features themselves have length 1.
            cosines[torch.minimum(a.norm(dim=1), b.norm(dim=1)) <= 1e-6] = NAN
            for k, cosine in zip(rows, cosines.tolist(), strict=True):
                scores[k] = cosine
        return scores

    def _applies(self, edit: Edit) -> bool:
        return True

    @abstractmethod
    def _features(self, edits: Sequence[Edit]) -> tuple[Features, Features]:
        """Return what is compared, of edits to which the score applies."""

    def _images(self, edits: Sequence[Edit]) -> Features:
        return features_of(self.clip, [edit.image for edit in edits])

    def _bases(self, edits: Sequence[Edit]) -> Features:
        return features_of(self.clip, [edit.example.image for edit in edits])

    def _prompts(self, edits: Sequence[Edit]) -> Features:
        return text_features(self.clip, [edit.request.prompt for edit in edits])


class Alignment(_ClipScore):
    """Cosine of the picture and the edit prompt, which is without the rare token; in [-1, 1]."""

    kind = "alignment"
    what = "cosine of image and edit prompt (not times 100, not clamped)"

    def _features(self, edits: Sequence[Edit]) -> tuple[Features, Features]:
        return self._images(edits), self._prompts(edits)


class EditedAlignment(_ClipScore):
    """Alignment of the part that the mask lets change, all else black (PIE-Bench).

    NaN without a mask or where nothing may change.
    """

    kind = "alignment_edited"
    what = (
        "cosine of edit prompt and image times mask (outside it black; not times 100, not clamped)"
    )
    nan = "no mask, or one that is 0 everywhere"

    def _applies(self, edit: Edit) -> bool:
        return edit.request.mask is not None and bool(edit.request.mask.any())

    def _features(self, edits: Sequence[Edit]) -> tuple[Features, Features]:
        parts = features_of(self.clip, [_edited_part(edit) for edit in edits])
        return parts, self._prompts(edits)


class DirectionalSimilarity(_ClipScore):
    """cos(E(I_out) - E(I_in), E(T_out) - E(T_in)), where T_in is the base image's caption.

    StyleGAN-NADA (arXiv 2108.00946), InstructPix2Pix (arXiv 2211.09800). NaN without a caption, and
    where picture or text did not change.
    """

    kind = "direction"
    what = "cosine of the change of image features and the change from caption to edit prompt"
    nan = "no caption, or no change of image or text"

    def _applies(self, edit: Edit) -> bool:
        return bool(edit.example.caption.strip())

    def _features(self, edits: Sequence[Edit]) -> tuple[Features, Features]:
        of_images = self._images(edits) - self._bases(edits)
        prompts = self._prompts(edits)
        captions = text_features(self.clip, [edit.example.caption for edit in edits])
        return of_images, prompts - captions


class ImageSimilarity(_ClipScore):
    """cos(E(I_in), E(I_out)): how much of the base image is kept, by meaning."""

    kind = "image_similarity"
    what = "cosine of edit and base image features"

    def _features(self, edits: Sequence[Edit]) -> tuple[Features, Features]:
        return self._images(edits), self._bases(edits)


def _edited_part(edit: Edit) -> Picture:
    assert edit.request.mask is not None
    check_size(edit, edit.request.mask, "mask")
    return (edit.image + 1) * edit.request.mask.to(edit.image) - 1  # 0 is black on [0, 1]
