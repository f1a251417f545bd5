"""What was read from an entry stays as it was when the entry goes, or its file changes."""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from unitune.diffusion.sampling import SuperResolution
from unitune.methods.imagic import Imagic
from unitune.methods.unitune import UniTune
from unitune.models import tiny
from unitune.models.cascade import Cascade
from unitune.models.text import T5, EncoderStorage
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.tuning.class_images import ClassImages
from unitune.tuning.recipe import Tuning
from unitune.types import Example, Request, Weights

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
TUNING = Tuning(lr=1e-2, steps=1, batch_size=1)
Read = Callable[[Cascade, Store], Weights]


class Passing(Store):
    """A store of which an entry's tensors are zeros as soon as nobody holds the entry."""

    @contextmanager
    def get_or_make(self, *about, **more):
        with super().get_or_make(*about, **more) as entry:
            yield entry
        for file in entry.glob("*.safetensors"):
            size, head = file.stat().st_size, 8 + int.from_bytes(file.read_bytes()[:8], "little")
            with file.open("r+b") as stream:
                stream.seek(head)
                stream.write(bytes(size - head))


def text(cascade: Cascade, store: Store) -> Weights:
    folder = tiny.floyd(store.path.parent / "tiny") / "base"
    storage = EncoderStorage(keep=False, store=store)
    encoder = T5(folder, torch.device("cpu"), storage=storage, identity="x")
    return {"text": encoder._stored(store, "a dog")}


def learned(cascade: Cascade, store: Store) -> Weights:
    method = Imagic(TUNING, {"base": Tuning(lr=1e-2, steps=0)}, stages=("base",))
    tuned = make.prepare(method.recipe(EXAMPLE), cascade, EXAMPLE, store=store)
    assert tuned.embedding is not None and tuned.start is not None
    return {"embedding": tuned.embedding, "start": tuned.start}


def weights(cascade: Cascade, store: Store) -> Weights:
    recipe = UniTune({"base": TUNING}, stages=("base",)).recipe(EXAMPLE)
    return make.prepare(recipe, cascade, EXAMPLE, store=store).weights["base"]


def class_images(cascade: Cascade, store: Store) -> Weights:
    images = ClassImages(count=2, steps=1, sr=SuperResolution(steps=1))
    return images.pictures(cascade, "a cat", stages=["base"], store=store, seed=0)[0]


@pytest.mark.parametrize("read", [text, learned, weights, class_images])
def test_what_was_read_does_not_go_with_the_entry(cascade, tmp_path: Path, read: Read):
    wanted = read(cascade, Store(tmp_path / "one" / "store"))
    found = read(cascade, Passing(tmp_path / "two" / "store"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
