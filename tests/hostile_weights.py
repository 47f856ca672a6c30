"""The corpus of hostile and broken files of weights: how each is written, and what its refusal must say."""

import pickle
import shutil
import struct
import zipfile

import numpy as np
import tiny
import torch
from hostile_parts import Payload
from safetensors.torch import save_file


class Raw:
    """Pickles to the given opcodes."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def state(**changes):
    return {**tiny.classifier().state_dict(), **changes}


FIRST = "net.conv1.weight"


def saved(path, content, **options):
    torch.save(content, path, **options)


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("w/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("w/version", "3")
        with archive.open("w/data/0", "w", force_zip64=True) as entry:
            for _ in range(80):  # 1.3 GB, which take seconds to pack
                entry.write(bytes(2**24))


def overlapping(path):
    """Many entries of the archive's index that point to one part."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("w/data/0", bytes(2**20))
        [part] = [each for each in archive.filelist if each.filename == "w/data/0"]
        archive.filelist += [part] * 5000


def legacy_claim(path):
    """A storage of terabytes in the format that came before archives."""
    saved(path, {"a": torch.zeros(3)}, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<q", 3), struct.pack("<q", 10**12)))


def nested(depth):
    content = torch.zeros(1)
    for _ in range(depth):
        content = {"model": content}
    return content


FILES = {
    "os.system": (lambda p: saved(p, {"state_dict": Payload(p.parents[1])}), "system"),
    "os.system, old format": (
        lambda p: saved(p, Payload(p.parents[1]), _use_new_zipfile_serialization=False), "system",
    ),
    "bare pickle": (lambda p: p.write_bytes(pickle.dumps(Payload(p.parents[1]))), "refused"),
    "bare pickle, protocol 0": (lambda p: p.write_bytes(pickle.dumps(Payload(p.parents[1]), protocol=0)), "system"),
    "eval": (lambda p: saved(p, {"a": Raw(eval, "open('../marker', 'w')")}), "refused"),
    "rmtree": (lambda p: saved(p, {"a": Raw(shutil.rmtree, "../precious")}), "rmtree"),
    "attribute of torch": (lambda p: saved(p, {"a": Raw(torch.hub.load, "x/y", "z")}), "refused"),
    "torch.load in it": (lambda p: saved(p, {"a": Raw(torch.load, "x")}), "refused"),
    "numpy.load": (lambda p: saved(p, {"a": Raw(np.load, "x")}), "refused"),
    "numpy objects": (lambda p: saved(p, {"a": np.array([Payload(p.parents[1])], dtype=object)}), "refused"),
    "whole net": (lambda p: saved(p, torch.nn.Linear(2, 2)), "refused"),
    "TorchScript": (lambda p: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), p), ""),
    "compressed archive": (bomb, "unpacks"),
    "overlapping archive": (overlapping, "unpacks"),
    "storage of terabytes": (legacy_claim, "damaged"),
    "deep": (lambda p: saved(p, nested(200)), ""),
    "empty": (lambda p: p.write_bytes(b""), "damaged"),
    "text": (lambda p: p.write_text("weights"), "refused"),
    "zeros": (lambda p: p.write_bytes(bytes(10_000)), "damaged"),
    "folder": (lambda p: p.mkdir(), "found none"),
    "endless": (lambda p: p.symlink_to("/dev/zero"), "found none"),
    "cut": (lambda p: (saved(p, state()), p.write_bytes(p.read_bytes()[:-500])), "damaged"),
    "other archive": (lambda p: zipfile.ZipFile(p, "w").close(), ""),
    "safetensors by another name": (lambda p: save_file(tiny.tensors(torch.nn.Linear(2, 2)), p), "fit"),
    "ONNX": (lambda p: p.write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(100)), "refused"),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "refused"),
    "no weights": (lambda p: saved(p, {"epoch": 3, "acc": 0.9}), "Expected a state dict"),
    "a list": (lambda p: saved(p, [torch.zeros(2)]), "Expected a state dict"),
    "a tensor": (lambda p: saved(p, torch.zeros(2)), "Expected a state dict"),
    "several": (lambda p: saved(p, {"netA": state(), "netB": state()}), "found several"),
    "optimizer only": (lambda p: saved(p, {"optimizer": {"state": {"a": torch.zeros(2)}}}), "Expected a state dict"),
    "NaN": (lambda p: saved(p, state(**{FIRST: torch.full((4, 3, 3, 3), torch.nan)})), "not finite"),
    "whole numbers": (lambda p: saved(p, state(**{FIRST: torch.zeros(4, 3, 3, 3).int()})), "of another type"),
    "complex": (lambda p: saved(p, state(**{FIRST: torch.zeros(4, 3, 3, 3) * 1j})), "of another type"),
    "sparse": (lambda p: saved(p, state(**{FIRST: torch.zeros(4, 3, 3, 3).to_sparse()})), "of another type"),
    "sparse of terabytes": (
        lambda p: saved(p, {"a": torch.sparse_coo_tensor(torch.zeros(1, 1).long(), torch.ones(1), (10**12,))}), "",
    ),
    "expanded to terabytes": (
        lambda p: saved(p, state(**{FIRST: torch.zeros(1).expand(10**12)})), "of another shape",
    ),
    "other net": (lambda p: saved(p, torch.nn.Linear(3, 3).state_dict()), "do not fit"),
    "numbers for names": (lambda p: saved(p, {0: torch.zeros(2)}), "unexpected"),
}  # fmt: skip
