"""What decides a claim: contrasts of groups of records, copies of the base, success, tables."""

from dataclasses import replace

import pytest
from claim_records import SCORED, copies, of_images, record
from claims.answer import markdown_table
from claims.contrasts import Claim, Contrast, matching, traits
from claims.labels import SCORES

from unitune.errors import Refused


def claim(metric: str, about: str, *, first: str = "a=1", above: float = 0.0) -> Claim:
    sign = -1 if metric == "mse_outside" else 1
    other = "a=2" if first == "a=1" else "a=1"
    return Claim("more", Contrast(metric, {first: sign, other: -sign}), about, above)


def test_a_reference_row_is_in_no_group_but_its_own():
    edit = record(weight=1.0)
    reference = record("guidance/reference=copy", method="", row="copy", weight=1.0)
    assert matching([edit, reference], "weight=1") == [edit]
    assert matching([edit, reference], "reference=copy") == [reference]
    assert matching([edit, reference], "reference=target") == []


@pytest.mark.parametrize(
    ("above", "images", "said"),
    [
        (0.0, 24, "**held** (1 [1, 1]; 24 images)"),
        (1.2, 24, "**contradicted** (1 [1, 1] against 1.2; 24 images)"),
        (0.0, 10, "**too few for a verdict** (1 [1, 1]; 10 images)"),
        (0.0, 5, "**too few for a verdict** (1; 5 images)"),
    ],
)
def test_a_claim_is_decided_by_its_interval(above, images, said):
    found = of_images("1", images, psnr=2.0) + of_images("2", images, psnr=1.0)
    number = Contrast("psnr", {"a=1": 1, "a=2": -1})(found)
    assert number["image-0"] == 1.0 and len(number) == images
    assert said in claim("psnr", "neither", above=above).decided(found)


def test_a_claim_is_undecided_or_not_asked():
    found = of_images("1", psnr=2.0)
    one = Claim("more", Contrast("psnr", {"a=1": 1}), "neither", above=2.01)
    assert "**undecided**" in one.decided(found)
    nobody = Claim("more", Contrast("psnr", {"a=3": 1}), "neither")
    assert "**not asked** (no record has a=3" in nobody.decided(found)


def test_a_claim_about_the_edit_must_beat_a_copy_too():
    better, worse = claim("alignment", "edit"), claim("alignment", "edit", first="a=2")
    found = of_images("1", alignment=0.5) + of_images("2", alignment=0.3)

    def said(one: Claim, of_copies: list) -> str:
        return one.decided(found + of_copies)

    held = "**held** (0.2 [0.2, 0.2]; 24 images; above a copy of the base by 0.41 ["
    assert held in said(better, copies(alignment=0.1))
    lost = "**contradicted** (0.2 [0.2, 0.2]; 24 images; above a copy of the base by -0.19 ["
    assert lost in said(better, copies(alignment=0.7))
    assert "**undecided** (0.2" in said(better, copies(alignment=0.51))
    few = "**too few for a verdict** (0.2"
    assert few in said(better, copies(20, alignment=0.1)), "of four images there is no copy"
    less = "**contradicted** (-0.2 [-0.2, -0.2]; 24 images; above a copy of the base by 0.21 ["
    assert less in said(worse, copies(alignment=0.1))
    assert "**not asked** (no record has reference=copy" in said(better, [])
    other = [replace(copy, prompt="another edit", scores={"alignment": 9.0}) for copy in copies()]
    assert "by 0.41" in said(better, other + copies(alignment=0.1)), "on the same edits"


def test_a_copy_has_no_direction_of_change():
    found = of_images("1", direction=0.5) + of_images("2", direction=0.3) + copies(direction=None)
    held = "**held** (0.2 [0.2, 0.2]; 24 images; above a copy of the base by 0.51 ["
    assert held in claim("direction", "edit").decided(found)


def test_progress_is_told_with_the_success_beside_it():
    found = [
        replace(one, scores=one.scores | {"base_error_inside": 0.5})
        for one in of_images("1", error_inside=0.1) + of_images("2", error_inside=0.3)
    ]
    found += copies(error_inside=0.5, base_error_inside=0.5)
    said = claim("progress", "edit").decided(found)
    assert "**held** (0.4 [0.4, 0.4]; 24 images; above a copy of the base by 0.78 [" in said
    assert said.endswith("; edit success: 0.5 of a=1, 0.5 of a=2)")
    without = [
        replace(one, scores={name: value for name, value in one.scores.items() if name != "both"})
        for one in found
    ]
    not_asked = "**not asked** (no record has the score 'both'"
    assert not_asked in claim("progress", "edit").decided(without)


