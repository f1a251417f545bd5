"""Scores of CLIP features, for the pocket CLIP and for stock models alike: picture with prompt, change with change of text, picture with base image.

Cosines, neither multiplied by 100 nor clamped at 0 as CLIPScore does (PIE-Bench prints 100 times the cosine).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.metrics.batches import check_size
from unitune.metrics.card import card
from unitune.metrics.clip import Source, features_of, text_features
from unitune.types import Edit

NAN = float("nan")


def _cosine(a: Float[Tensor, "B D"], b: Float[Tensor, "B D"]) -> list[float]:
    return F.cosine_similarity(a, b, dim=1).clamp(-1, 1).tolist()


def _texts(edits: Sequence[Edit]) -> list[str]:
    return [edit.request.prompt for edit in edits]


class Alignment:
    """Cosine of the picture's and the edit prompt's features, in [-1, 1]; the prompt without the rare token."""

    higher_is_better = True

    def __init__(self, clip: Source) -> None:
        self.clip = clip.load()
        self.name = f"alignment{self.clip.label}"
        self.card: Mapping[str, str] = card(
            "cosine of image and edit prompt (not times 100, not clamped)",
            **self.clip.card,
            more=self.clip.accuracy,
        )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return (
            _cosine(
                features_of(self.clip, [e.image for e in edits]),
                text_features(self.clip, _texts(edits)),
            )
            if edits
            else []
        )


class EditedAlignment:
    """Alignment of the part that the mask lets change, all else black: PIE-Bench's score of the edited part. NaN without a mask or where nothing may change."""

    higher_is_better = True

    def __init__(self, clip: Source) -> None:
        self.clip = clip.load()
        self.name = f"alignment_edited{self.clip.label}"
        what = "cosine of edit prompt and image times mask (outside it black; not times 100, not clamped)"
        self.card: Mapping[str, str] = card(
            what,
            nan="no mask, or one that is 0 everywhere",
            **self.clip.card,
            more=self.clip.accuracy,
        )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        scores = [NAN] * len(edits)
        rows = [
            k
            for k, edit in enumerate(edits)
            if edit.request.mask is not None and bool(edit.request.mask.any())
        ]
        if rows:
            parts = features_of(self.clip, [self._part(edits[k]) for k in rows])
            for k, score in zip(
                rows,
                _cosine(parts, text_features(self.clip, _texts([edits[k] for k in rows]))),
                strict=True,
            ):
                scores[k] = score
        return scores

    def _part(self, edit: Edit) -> Tensor:
        assert edit.request.mask is not None
        check_size(edit, edit.request.mask, "mask")
        return (edit.image + 1) * edit.request.mask.to(edit.image) - 1  # 0 is black on [0, 1]


class DirectionalSimilarity:
    """cos(E(I_out) - E(I_in), E(T_out) - E(T_in)), T_in the base image's caption (StyleGAN-NADA, arXiv 2108.00946; InstructPix2Pix, arXiv 2211.09800).

    NaN without a caption, and where picture or text did not change: a direction of length 0 has no angle.
    """

    higher_is_better = True

    def __init__(self, clip: Source) -> None:
        self.clip = clip.load()
        self.name = f"direction{self.clip.label}"
        what = "cosine of the change of image features and the change from caption to edit prompt"
        self.card: Mapping[str, str] = card(
            what,
            nan="no caption, or no change of image or text",
            **self.clip.card,
            more=self.clip.accuracy,
        )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        scores = [NAN] * len(edits)
        rows = [k for k, edit in enumerate(edits) if edit.example.caption.strip()]
        if not rows:
            return scores
        chosen = [edits[k] for k in rows]
        of_images = features_of(self.clip, [e.image for e in chosen]) - features_of(
            self.clip, [e.example.image for e in chosen]
        )
        of_texts = text_features(self.clip, _texts(chosen)) - text_features(
            self.clip, [e.example.caption for e in chosen]
        )
        moved = torch.minimum(of_images.norm(dim=1), of_texts.norm(dim=1)) > 1e-6
        for k, score, is_moved in zip(
            rows, _cosine(of_images, of_texts), moved.tolist(), strict=True
        ):
            scores[k] = score if is_moved else NAN
        return scores


class ImageSimilarity:
    """cos(E(I_in), E(I_out)): how much of the base image is kept, by meaning."""

    higher_is_better = True

    def __init__(self, clip: Source) -> None:
        self.clip = clip.load()
        self.name = f"image_similarity{self.clip.label}"
        self.card: Mapping[str, str] = card(
            "cosine of edit and base image features", **self.clip.card, more=self.clip.accuracy
        )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return (
            _cosine(
                features_of(self.clip, [e.image for e in edits]),
                features_of(self.clip, [e.example.image for e in edits]),
            )
            if edits
            else []
        )
