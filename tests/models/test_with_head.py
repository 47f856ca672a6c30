import pytest
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import ConvEncoder, Encoder, WithHead

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Embedding(Encoder):
    def __init__(self, dims=2):
        super().__init__()
        self.dims = dims
        self.layer = torch.nn.Linear(3, 5)

    def forward(self, images):
        vector = self.layer(images.mean((2, 3)))
        return vector if self.dims == 2 else vector[:, None]


@pytest.mark.parametrize("encoder", [lambda: ConvEncoder(6), lambda: Embedding()])
def test_split_layers_and_bundle(encoder, tmp_path):
    made = WithHead(encoder(), num_classes=4, input_size=16).eval()
    logits = made(IMAGES)
    assert logits.shape == (3, 4)
    assert torch.equal(made.head(made.features(IMAGES)), logits)
    assert made.final_linear_name == "fc"
    assert torch.equal(made.taps(IMAGES, ["encoder"])["encoder"], made.features(IMAGES))
    if isinstance(made.net.encoder, ConvEncoder):
        save_bundle(tmp_path / "a", kind="suspect", module=made)
        assert torch.equal(open_bundle(tmp_path / "a").build()(IMAGES), logits)


def test_head_is_one_linear_layer_on_the_pooled_maps():
    made = WithHead(ConvEncoder(6), num_classes=4, input_size=16)
    pooled = made.net.encoder(IMAGES).mean((2, 3))
    torch.testing.assert_close(made(IMAGES), pooled @ made.net.fc.weight.T + made.net.fc.bias)


def test_other_outputs_are_refused():
    with pytest.raises(ValueError, match=r"embeddings \[B, D\], got \[1, 1, 5\]"):
        WithHead(Embedding(dims=3))
