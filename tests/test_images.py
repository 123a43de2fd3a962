"""Reading and writing pictures: what Pillow or a closed form says, and every kind of bad file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from fitting.files import OutputError
from fitting.images import ImageError, list_images, read_image, read_size, write_image


@pytest.fixture
def picture() -> np.ndarray:
    """(4, 6, 3), no two pixels alike, so that any turn or swap of channels shows."""
    return np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_list_images_sorts_by_path_and_goes_by_suffix(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "sub/c.webp", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert list_images(tmp_path) == [tmp_path / "a.png", tmp_path / "b.JPG"]
    assert list_images(tmp_path, recursive=True)[-1] == tmp_path / "sub" / "c.webp"
    with pytest.raises(ImageError, match="is not a folder"):
        list_images(tmp_path / "notes.txt")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_formats_give_the_pixels_back(
    tmp_path: Path, picture: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(picture).save(path)
    np.testing.assert_array_equal(read_image(path), picture)
    assert read_size(path) == (6, 4)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_exif_orientation_is_applied_as_pillow_does(
    tmp_path: Path, picture: np.ndarray, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    read = read_image(path)
    np.testing.assert_array_equal(read, expected)
    assert read_size(path) == read.shape[1::-1]


def test_orientation_6_puts_the_stored_first_column_on_top(
    tmp_path: Path, picture: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a telephone held upright: "rotate by 90 degrees clockwise to view"
    Image.fromarray(picture).save(tmp_path / "phone.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "phone.png"), np.rot90(picture, k=-1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    # some releases of Pillow cannot read back the YCbCr TIFF that they wrote
    suffix = {"CMYK": "tif", "YCbCr": "jpg"}.get(mode, "png")
    path = tmp_path / f"{mode}.{suffix}"
    Image.new("RGB", (3, 2), "white").convert(mode).save(path)
    np.testing.assert_array_equal(read_image(path), np.full((2, 3, 3), 255, np.uint8))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    red = np.zeros((1, 3, 4), np.uint8)
    red[..., 0] = 200
    red[0, :, 3] = [255, 51, 0]  # opaque, a fifth, clear
    Image.fromarray(red).save(tmp_path / "red.png")
    expected = [[200, 0, 0], [244, 204, 204], [255, 255, 255]]  # 255 + (c - 255) * alpha / 255
    np.testing.assert_array_equal(read_image(tmp_path / "red.png")[0], expected)


def test_transparent_palette_entry_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "palette.png", transparency=0)
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.png")[0], [[255, 255, 255], [40, 50, 60]]
    )


def test_sixteen_bits_keep_black_white_and_the_middle(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 128 * 257, 60_000, 65_535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    grey = read_image(tmp_path / "deep.png")
    np.testing.assert_array_equal(grey[0, :, 0], [0, 1, 128, 233, 255])
    assert (grey == grey[..., :1]).all()


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    write_image(tmp_path / "dot.png", np.full((1, 1, 3), 7, np.uint8))
    assert read_size(tmp_path / "dot.png") == (1, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "dot.png"), [[[7, 7, 7]]])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.jpg", None, "does not exist"),
        ("empty.jpg", b"", r"is empty \(0 bytes\)"),
        ("text.jpg", b"not a picture at all", "cannot be read as a picture"),
        ("headless.png", b"\x89PNG\r\n\x1a\n", "cannot be read as a picture"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_size])
def test_bad_files_are_named_in_one_sentence(tmp_path, name, content, reason, read) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message


def test_a_folder_is_not_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".gif"])
def test_truncated_files_are_refused(tmp_path: Path, rng, suffix: str) -> None:
    path = tmp_path / f"half{suffix}"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"half.*cannot be read as a picture"):
        read_image(path)


def test_floating_point_and_32_bit_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(ImageError, match="floating-point"):
        read_image(tmp_path / "float.tif")
    with pytest.raises(ImageError, match="32-bit"):
        read_image(tmp_path / "wide.tif")


@pytest.mark.parametrize("size", [(20_000, 20_000), (11_000, 10_000)])
def test_too_many_pixels_are_refused_from_the_header(tmp_path: Path, size) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(*size))  # nothing to decode: only the header can tell
    with pytest.raises(ImageError, match=r"huge\.png has .*pixels.*shrink it"):
        read_image(path)


def test_the_limit_can_be_lowered_and_large_headers_give_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(10_000, 9_500))  # Pillow alone would warn above 89 megapixels
    assert read_size(path) == (10_000, 9_500)
    write_image(tmp_path / "small.png", np.zeros((100, 100, 3), np.uint8))
    with pytest.raises(ImageError, match=r"more than the limit of 0\.005"):
        read_image(tmp_path / "small.png", max_megapixels=0.005)


def test_jpeg_is_close_and_png_is_exact(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (48, 64, 3))
    for name, tolerance in (("ramp.png", 0), ("ramp.JPG", 4)):  # quality 90 errs by some levels
        write_image(tmp_path / name, ramp)
        difference = read_image(tmp_path / name).astype(int) - ramp
        assert np.abs(difference).max() <= tolerance
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ramp.JPG", "ramp.png"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path, picture, monkeypatch
) -> None:
    path = tmp_path / "kept.png"
    write_image(path, picture)

    def fail(self, file, *args, **kwargs):
        file.write(b"half a pic")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match="disk is full"):
        write_image(path, picture)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_image(path), picture)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.png"]


def test_write_image_says_what_it_takes(tmp_path: Path, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\.jpg, \.jpeg or \.png"):
        write_image(tmp_path / "picture.gif", picture)
    with pytest.raises(ValueError, match=r"uint8 RGB, got \(4, 6\) uint8"):
        write_image(tmp_path / "picture.png", picture[..., 0])


@pytest.mark.shared
def test_photographs_have_the_size_that_coco_states(shared: Path) -> None:
    folder = shared / "data" / "coco_permissive" / "images"
    paths = list_images(folder)
    assert len(paths) == 16
    assert all(read_size(path) == read_image(path).shape[1::-1] for path in paths[:4])
