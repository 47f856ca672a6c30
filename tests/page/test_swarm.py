import re

import pytest

from lit_backdoor.page.swarm import Dot, swarm


def places(svg):
    return [tuple(map(float, found)) for found in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', str(svg))]


def test_dots_are_in_order_within_the_drawing_and_do_not_cover_each_other():
    dots = [Dot(value, f"class {value}") for value in (1.0, 1.01, 1.02, 3.0, 8.0)]
    found = sorted(places(swarm(dots, 350, "axis", "alt")))
    assert len(found) == 5
    assert all(0 < x < 350 and 0 < y < 200 for x, y in found)
    gaps = [(x2 - x1) ** 2 + (y2 - y1) ** 2 for i, (x1, y1) in enumerate(found) for x2, y2 in found[i + 1 :]]
    assert min(gaps) >= 80  # 9 px across


def test_axis_is_logarithmic_where_values_differ_much():
    found = places(swarm([Dot(value, "x") for value in (0.1, 1.0, 10.0)], 350, "axis", "alt"))
    xs = sorted(x for x, _ in found)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.1)


def test_marked_dots_are_named_and_everything_is_escaped():
    text = str(swarm([Dot(1.0, "<b>", marked=True), Dot(2.0, "y"), Dot(2.0, "z")], 350, "a < b", "alt"))
    assert "<b>" not in text
    assert text.count("&lt;b&gt;</text>") == 1
    assert ">y</text>" not in text


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0, 0.0], [5.0] * 300, [0.0, 1.0]])
def test_equal_values_are_drawn_too(values):
    assert len(places(swarm([Dot(value, "x") for value in values], 350, "axis", "alt"))) == len(values)
