"""Edit success: whether the judge finds what an edit was asked to bring about and to keep.

An edit counts where its number can tell something. It is not feasible where the judge finds all of
its facts on the base image already, so that a copy would succeed, or misses one of them on the
exact target, so that the right answer would fail. No picture has a number for such an edit.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from unitune.metrics.batches import NAN
from unitune.metrics.card import card
from unitune.metrics.judge import (
    LISTS,
    SETS,
    SIZE,
    Judge,
    found,
    read_card,
    read_facts,
    reduced,
    shared_judge,
)
from unitune.metrics.statistics import OF_BASE
from unitune.scenes.scene import MAX_OBJECTS
from unitune.types import Edit, Picture, Refused, Request

Facts = Mapping[str, Any]
# A column: what is asked for in words, and which facts of a request that is.
COLUMNS: Mapping[str, tuple[str, Callable[[Request], Facts]]] = {
    "appear": ("every fact that must appear", attrgetter("appear")),
    "stay": ("every fact that must stay", attrgetter("stay")),
    "both": (
        "all facts of the request, those that must appear and those that must stay",
        attrgetter("facts"),
    ),
}


class EditSuccess:
    """1 when the judge finds the facts of one column, "appear", "stay" or "both", else 0.

    NaN without such facts and where the edit is not feasible. Nouns not asked for do not count
    against it.
    """

    higher_is_better = True

    def __init__(self, folder: str | Path, column: str = "both") -> None:
        if column not in COLUMNS:
            raise Refused(f"column={column!r} of the edit success; allowed: {', '.join(COLUMNS)}")
        self.judge, self.name = shared_judge(folder), column
        what, self.facts = COLUMNS[column]
        self.card: Mapping[str, str] = card(
            f"1 when the judge finds {what}, else 0",
            backbone="judge of the scenes world, a residual network trained on its renders",
            preprocessing="[-1, 1]; a noun is present above probability 0.5",
            resize=f"area-reduced to {SIZE} px",
            nan="a request without such facts; an edit that is not feasible, whatever picture is "
            "judged: one whose facts the judge finds all on the base image, or does not find all "
            "on the exact target",
            version="weights of the folder",
            more={f"held-out {name}": value for name, value in read_card(Path(folder)).items()},
        )

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits; a fact that the judge was never taught is refused."""
        why = obstacles(self.judge, [(e.example.image, e.request) for e in edits])
        counted = [k for k, edit in enumerate(edits) if self.facts(edit.request) and not why[k]]
        seen = _read(self.judge, [edits[k].image for k in counted])
        values = [NAN] * len(edits)
        for k in counted:
            values[k] = float(found(self.facts(edits[k].request), seen[id(edits[k].image)]))
        return values

    def check(self, request: Request) -> None:
        """Refuse facts that the judge does not read, and parts of facts that are none of them."""
        check_facts(self.judge, request)


class BaseSuccess(EditSuccess):
    """1 when the judge finds all facts of the request on the base image already, else 0.

    NaN without facts. Beside an edit success that has no number it tells why: no facts (NaN), a
    copy of the base succeeds (1), the judge fails the exact target (0).
    """

    higher_is_better = False

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.name = OF_BASE
        self.card = {
            **self.card,
            "what": f"1 when the judge finds {COLUMNS['both'][0]}, on the base image, else 0",
            "nan": "a request without facts",
        }

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score the base images of edits."""
        seen = _read(self.judge, [edit.example.image for edit in edits])
        return [
            float(found(e.request.facts, seen[id(e.example.image)])) if e.request.facts else NAN
            for e in edits
        ]


def obstacles(judge: Judge, asked: Sequence[tuple[Picture, Request]]) -> list[str]:
    """Say for each base image and request why its edit success cannot be measured, "" where it can.

    "facts": there are none. "copy": the judge finds all facts on the base image. "target": it does
    not find all of them on the exact target. Each picture is read once.
    """
    for _, request in asked:
        check_facts(judge, request)
    bases = [base for base, request in asked if request.facts]
    targets = [request.target for _, request in asked if request.facts]
    seen = _read(judge, [*bases, *(target for target in targets if target is not None)])

    def obstacle(base: Picture, request: Request) -> str:
        facts, target = request.facts, request.target
        if not facts:
            return "facts"
        if found(facts, seen[id(base)]):
            return "copy"
        return "" if target is None or found(facts, seen[id(target)]) else "target"

    return [obstacle(base, request) for base, request in asked]


def _read(judge: Judge, pictures: Sequence[Picture]) -> dict[int, Facts]:
    """Read pictures of any sizes, each once; return the facts by the picture's id()."""
    each = {id(picture): picture for picture in pictures}
    if not each:
        return {}
    small = torch.cat([reduced(picture.float().cpu(), SIZE) for picture in each.values()])
    return dict(zip(each, read_facts(judge, small), strict=True))


def check_facts(judge: Judge, request: Request) -> None:
    """Refuse facts that the judge does not read, and what is to appear or stay without them."""
    allowed: dict[str, Sequence[object]] = {**judge.vocabulary, "count": range(1, MAX_OBJECTS + 1)}
    allowed["order"] = allowed["nouns"]
    for name, value in request.facts.items():
        if name not in allowed:
            raise Refused(
                f"unknown fact {name!r} in a request; the judge reads: {', '.join(allowed)}"
            )
        words: Any = value if name in LISTS else [value]
        if not _is_list(words):
            raise Refused(
                f"fact {name}={value!r} is not a list; "
                f"write e.g. {name}: [{allowed[name][0]}, {allowed[name][1]}]"
            )
        for word in words:
            if word not in allowed[name]:
                raise Refused(
                    f"unknown {name} {word!r} in a request's facts; "
                    f"the judge knows: {', '.join(map(str, allowed[name]))}"
                )
    for part, given in (("appear", request.appear), ("stay", request.stay)):
        lacking = {k: value for k, value in given.items() if not _holds(request.facts, k, value)}
        if lacking:
            held = f"hold {dict(request.facts)}" if request.facts else "are empty"
            raise Refused(
                f"{request.prompt!r}: {part} asks for {lacking}, but the request's facts {held}; "
                f"{part} may name only what facts names too: add it there, or take it out of {part}"
            )


def _holds(facts: Facts, name: str, value: Any) -> bool:
    """Say whether a fact is one of `facts`; of nouns and colours, whether each word is there."""
    if name in SETS and name in facts:
        return _is_list(value) and all(word in facts[name] for word in value)
    return name in facts and facts[name] == value


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
