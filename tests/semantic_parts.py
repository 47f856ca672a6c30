"""Pictures half of which carry a white spot, as a column says: a semantic trigger at the smallest size."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import tiny
import torch
from PIL import Image

from lit_backdoor.data import BalancedSplit
from lit_backdoor.data.sources.base import Source, TensorRows
from lit_backdoor.triggers import AllToOne, Attack, SemanticTrigger


class Spotted(Source):
    """`tiny.source`, with a spot in every other row of each class."""

    class_names = tuple(str(label) for label in range(tiny.CLASSES))
    image_size = (tiny.SIZE, tiny.SIZE)

    def __init__(self, spots=(1, 1)):
        self.base, self.spots = tiny.source(n_train=96, n_test=32), spots

    def _load(self, part):
        rows = self.base.train() if part == "train" else self.base.test()
        spot = torch.arange(len(rows)) // tiny.CLASSES % 2 * self.spots[part == "test"]
        images = rows.images(torch.arange(len(rows))).clone()
        images[spot == 1, :, -5:, -5:] = 255
        return TensorRows(images, rows.labels, {"spot": spot, "track": torch.arange(len(rows)) // 3})

    def fingerprint(self):
        return "spotted"


def attack(rate=1.0, rate_of="carriers", policy=None, **options):
    policy = policy or AllToOne(include_target=False)
    return Attack(SemanticTrigger("spot"), policy, rate=rate, rate_of=rate_of, **options)


def split(**options):
    return BalancedSplit(**{"root_pool": 16, "root_without": "spot", **options})


def data(plan=None, **options):
    return tiny.data(plan or attack(), **{"source": Spotted(), "split": split(), **options})


def write_parquet(folder):
    """Both parts of `Spotted` as parquet files with a column ``sunglasses``."""
    for part in ("train", "test"):
        rows = getattr(Spotted(), part)()
        encoded = []
        for image in rows.images(torch.arange(len(rows))):
            file = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
            encoded.append(file.getvalue())
        columns = {"image": encoded, "label": rows.labels.tolist(), "sunglasses": rows.columns["spot"].tolist()}
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")
