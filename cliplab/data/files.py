"""Users' image files: find them, and turn whatever a camera or an editor wrote into plain RGB.

A folder of real photos holds rotated phone pictures, CMYK scans, 16-bit microscopy, stickers with
alpha, animations, half-copied files and decompression bombs. `open_image` gives 8-bit RGB as a
person sees it, or raises `UnreadableImage` that says why not and what to do.
"""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485  # Pillow's own bomb limit, 256 MiB as RGB; $CLIPLAB_MAX_PIXELS raises it
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm"),
    *(".pgm", ".pbm", ".pnm", ".tga", ".jp2"),
)
PHONE_SUFFIXES = (".heic", ".heif")  # listed, so that a photo Pillow cannot read is not passed over
# Raw photos, of which Pillow would give the thumbnail, and what else it cannot read: only counted.
OTHER_SUFFIXES = (
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".jxl"),
    *(".psd", ".svg", ".exr", ".hdr"),
)
# Not Pillow's whole list: it would start Ghostscript for a file that says it is PostScript.
FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM"),
    *("ICO", "TGA", "HEIF"),
)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # odd metadata


class UnreadableImage(ValueError):
    """A file that cannot be read as an image: `path`, `cause` and `remedy`, all in the message."""

    def __init__(self, path: str | Path, cause: str, remedy: str) -> None:
        super().__init__(path, cause, remedy)  # all three, so that it survives pickling
        self.path, self.cause, self.remedy = Path(path), cause, remedy

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.cause}; {self.remedy}"


def shown(path: str | Path) -> str:
    """`path` with / as text that can always be printed and encoded, whatever bytes it holds."""
    return printable(Path(path).as_posix())


def printable(text: str) -> str:
    """Text whose bytes that are not UTF-8 (from names of files) are replaced."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)


# ---- one image -----------------------------------------------------------------------------


def open_image(
    path: str | Path, *, side: int | None = None, content: bytes | None = None
) -> Image.Image:
    """Read one image file as 8-bit RGB, upright, on white, its first frame.

    EXIF rotation is applied; transparency is laid on white; CMYK and palettes are converted;
    16-bit grey (0..65535) and float grey (0..1) are scaled to 0..255, never stretched.

    A file of more than $CLIPLAB_MAX_PIXELS (else MAX_PIXELS) is refused before it is decoded.

    Args:
        path: the file; its content decides the format, not its name.
        side: pixels that suffice; JPEG is then decoded to about as many, which saves work.
        content: its bytes, where they were read already or lie in an archive.

    Raises:
        UnreadableImage: for anything that does not give an image.
    """
    with opened(Path(path), content) as image:
        if side is not None:
            image.draft(image.mode, (side, side))  # whole eighths only, and never below `side`
        image.load()
        return _to_rgb(_upright(image), Path(path))


@dataclass(frozen=True)
class Header:
    """What a picture's first bytes tell of its size: (width, height) in pixels."""

    size: tuple[int, int]  # upright, as `open_image` gives it
    stored: tuple[int, int]  # before the EXIF rotation
    orientation: int  # EXIF's, 1..8; 1 is upright


def read_header(path: str | Path) -> Header:
    """Size of a picture without decoding it.

    Raises:
        UnreadableImage: as `open_image`, so far as the first bytes show it.
    """
    with opened(Path(path)) as image:
        turned = _orientation(image, Path(path))
        size = image.size
        swapped = size[::-1] if turned >= 5 else size
        if image.format == "TIFF":  # Pillow gives its size as it will be once rotated
            return Header(size, swapped, turned)
        return Header(swapped, size, turned)


def _orientation(image: Image.Image, path: Path) -> int:
    """EXIF orientation 1..8; 1 where there is none or it cannot be read."""
    if image.format == "PNG":  # asking Pillow would decode the whole picture: EXIF may come last
        data = path.read_bytes()
        marks = (b"eXIf", b"Raw profile type exif", b"tiff:Orientation")
        if not any(mark in data for mark in marks):
            return 1
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # as in _upright: broken EXIF says nothing
        return 1
    return found if found in range(1, 9) else 1


@contextmanager
def opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """The undecoded picture, guarded; whatever happens inside becomes UnreadableImage."""
    limit = _max_pixels()
    # Pillow's limit belongs to the process: it is raised when the user trusts more, never lowered.
    Image.MAX_IMAGE_PIXELS = max(limit, Image.MAX_IMAGE_PIXELS or limit)
    try:
        if content == b"" or (content is None and path.is_file() and not path.stat().st_size):
            raise UnreadableImage(path, "the file is empty (0 bytes)", "copy it again")
        if is_other(path):
            raise UnreadableImage(path, f"{path.suffix} is not read", "export it as JPEG")
        Image.init()  # registers every plugin; open() fails on the name of one that is missing
        formats = [name for name in FORMATS if name in Image.OPEN]
        file = path if content is None else io.BytesIO(content)
        with Image.open(file, formats=formats) as image:
            if image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.size}")
            yield image
    except UnreadableImage:
        raise
    except Exception as error:
        # Decoders meet hostile bytes and raise nearly anything (SyntaxError, struct.error, ...).
        raise UnreadableImage(path, *_explain(error, path, limit)) from error


