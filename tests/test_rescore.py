"""Saved pictures are scored again as the run scored them, without a model."""

from dataclasses import replace

import pytest
import small_run
from small_run import Brightness, example, picture, run, setting

from unitune import images
from unitune.metrics.pixel import PSNR, TargetPSNR
from unitune.models.cascade import Cascade
from unitune.runs import reference_rows, rescore
from unitune.runs.plans import Seeds
from unitune.storage import records
from unitune.types import Refused, Request


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Cascade:
    return small_run.cascade(tmp_path_factory.mktemp("rescore"))


def test_scoring_again_appends_and_needs_no_model(model, tmp_store, tmp_path):
    done = run(setting(model, tmp_store, metrics=[]), [example()], tmp_path)
    again = rescore.score(tmp_path, [example()], chosen=[Brightness()])
    assert records.read(tmp_path) == [*done, *again] and [r.image for r in again] == [
        r.image for r in done
    ]
    merged = records.merge(records.read(tmp_path))
    assert len(merged) == len(done) and all(
        set(record.scores) == {"brightness"} for record in merged
    )
    third = rescore.score(tmp_path, [example()], chosen=[Brightness()])
    assert [r.scores for r in third] == [r.scores for r in again]


def test_reference_rows_are_scored_again_as_the_run_scored_them(model, tmp_store, tmp_path):
    fine = replace(example(), image=picture(0.1234567))  # no level of 8 bits
    done = run(setting(model, tmp_store, metrics=[PSNR(), TargetPSNR()]), [fine], tmp_path)
    again = rescore.score(tmp_path, [fine], chosen=[PSNR(), TargetPSNR()])
    first, second = (
        [r.scores for r in found if r.row in reference_rows.MODEL_FREE] for found in (done, again)
    )
    assert first == second and first[0]["psnr"] == 100
    made, read = (
        [r.scores for r in found if r.row in {*records.REFERENCES} - {*reference_rows.MODEL_FREE}]
        for found in (done, again)
    )
    assert len(made) == 2 and all(
        ours == pytest.approx(theirs, abs=0.01) for ours, theirs in zip(made, read, strict=True)
    ), "read from pictures of 8 bits"
    without = replace(
        fine, requests=tuple(replace(request, target=None) for request in fine.requests)
    )
    with pytest.raises(
        Refused,
        match="has the exact target of 'a cat in the snow', which cat of this benchmark lacks",
    ):
        rescore.score(tmp_path, [without], chosen=[PSNR()])


def test_a_reference_that_a_model_made_is_scored_again_from_its_picture(model, tmp_store, tmp_path):
    done = run(setting(model, tmp_store, metrics=[]), [example()], tmp_path)
    oracle = replace(done[0], row="oracle", seed=3, image="cat-oracle-000.png")
    images.save_png(picture(0.25), tmp_path / oracle.image)
    records.append(tmp_path / records.FILE, oracle)
    (again,) = [
        record
        for record in rescore.score(tmp_path, [example()], chosen=[Brightness()])
        if record.row == "oracle"
    ]
    assert (
        again.scores["brightness"] == pytest.approx(0.25, abs=1 / 255)
        and replace(again, scores={}) == oracle
    )


@pytest.mark.parametrize("other", [example("dog"), example("cat", Request("a horse"))])
def test_scoring_with_another_benchmark_is_refused(model, tmp_store, tmp_path, other):
    run(setting(model, tmp_store, plan=Seeds(1)), [example()], tmp_path)
    before = (tmp_path / records.FILE).read_bytes()
    with pytest.raises(Refused, match="lacks"):
        rescore.score(tmp_path, [other], chosen=[Brightness()])
    assert (tmp_path / records.FILE).read_bytes() == before
