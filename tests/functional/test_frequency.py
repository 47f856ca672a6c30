import pytest
import torch
from scipy.fft import dctn, idctn

from lit_backdoor.functional.frequency import dct_matrix, low_pass


@pytest.mark.parametrize("size", [1, 7, 32])
def test_matrix_is_the_orthonormal_dct(size):
    vectors = torch.rand(3, size)
    expected = torch.from_numpy(dctn(vectors.numpy(), axes=(1,), norm="ortho"))
    torch.testing.assert_close(vectors @ dct_matrix(size).T, expected, atol=1e-5, rtol=0)


def test_low_pass_cuts_the_spectrum():
    images = torch.rand(2, 3, 16, 20)
    spectrum = dctn(images.numpy(), axes=(2, 3), norm="ortho")
    spectrum[:, :, 10:] = 0  # 65 % of 16
    spectrum[:, :, :, 13:] = 0  # of 20
    expected = torch.from_numpy(idctn(spectrum, axes=(2, 3), norm="ortho"))
    torch.testing.assert_close(low_pass(images, 0.65), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(low_pass(images, 1.0), images, atol=1e-5, rtol=0)
