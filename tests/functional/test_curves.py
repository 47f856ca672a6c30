import torch

from lit_backdoor.functional.curves import quadratic_bezier


def test_point_is_that_of_repeated_interpolation():
    """De Casteljau's construction."""
    start, bend, end = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    for place in (0.0, 0.1, 0.5, 1.0):
        first, second = start.lerp(bend, place), bend.lerp(end, place)
        torch.testing.assert_close(quadratic_bezier(start, bend, end, place), first.lerp(second, place))