def _max_pixels() -> int:
    value = os.environ.get("CLIPLAB_MAX_PIXELS", "")
    if value and not (value.isdigit() and int(value)):
        raise ValueError(f"$CLIPLAB_MAX_PIXELS: got {value!r}; expected a whole number above 0")
    return int(value) if value else MAX_PIXELS


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; broken EXIF says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole, and every viewer would show them
        return image.copy()


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I"):  # I;16, I;16B, I;16L and I: 65535 = 257 x 255
        image = Image.fromarray(((_within(image, 65535, path) + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray((_within(image, 1, path) * 255).round().astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _within(image: Image.Image, most: int, path: Path) -> NDArray[Any]:
    """Grey values, if they are from 0 to `most`: nobody tells which are black and white else."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= most):  # written so that NaN fails too
        found = f"grey values from {low:g} to {high:g}, where 0 to {most} is usual"
        raise UnreadableImage(path, found, "scale it to 8 bit yourself: only you know how")
    return values if most == 1 else values.astype(np.int64)


def _explain(error: Exception, path: Path, limit: int) -> tuple[str, str]:
    """Cause and remedy of what went wrong while reading `path`."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    bombs = Image.DecompressionBombError, Image.DecompressionBombWarning
    is_phone = path.suffix.lower() in PHONE_SUFFIXES
    save_it = f"open and save it as one of {', '.join(SUFFIXES)}"
    raise_it = "shrink it, or if you trust it raise $CLIPLAB_MAX_PIXELS"
    known: list[tuple[bool, str, str]] = [
        (isinstance(error, FileNotFoundError), "no such file", "check the name"),
        (path.is_dir(), "this is a folder", "give an image file, or use list_images(folder)"),
        (isinstance(error, PermissionError), "no permission to read it", "change its permissions"),
        (isinstance(error, bombs), f"it has more than {limit:,} pixels, as bombs do", raise_it),
        (is_phone, "HEIC is not read", "export it as JPEG, or install and register pillow-heif"),
        (isinstance(error, UnidentifiedImageError), "not an image, or damaged", save_it),
    ]
    damaged = f"damaged or incomplete ({text})", "copy it again, or open and save it as PNG or JPEG"
    return next(((cause, remedy) for holds, cause, remedy in known if holds), damaged)


# ---- many images ---------------------------------------------------------------------------


def is_image_name(name: str | Path) -> bool:
    """Whether a file is called as pictures are."""
    return str(name).lower().endswith(SUFFIXES + PHONE_SUFFIXES)


def list_images(folder: str | Path) -> list[Path]:
    """All image files below `folder`, by suffix, sorted alike everywhere; hidden ones left out.

    Raises:
        OSError: it is no folder, or may not be listed.
        ValueError: it holds no image.
    """
    folder = Path(folder)
    return [folder / name for name in image_names(folder)]


def is_other(name: str | Path) -> bool:
    """Whether a file is called as pictures in formats that are not read."""
    return str(name).lower().endswith(OTHER_SUFFIXES)


def image_names(folder: Path) -> list[str]:
    """As `list_images`, but paths relative to the folder, as text with /."""
    found = sorted(file_names(folder))
    if not found:
        wanted = ", ".join(SUFFIXES + PHONE_SUFFIXES)
        others = [*file_names(folder, is_other)]
        but = f" but {len(others)} such as {printable(others[0])}, which are not" if others else ""
        raise ValueError(f"no images in {shown(folder)}{but}, looked for {wanted}; add some")
    return found


def file_names(folder: Path, wanted: Callable[[str], bool] = is_image_name) -> Iterator[str]:
    """Names of files below `folder` with /; links are followed, no folder is listed twice."""
    seen: set[tuple[int, int]] = set()
    for place, inside, files in os.walk(folder, followlinks=True, onerror=_refuse):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in seen:
            inside.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        kept = [name for name in inside if not is_hidden(name)]  # true folders before links
        inside[:] = sorted(kept, key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        base = os.path.relpath(place, folder).replace(os.sep, "/").removeprefix(".")
        for name in filter(wanted, files):
            # Not a link that leads nowhere.
            if not is_hidden(name) and os.path.isfile(os.path.join(place, name)):
                yield f"{base}/{name}" if base else name


def is_hidden(name: str) -> bool:
    """Names of no picture of the user's: "." also begins the "._" twins of macOS."""
    return name.startswith(".") or name in ("@eaDir", "__MACOSX")


def _refuse(error: OSError) -> None:
    raise error  # os.walk would pass over the folder


def iter_images(
    paths: Iterable[str | Path], unreadable: list[UnreadableImage]
) -> Iterator[tuple[Path, Image.Image]]:
    """Readable images one at a time, with their paths; the others are appended to `unreadable`.

    Nothing is kept, so that a folder larger than memory can be gone through.
    """
    for path in paths:
        try:
            image = open_image(path)
        except UnreadableImage as error:
            unreadable.append(error)
        else:
            yield Path(path), image
