"""Large-model mapping: vectors of a suspect pass through the feature space of a large pretrained model (Sec. 4.2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, cast

import timm
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.errors import check_rate, unknown
from lit_backdoor.functional.precision import full, no_autocast
from lit_backdoor.stages.base import Batch
from lit_backdoor.weights import match_keys, read_weights

__all__ = ["LinearMaps", "TeacherMapping"]


class LinearMaps(nn.Module):
    """Two 3x3 convolutions without activation: D from the suspect's maps to the teacher's, E back.

    Args:
        student: Channels of the suspect's maps.
        teacher: Channels of the teacher's maps.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.encode = nn.ConvTranspose2d(teacher, student, 3, padding=1)
        self.decode = nn.Conv2d(student, teacher, 3, padding=1)

    def loss(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Compute MSE(t, D(E(t))) + MSE(E(t), s) for maps ``[B, ., h, w]`` of the same images."""
        encoded = self.encode(teacher)
        return F.mse_loss(self.decode(encoded), teacher) + F.mse_loss(encoded, student)

    def through(self, vectors: Tensor) -> Tensor:
        """Give E(D(v)) of differences ``[B, ., h, w]``, in which the biases cancel; zero stays zero."""
        lifted = F.conv2d(vectors, self.decode.weight, padding=1)
        return F.conv_transpose2d(lifted, self.encode.weight, padding=1)


class TeacherMapping:
    """A frozen timm net as the teacher, whose maps are brought to few components and mapped to the suspect's.

    The teacher is asked once per run; then its features on the root set are kept, and it is let go. The maps are made
    anew, from the seed, whenever vectors are rebuilt.

    Deviations: steps are per image, as many as images times epochs, where the release makes one per epoch, so that its
    maps stay almost as they began; and biases cancel in both maps.

    Args:
        name: Name of the teacher in timm. Paper: DINO's ViT-B/8, ``vit_base_patch8_224.dino``.
        checkpoint: File of the teacher's weights; None for timm's initialization, or ``pretrained``.
        pretrained: Whether timm downloads its weights.
        size: Side in pixels that images are brought to; None for the suspect's. The teacher's maps must then be as
            large as the suspect's.
        components: Principal components of the teacher's features that are kept; None for all channels. Release: 64.
        images: Root images that the maps are trained on, in equal parts of each class. Release: 150.
        epochs: Epochs of the maps. Paper: 5.
        lr: Learning rate of Adam. Release: 1e-4.

    Raises:
        ValueError: If the teacher is unknown or a number is not positive; when run, if weights or maps do not fit.
    """

    def __init__(
        self,
        name: str,
        checkpoint: str | None = None,
        pretrained: bool = False,
        size: int | None = None,
        components: int | None = 64,
        images: int = 150,
        epochs: int = 5,
        lr: float = 1e-4,
    ) -> None:
        if not timm.is_model(name):
            raise unknown("teacher", name, timm.list_models())
        for what, value in (("size", size), ("components", components), ("images", images), ("epochs", epochs)):
            if value is not None and value < 1:
                raise ValueError(f"Expected mapping.{what} of at least 1, got {value}.")
        if checkpoint is None and not pretrained:
            warnings.warn(f"The teacher '{name}' has random weights: give mapping.checkpoint a file.", stacklevel=2)
        self.name = name
        self.checkpoint = checkpoint
        self.pretrained = pretrained
        self.size = size
        self.components = components
        self.images = images
        self.epochs = epochs
        self.lr = check_rate("mapping.lr", lr)

    @torch.no_grad()
    def teach(self, batches: Iterable[Batch], shape: torch.Size, seed: int = 0) -> Tensor:
        """Give the teacher's maps of all images in order, ``[N, components, h, w]`` on their device.

        Args:
            batches: Batches with ``image`` in [0, 1] and ``valid``.
            shape: Shape of the suspect's activation of one image, ``[C, h, w]``.
            seed: Seed of random weights and of the components.

        Raises:
            ValueError: If the suspect's activations are no maps, or the teacher's are none of their size.
        """
        if len(shape) != 3:
            raise ValueError(
                f"Expected activations of the suspect that are maps [channels, height, width], got {tuple(shape)}. Set "
                "geometry.layer to a convolution and geometry.pooled to false, or leave the mapping out."
            )
        teacher, found = self._build(seed), []
        mean, std = (torch.tensor(teacher.default_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
        for batch in batches:
            images = full(batch["image"])[batch["valid"]]
            teacher = teacher.to(images)
            if self.size is not None:
                images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
            with no_autocast(images):
                found.append(self._maps(teacher, (images - mean.to(images)) / std.to(images), shape))
        return self._components(torch.cat(found), seed)

    def train(self, teacher: Tensor, student: Tensor, labels: Tensor, seed: int = 0) -> LinearMaps:
        """Train the maps, one image a step.

        Args:
            teacher: The teacher's maps, ``[N, k, h, w]``.
            student: The suspect's activations of the same images, ``[N, C, h, w]``.
            labels: Their classes, int64 ``[N]``.
            seed: Seed of weights and order.
        """
        generator = torch.Generator().manual_seed(seed)
        student = full(student)
        rows = _balanced(labels.cpu(), self.images, generator)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            maps = LinearMaps(student.shape[1], teacher.shape[1]).to(student)
            optimizer = torch.optim.Adam(maps.parameters(), lr=self.lr)
            for _ in range(self.epochs):
                for row in rows[torch.randperm(len(rows), generator=generator)].tolist():
                    optimizer.zero_grad()
                    torch.autograd.backward(maps.loss(teacher[row : row + 1], student[row : row + 1]))
                    optimizer.step()
        return maps.requires_grad_(False)

    def _build(self, seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            args: dict[str, Any] = {"pretrained": self.pretrained and self.checkpoint is None, "num_classes": 0}
            try:
                try:  # a ViT then takes images of any size
                    net = timm.create_model(self.name, **args, dynamic_img_size=True)
                except TypeError:
                    net = timm.create_model(self.name, **args)
            except RuntimeError as error:
                raise ValueError(f"The teacher '{self.name}' cannot be made: {error} Check mapping.name.") from error
        if self.checkpoint is not None:
            _load(net, self.checkpoint)
        return net.eval().requires_grad_(False)

    def _maps(self, teacher: Any, inputs: Tensor, shape: torch.Size) -> Tensor:
        try:
            found = teacher.forward_intermediates(inputs, indices=1, norm=True, intermediates_only=True)[-1]
        except (AttributeError, TypeError, AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"Expected a teacher that gives maps for images of {tuple(inputs.shape[2:])}, but '{self.name}' failed:"
                f" {error}. Set mapping.size to a size that it takes, or choose another teacher."
            ) from error
        if found.shape[2:] != shape[1:]:
            raise ValueError(
                f"Expected a teacher whose maps are {shape[1]}x{shape[2]}, as the suspect's are, got "
                f"{'x'.join(map(str, found.shape[2:]))} from '{self.name}' for images of {inputs.shape[-1]} pixels. "
                f"Set mapping.size, here perhaps {inputs.shape[-1] * shape[-1] // found.shape[-1]}, or geometry.layer."
            )
        return cast(Tensor, found)

    def _components(self, maps: Tensor, seed: int) -> Tensor:
        pixels = maps.movedim(1, -1).flatten(0, -2).cpu()
        if self.components is None or self.components >= min(pixels.shape):
            return maps
        kept = PCA(self.components, random_state=seed).fit_transform(pixels.numpy())
        return torch.from_numpy(kept).to(maps).view(len(maps), *maps.shape[2:], -1).movedim(-1, 1).contiguous()


def _balanced(labels: Tensor, images: int, generator: torch.Generator) -> Tensor:
    """Take rows of the classes in turn, as many as wanted or as there are."""
    order = torch.randperm(len(labels), generator=generator)
    place = torch.zeros_like(labels)
    for label in set(labels.tolist()):
        own = labels[order] == label
        place[own] = torch.arange(int(own.sum()))
    return order[place.argsort(stable=True)][:images]


def _load(net: nn.Module, checkpoint: str) -> None:
    """Load a teacher's weights; a classifying head that comes with them is left out."""
    wanted = net.state_dict()
    state = match_keys(read_weights(checkpoint), wanted)
    bad = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    parts = {key.partition(".")[0] for key in wanted}  # what lies in other parts is a head
    heads = getattr(net, "default_cfg", {}).get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    bad += [k for k in state if k not in wanted and k.partition(".")[0] in parts and not k.startswith(heads)]
    if bad:
        raise ValueError(
            f"The weights in {checkpoint} do not fit the teacher: {len(bad)} missing, too many or of another shape, "
            f"such as '{bad[0]}'. Check mapping.name."
        )
    net.load_state_dict({key: state[key] for key in wanted})
