"""Reading and writing pictures: 8-bit RGB and upright inside, whatever the file holds.

Pillow decodes. This module decides what counts as a picture, what is too large, and turns every
failure into one sentence that names the file and the fix.
"""

from __future__ import annotations

import contextlib
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from fitting.files import InputError, write_atomically

IMAGE_SUFFIXES = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".jfif", ".png", ".tif", ".tiff", ".webp",
)  # fmt: skip
# Pillow knows more: it would hand EPS over to Ghostscript, whatever the file's name.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
JPEG_QUALITY = 90
MAX_MEGAPIXELS = 100.0

# EXIF orientation -> what turns the stored picture upright; 1 and unknown values mean upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height


class ImageError(InputError):
    """A picture cannot be used; the message is one sentence naming the file and the fix."""


def list_images(folder: Path | str, *, recursive: bool = False) -> list[Path]:
    """Pictures in a folder, by suffix (`IMAGE_SUFFIXES`, any case), sorted by path.

    Hidden files are left out: some systems put thumbnails there under the picture's own suffix.

    Args:
        folder: where to look.
        recursive: look in its subfolders, too.

    Raises:
        ImageError: the folder is missing or not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder; give the folder that holds the pictures")
    candidates = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in candidates
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def read_size(path: Path | str) -> tuple[int, int]:
    """Width and height in pixels of the upright picture, from the file's header alone.

    Raises:
        ImageError: the file is missing, empty or not a picture.
    """
    with _opened(Path(path)) as image:
        width, height = _stored_size(image)
        return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


def read_image(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Read a picture as RGB.

    The EXIF orientation is applied. Grey and palette pictures become RGB, 16 bits are reduced to
    8, transparency is laid on white, CMYK is converted without a colour profile, and of an
    animation the first frame counts.

    Args:
        path: file to read.
        max_megapixels: larger pictures are refused before they are decoded. More than about 178
            is always refused, which is Pillow's own limit against decompression bombs.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file is missing, empty, damaged, not a picture or too large.
    """
    path = Path(path)
    with _opened(path) as image:
        width, height = _stored_size(image)
        megapixels = width * height / 1e6
        if megapixels > max_megapixels:
            raise ImageError(
                f"{path} has {width} x {height} pixels ({megapixels:.0f} megapixels), more than "
                f"the limit of {max_megapixels:g}; shrink it or raise the limit"
            )
        orientation = _orientation(image)
        image.load()
        if image.format == "TIFF":  # recent versions of Pillow turn these, and only these, in load
            orientation = _orientation(image)
        upright = _to_rgb(path, image)
        if orientation in _UPRIGHT:
            upright = upright.transpose(_UPRIGHT[orientation])
        return np.array(upright)


def write_image(path: Path | str, image: np.ndarray, *, durable: bool = True) -> None:
    """Write a picture, atomically: a reader sees the old file or the whole new one.

    Args:
        path: .jpg or .jpeg (quality 90) or .png; its folder must exist.
        image: (H, W, 3) uint8 RGB.
        durable: as of `files.write_atomically`.

    Raises:
        ValueError: the suffix, shape or type is another.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
    if path.suffix.lower() not in formats:
        raise ValueError(f"cannot write {path}: use a name that ends in .jpg, .jpeg or .png")
    check_image(image)
    picture = Image.fromarray(np.ascontiguousarray(image))
    file_format = formats[path.suffix.lower()]
    # PNG has no quality and ignores it.
    write_atomically(
        path,
        lambda file: picture.save(file, file_format, quality=JPEG_QUALITY),
        durable=durable,
    )


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless `image` is (H, W, 3) uint8 with at least one pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}; "
            "read_image returns pictures in this form"
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file opened by Pillow; whatever goes wrong inside becomes an `ImageError`."""
    _check_file(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of pictures that are large, which we judge ourselves, and of oddities
            # in the metadata, which do not concern the pixels.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has too many pixels to be read safely; shrink it") from error
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error
        raise ImageError(
            f"{path} cannot be read as a picture ({_one_line(error, path)}); it may be damaged or "
            "in an unknown format, so save it again as JPEG or PNG"
        ) from error


def _check_file(path: Path) -> None:
    """Name the plain mistakes before Pillow gives them a stranger name."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # the name may be one that no file can have
        raise ImageError(f"{path} does not exist; check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder; give the path of a picture")
    if status.st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again")


def _one_line(error: Exception, path: Path) -> str:
    text = str(error).replace(str(path), "the file") or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before the EXIF orientation is applied."""
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:  # `size` differs between versions of Pillow
        return int(tags[256]), int(tags[257])
    return image.size


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read.

    The method of the base class reads what is known so far; that of PNG would decode the picture.
    """
    try:
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata must not cost a sound picture
        return 1


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _sixteen_to_eight_bits(path, image).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{path} holds floating-point pixels; save it with 8 bits per channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _sixteen_to_eight_bits(path: Path, image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{path} holds 32-bit pixels; save it with 8 or 16 bits per channel")
    return Image.fromarray((values / 257.0 + 0.5).astype(np.uint8))  # 65535 / 255 = 257