@pytest.mark.parametrize(
    ("success", "said"),
    [
        (0.5, "**held** (0.2 [0.2, 0.2]; 24 images)"),
        (0.25, "**not asked** (a=1 succeeds less than a=2: 0.25 against 0.5)"),
        (0.75, "**held**"),
    ],
)
def test_a_claim_about_fidelity_is_asked_among_settings_that_succeed_as_often(success, said):
    first = [
        replace(one, scores=one.scores | {"both": success})
        for one in of_images("1", mse_outside=0.1)
    ]
    found = first + of_images("2", mse_outside=0.3)
    assert said in claim("mse_outside", "fidelity").decided(found)


KEPT = "psnr says something of what was kept, and the claim is about 'edit'"
EDITS = "both says something of the edit, and the claim is about 'neither'"
WORSE = "a=1 is named first and counts as the worse one"


@pytest.mark.parametrize(
    ("metric", "terms", "about", "said"),
    [
        ("psnr", {"a=1": 1}, "quality", "about 'quality', not one of edit, fidelity, neither"),
        ("psnr_target", {"a=1": 1}, "edit", "psnr_target is no evidence of editing"),
        ("psnr", {"a=1": 1}, "edit", KEPT),
        ("both", {"a=1": 1}, "neither", EDITS),
        ("mse_outside", {"a=1": 1, "a=2": -1}, "fidelity", WORSE),
        ("both", {"a=1": -1, "a=2": 1}, "edit", WORSE),
    ],
)
def test_claims_that_say_nothing_are_refused(metric, terms, about, said):
    with pytest.raises(Refused, match=said):
        Claim("more", Contrast(metric, terms), about)


def test_a_number_without_groups_is_about_neither():
    with pytest.raises(Refused, match="a claim about edit needs a Contrast"):
        Claim("more", lambda found: {}, "edit")


def test_a_success_that_never_comes_is_no_certainty():
    """Rates of 24 images that all fail are bounded: two methods are not told to be alike."""
    found = [replace(one, scores={"both": 0.0}) for one in of_images("1") + of_images("2")]
    said = claim("both", "edit", above=-0.05).decided(found + copies())
    assert (
        "**undecided** (0 [-0.151, 0.151] against -0.05; 24 images; "
        "above a copy of the base by 0 [-0.151, 0.151]"
    ) in said


def test_images_without_a_group_are_left_out():
    found = [
        record(f"x/a={k}", image, kind)
        for image, kind in (("one", "add"), ("two", "restyle"))
        for k in (1, 2)
    ]
    assert Contrast("psnr", {"kind=add,a=1": 1, "kind=add,a=2": -1})(found) == {"one": 0.0}
    assert Contrast("psnr", {"local=no,a=1": 1})(found) == {"two": 0.5}
    assert [traits(record(kind=kind))["local"] for kind in ("add", "time")] == ["yes", "no"]


def test_references_are_of_the_edits_that_they_stand_below():
    """Edits that some rows lack and doubled references do not shift what rows are held against."""
    level = {"add": 0.9, "restyle": 0.1}
    found = [
        record(f"x/a={k}", kind=kind)
        for k, kinds in ((1, ("add", "restyle")), (2, ("add",)), (3, ("add",)))
        for kind in kinds
    ]
    of_base = [
        record("x/reference=copy", kind=kind, method="", row="copy", scores={"psnr": level[kind]})
        for kind in level
    ]
    how = {"scores": {"psnr": "dB"}, "costs": {}}
    rows = {"one": "a=1", "two": "a=2", "three": "a=3"}
    said = markdown_table([*found, *of_base, *of_base], rows, **how).splitlines()[2:]
    copy = "copy of the base of these edits"
    assert said == [
        "| one | 2 | 0.5 |",
        f"| {copy} | 2 | 0.5 |",
        "| two | 1 | 0.5 |",
        "| three | 1 | 0.5 |",
        f"| {copy} | 1 | 0.9 |",
    ]
    alone = markdown_table([*found[:2], *of_base], {"one": "a=1"}, **how)
    assert alone.endswith("| copy of the base | 2 | 0.5 |")


@pytest.mark.parametrize(
    ("second", "scores", "costs", "said"),
    [
        ({"scores": SCORED | {"both": None}}, SCORES, {}, "Edit success goes over 1 of 2 edits"),
        (
            {"environment": {"threads": 2}},
            {},
            {"sampling s": "s"},
            "Seconds are of 1 and 2 threads",
        ),
    ],
)
def test_a_table_says_what_its_numbers_do_not_share(second, scores, costs, said):
    first = replace(record(kind="add"), environment={"threads": 1})
    found = [first, replace(first, kind="restyle", prompt="restyle image-0", **second)]
    rows = {"one": "snapshot=64"}
    told = [markdown_table(some, rows, scores=scores, costs=costs) for some in (found, found[:1])]
    assert [said in text for text in told] == [True, False]
