"""Plans: which samples are drawn, and how a grid shows them."""

import math

import pytest
from small_run import example, picture

from unitune.runs.plans import Dials, Seeds
from unitune.types import Edit, Refused, Request


def test_seeds_are_in_order_and_another_run_takes_others():
    requests = (Request("a"), Request("b"))
    first, second = (Seeds(3).draws(example("x", *requests), seed) for seed in (0, 1))
    assert [(draw.request.prompt, draw.seed) for draw in first] == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 1),
        ("b", 2),
    ]
    assert not {draw.seed for draw in first} & {draw.seed for draw in second}
    for count in (0, -1, 1.5):
        with pytest.raises(Refused, match="seeds must be"):
            Seeds(count)


def test_dials_are_all_pairs_of_one_request():
    draws = Dials((2, 4), (0.8, 1)).draws(example(), 7)
    assert [(draw.weight, draw.start) for draw in draws] == [
        (2.0, 0.8),
        (2.0, 1.0),
        (4.0, 0.8),
        (4.0, 1.0),
    ]
    assert {draw.request.prompt for draw in draws} == {"a dog"} and {
        draw.seed for draw in draws
    } == {7}
    edits = [
        Edit(example(), draw.request, 7, draw.weight or 0, draw.start or 0, "", picture(0))
        for draw in draws
    ]
    layout = Dials((2, 4), (0.8, 1)).layout(edits)
    assert {row: list(columns) for row, columns in layout.items()} == {
        "weight 2": ["start 0.8", "start 1"],
        "weight 4": ["start 0.8", "start 1"],
    }
    assert layout["weight 4"]["start 0.8"] is edits[2]


@pytest.mark.parametrize(
    ("weights", "starts", "said"),
    [
        ((math.nan,), (1.0,), "finite"),
        ((1.0,), (0.0,), "starts"),
        ((1.0,), (1.1,), "starts"),
        ((), (1.0,), "at least one"),
    ],
)
def test_dials_out_of_range_are_refused(weights, starts, said):
    with pytest.raises(Refused, match=said):
        Dials(weights, starts)
