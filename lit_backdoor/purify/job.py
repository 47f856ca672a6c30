"""One model and one set of clean images: read, measured, cleaned by a chain."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lit_backdoor.audit.accuracy import check_accuracy, check_gradients
from lit_backdoor.audit.images import Images, open_images, read_outputs
from lit_backdoor.audit.sources import Data
from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.chain.classes import trusted
from lit_backdoor.chain.folders import write_whole
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.models import Classifier, load_classifier
from lit_backdoor.purify.chain import make_chain, make_setup
from lit_backdoor.purify.images import accuracy_on, hold_out, write_parts
from lit_backdoor.purify.returned import Returned, write_returned
from lit_backdoor.recipe import trusting

__all__ = ["Job", "options_for", "read_job"]

_MOST = 10_000  # images that are taken


@dataclass(frozen=True)
class Job:
    """A model and images that belong together.

    Attributes:
        model: The file or folder that the model was read from.
        options: How it was read, as `load_classifier` takes it.
        classifier: The model.
        images: The images.
        pixels: They at the model's size, uint8 ``[N, 3, H, W]``.
        held: Which of them are measured on, bool ``[N]``; the others clean the model.
        work: Folder to work in.
        seed: Seed of the chain.
    """

    model: Path
    options: dict[str, Any]
    classifier: Classifier
    images: Images
    pixels: Tensor
    held: Tensor
    work: Path
    seed: int

    def measure(self, classifier: Classifier, target: int | None) -> dict[str, float | None]:
        """Measure a classifier on the images that were held out."""
        return accuracy_on(classifier, self.pixels[self.held], self.images.labels[self.held], target)

    def reread(self, path: Path) -> Classifier:
        """Read a model as the suspect was read."""
        with warnings.catch_warnings():  # what is guessed was said then
            warnings.simplefilter("ignore", UserWarning)
            return _placed(load_classifier(path, **options_for(path, self.options)))

    def clean(
        self,
        defense: str,
        target: int | None,
        name: str,
        *,
        settings: Iterable[str],
        trust: Iterable[str],
        say: Callable[[str], None],
    ) -> Returned:
        """Run a defense's chain, and write the cleaned model into the working folder in the form that it came in.

        Args:
            defense: A shipped defense or a file.
            target: The target class, for a defense that takes one.
            name: Name of the file or folder to write.
            settings: ``a.b.c=value`` texts.
            trust: Packages and modules whose classes bundles may name.
            say: Prints one line.
        """
        names, size, work = list(self.images.names), self.classifier.input_size, self.work.absolute()
        suspect = save_bundle(work / "suspect", kind="suspect", module=self.classifier, meta={"class_names": names})
        files = write_parts(self.images, self.pixels, self.held, work)
        setup = make_setup(suspect.path, suspect.hash, files, size)
        write_whole(work / "setup.yaml", yaml.safe_dump(setup, sort_keys=False, allow_unicode=True))
        chain = make_chain(defense, work / "setup.yaml", target, settings, self.seed, trust)
        run = ChainRun(chain, defense, work / "chain", use_cache=False, curves=False, say=say)
        with trusting(trusted(run.chain)):
            last = run.run()["summary"]["stages"]["after"]
            cleaned = open_bundle(run.out / last, "suspect")
            return write_returned(suspect, cleaned, self.model, work / "returned" / name, self.options.get("part"))


def options_for(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options by which a model is read: a bundle says itself what a file must be told."""
    bundle = (path / "bundle.json").is_file()
    return {key: value for key, value in options.items() if key == "classes" or not bundle}


def read_job(model: Path, data: Data, work: Path, seed: int, options: dict[str, Any]) -> Job:
    """Read a model and images, and check that the model is better than chance on them.

    Args:
        model: The file or folder.
        data: The images, as an audit takes them.
        work: Folder to work in; nothing is written yet.
        seed: Seed of the choice and of what is held out.
        options: As `load_classifier` takes them; ``classes`` as `read_outputs` does.

    Raises:
        FileNotFoundError: If the model or the images are not there.
        ValueError: If one cannot be read, or they do not belong together.
    """
    count, outputs = read_outputs(options.get("classes"))
    options = {**options, "classes": count}
    classifier = _placed(load_classifier(model, **options))
    if not outputs and (model / "bundle.json").is_file():
        names = open_bundle(model, "suspect").info.get("class_names") or ()
        outputs = {name: output for output, name in enumerate(names)} if len(names) == classifier.num_classes else {}
    images = open_images(data, outputs, classifier.num_classes, seed, _MOST)
    pixels = images.pixels(classifier.input_size)
    check_gradients(classifier, pixels)
    check_accuracy(classifier, images, pixels)
    return Job(model, options, classifier, images, pixels, hold_out(images.labels, seed), work, seed)


def _placed(classifier: Classifier) -> Classifier:
    """Put a classifier where it is fastest."""
    return classifier.to("cuda" if torch.cuda.is_available() else "cpu")
