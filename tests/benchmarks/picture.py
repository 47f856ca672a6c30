"""The README's picture: signs, clean, triggered and generated, with what the suspect and the cleaned classifier say.

python tests/benchmarks/picture.py RUN [--out notebooks/signs.png]

RUN is the folder of a chain on embedded signs with the stages victim, generate and clean, such as ``lit-backdoor demo`` writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lit_backdoor.bundle import open_bundle
from lit_backdoor.data import BackdoorDataModule, SyntheticSigns
from lit_backdoor.report.rows import counting, pick

GOOD, BAD, PALE = "#2f7d5d", "#b3423a", "#666666"
OUT = Path(__file__).parents[2] / "notebooks" / "signs.png"


@torch.no_grad()
def draw(run: Path, out: Path, columns: int) -> None:
    bundles = {name: open_bundle(run / name) for name in ("victim", "generate", "clean")}
    names, nets = (
        bundles["victim"].info["class_names"],
        {name: bundle.build().eval() for name, bundle in bundles.items()},
    )
    data = BackdoorDataModule(SyntheticSigns(num_classes=len(names)), attack=str(run / "victim"), seed=0)
    view = data.get_view("triggered")
    rows = pick(view.clean_label, counting(view), columns)
    batch = data.images(next(iter(data.loader("triggered", batch_size=len(view)))))
    clean, truth = batch["original"][rows], batch["clean_label"][rows]
    pictures = {"clean": clean, "triggered": batch["image"][rows], "generated": nets["generate"](clean)}
    figure = Figure(figsize=(1.25 * columns + 0.9, 5.2))
    axes = figure.subplots(3, columns)
    for row, (title, images) in zip(axes, pictures.items(), strict=True):
        said = {name: nets[name](images).argmax(1) for name in ("victim", "clean")}
        for column, axis in enumerate(row):
            axis.imshow(images[column].clamp(0, 1).permute(1, 2, 0).float().numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            label(axis, said, names, truth, column)
        row[0].set_ylabel(title, fontsize=10)
    figure.text(0.01, 0.015, "below each: the suspect / the cleaned classifier says", fontsize=8, color=PALE)
    figure.subplots_adjust(0.06, 0.1, 0.995, 0.985, 0.12, 0.42)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def label(axis, said: dict[str, Tensor], names: list[str], truth: Tensor, column: int) -> None:
    """Write what both classifiers say below a picture, wrong answers in red."""
    for line, labels in enumerate(said.values()):
        color = GOOD if labels[column] == truth[column] else BAD
        name = names[int(labels[column])]
        axis.text(
            0.5, -0.04 - 0.14 * line, name, fontsize=8, color=color, ha="center", va="top", transform=axis.transAxes
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--columns", type=int, default=6)
    given = parser.parse_args()
    draw(given.run, given.out, given.columns)
