"""Hostile and broken pictures and parquet files, as data of a stage and as patterns of a trigger."""

import os
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from cli_parts import POISONED, written
from hostile_parts import Payload, assert_refused
from PIL import Image

SIDE = 16


def png(path, width, height, rows=b""):
    """Write the header of a picture that may be far larger than its data."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def picture(path, **options):
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(path, **options)


def bomb(path):
    """60,000 by 60,000 pixels that compress well."""
    png(path, 60_000, 60_000, bytes(10**7))


def tiff(path):
    entries = [(256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (278, 4, 1, 2**31 - 1), (279, 4, 1, 10)]  # fmt: skip
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *each) for each in entries)
    path.write_bytes(b"II*\x00" + struct.pack("<I", 8) + body + bytes(4))


PICTURES = {
    "wide": lambda p: png(p, 2**31 - 1, 2**31 - 1),
    "bomb": bomb,
    "cut": lambda p: (picture(p, format="PNG"), os.truncate(p, 40)),
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("a picture"),
    "SVG": lambda p: p.write_text('<svg><image href="http://localhost/x"/></svg>'),
    "EPS": lambda p: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(marker) (w) file\n%%EOF"),
    "giant TIFF": tiff,
    "endless": lambda p: p.symlink_to("/dev/zero"),
    "link to nothing": lambda p: p.symlink_to("nothing"),
    "pickled array": lambda p: np.save(p.open("wb"), np.array([Payload(p.parents[4])], object), allow_pickle=True),
}


def folder_of(work, make):
    """An image folder whose first class is hostile: whichever rows are trained on, some are."""
    for part in ("train", "test"):
        for label in range(2):
            place = work / "images" / part / f"class{label}"
            place.mkdir(parents=True)
            for number in range(20 if part == "train" else 4):
                (make if (part, label) == ("train", 0) else picture)(place / f"{number:02}.png")
    parts = {part: str(work / "images" / part) for part in ("train", "test")}
    return {"class_path": "lit_backdoor.data.sources.ImageFolderSource", "init_args": {**parts, "size": SIDE}}


def fitted(work, source):
    net = {**tiny.NET, "init_args": {**tiny.NET["init_args"], "num_classes": 2}}
    model = {**POISONED, "init_args": {"classifier": net}}
    return ["fit", "--config", written(work, model, data={"source": source})]


@pytest.mark.parametrize("name", PICTURES)
def test_picture_of_a_folder(tmp_path, name):
    work = tmp_path / "work"
    source = folder_of(work, PICTURES[name])
    assert_refused(tmp_path, fitted(work, source), "class0")


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "pickled array"])
def test_picture_of_a_trigger(tmp_path, name):
    work = tmp_path / "work"
    work.mkdir()
    PICTURES[name](work / "pattern.png")
    blend = {"class_path": "lit_backdoor.triggers.Blend", "init_args": {"pattern": str(work / "pattern.png")}}
    attack = {"class_path": "lit_backdoor.triggers.Attack", "init_args": {"trigger": blend, "target": 0, "rate": 0.2}}
    assert_refused(tmp_path, ["fit", "--config", written(work, POISONED, data={"attack": attack})], "pattern.png")


def encoded(work):
    picture(work / "one.png")
    return (work / "one.png").read_bytes()


def table(work, **columns):
    rows = len(next(iter(columns.values())))
    given = {"image": [encoded(work)] * rows, "label": [number % 2 for number in range(rows)], **columns}
    pq.write_table(pa.table(given), work / "train.parquet")
    pq.write_table(pa.table({"image": [encoded(work)] * 4, "label": [0, 1, 0, 1]}), work / "test.parquet")


def one_large_image(work):
    """Images of zeros, which compress a thousand times."""
    zeros = pa.array([bytes(2**26)] * 24, pa.large_binary())
    table(work, label=[0, 1])
    pq.write_table(pa.table({"image": zeros, "label": [0, 1] * 12}), work / "train.parquet", compression="zstd")


PARQUETS = {
    "empty": lambda w: (table(w, label=[0, 1]), (w / "train.parquet").write_bytes(b"")),
    "text": lambda w: (table(w, label=[0, 1]), (w / "train.parquet").write_text("PAR1 PAR1")),
    "cut": lambda w: (table(w, label=[0, 1] * 20), os.truncate(w / "train.parquet", 200)),
    "no rows": lambda w: table(w, label=pa.array([], pa.int64())),
    "labels of fractions": lambda w: table(w, label=[0.5, 1.5] * 20),
    "negative labels": lambda w: table(w, label=[-1, 1] * 20),
    "huge labels": lambda w: table(w, label=[0, 2**40] * 20),
    "images of text": lambda w: table(w, image=[b"a picture"] * 40),
    "images of nothing": lambda w: table(w, image=[None] * 40),
    "paths outside": lambda w: table(w, image=[{"bytes": None, "path": "../precious/file"}] * 40),
    "wide picture": lambda w: (png(w / "wide.png", 60_000, 60_000),
                               table(w, image=[(w / "wide.png").read_bytes()] * 40)),
    "large images": one_large_image,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "large images" else name for name in PARQUETS]
)
def test_parquet(tmp_path, name):
    work = tmp_path / "work"
    work.mkdir()
    PARQUETS[name](work)
    args = {"train": str(work / "train.parquet"), "test": str(work / "test.parquet"), "size": SIDE}
    assert_refused(tmp_path, fitted(work, {"class_path": "lit_backdoor.data.ParquetSource", "init_args": args}))
