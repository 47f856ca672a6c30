import io

import numpy as np
import pytest
from PIL import Image

from lit_backdoor.pictures import decode, picture_size


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def solid(mode, color):
    return Image.new(mode, (3, 2), color)


@pytest.mark.parametrize(
    ("image", "kind", "color"),
    [
        (solid("RGB", (10, 20, 30)), "PNG", (10, 20, 30)),
        (solid("L", 77), "PNG", (77, 77, 77)),
        (solid("1", 1), "PNG", (255, 255, 255)),
        (solid("LA", (50, 0)), "PNG", (255, 255, 255)),
        (solid("LA", (50, 255)), "PNG", (50, 50, 50)),
        (solid("RGBA", (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (solid("RGBA", (10, 20, 30, 0)), "PNG", (255, 255, 255)),
        (solid("RGBA", (55, 155, 255, 51)), "PNG", (215, 235, 255)),
        (solid("I;16", 257 * 90), "PNG", (90, 90, 90)),
        (solid("I;16", 257 * 90), "TIFF", (90, 90, 90)),
        (solid("CMYK", (0, 0, 0, 0)), "JPEG", (255, 255, 255)),
    ],
)
def test_images_of_every_mode_become_rgb(image, kind, color):
    pixels = decode(encoded(image, kind), "here")
    assert pixels.dtype == np.uint8
    assert pixels.shape == (2, 3, 3)
    assert (np.abs(pixels.astype(int) - color) <= 1).all()


@pytest.mark.filterwarnings("error")
def test_transparent_entries_of_a_palette_are_white():
    image = solid("P", 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert (decode(encoded(image, transparency=b"\x00\xff"), "here") == (200, 100, 50)).all()
    assert (decode(encoded(image, transparency=b"\x00\x00"), "here") == 255).all()


@pytest.mark.parametrize("image", [solid("F", 0.5), solid("I", 70_000)])
def test_pixels_without_a_known_white_are_refused(image):
    with pytest.raises(ValueError, match=r"here: not a readable image \(its pixels .* 8 or 16 bits\)"):
        decode(encoded(image, "TIFF"), "here")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind, orientation):
    """Red is left, the upper half is bright, as people see it."""
    seen = Image.new("RGB", (32, 16), (0, 0, 80))
    seen.paste((0, 0, 250), (0, 0, 32, 8))
    seen.paste((250, 0, 0), (0, 0, 8, 16))
    back = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(orientation, [])
    stored = seen
    for turn in back:
        stored = stored.transpose(Image.Transpose(turn))
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = encoded(stored, kind, exif=tags, **({"lossless": True} if kind == "WEBP" else {}))
    assert picture_size(data, "here") == (16, 32)
    assert np.abs(decode(data, "here").astype(int) - np.asarray(seen)).mean() < 12


def test_size_is_height_and_width():
    assert decode(encoded(solid("RGB", (1, 2, 3))), "here", (6, 4)).shape == (6, 4, 3)


def test_crop_keeps_the_aspect_ratio():
    wide = Image.new("RGB", (40, 8), "black")
    wide.paste("white", (16, 0, 24, 8))
    assert decode(encoded(wide), "here", (4, 4), crop=True).min() > 200
    assert decode(encoded(wide), "here", (4, 4)).min() < 50


@pytest.mark.parametrize("data", [b"", b"no image", encoded(Image.effect_noise((40, 40), 90))[:200]])
def test_broken_images_are_named(data):
    with pytest.raises(ValueError, match=r"file\.parquet, row 7"):
        decode(data, "file.parquet, row 7")


def bomb(width, height):
    """A PNG of a few kilobytes that says so large a size."""
    data = bytearray(encoded(Image.new("1", (8, 8))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (60_000, 1), (12_000, 8_000), (10_000, 10_000)])
def test_too_many_pixels_are_refused_before_decoding(width, height):
    for read in (decode, picture_size):
        with pytest.raises(ValueError, match="here: not a readable"):
            read(bomb(width, height), "here")


def test_vanished_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'x.png': the file is gone"):
        decode(str(tmp_path / "x.png"), "'x.png'")
