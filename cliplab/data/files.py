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
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 2 * 89_478_485  # 512 MiB as RGB: from there on Pillow refuses a picture as a bomb
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
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # from half the limit


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


def within(name: str) -> PurePosixPath:
    """A picture's name without what leads out of a folder for files about it: "..", "/", "C:"."""
    parts = (part for part in PurePosixPath(name).parts if part.strip("/") and part != "..")
    return PurePosixPath(*(part for part in parts if not part.endswith(":")))


# ---- one image -----------------------------------------------------------------------------


def open_image(
    path: str | Path, *, side: int | None = None, content: bytes | None = None
) -> Image.Image:
    """Read one image file as 8-bit RGB, upright, on white, its first frame.

    EXIF rotation is applied; transparency is laid on white; CMYK and palettes are converted;
    16-bit grey (0..65535) is scaled to 0..255, never stretched.

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
    try:
        if content == b"" or (content is None and path.is_file() and not path.stat().st_size):
            raise UnreadableImage(path, "the file is empty (0 bytes)", "copy it again")
        if is_other(path):
            raise UnreadableImage(path, f"{path.suffix} is not read", "export it as JPEG")
        Image.init()  # registers every plugin; open() fails on the name of one that is missing
        formats = [name for name in FORMATS if name in Image.OPEN]
        file = path if content is None else io.BytesIO(content)
        with Image.open(file, formats=formats) as image:
            yield image
    except UnreadableImage:
        raise
    except Exception as error:
        # Decoders meet hostile bytes and raise nearly anything (SyntaxError, struct.error, ...).
        raise UnreadableImage(path, *_explain(error, path)) from error


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; broken EXIF says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole, and every viewer would show them
        return image.copy()


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # I;16, I;16B, I;16L and I
        values = np.asarray(image).astype(np.int64)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            cause = "grey of more than 16 bits, whose black and white nobody tells"
            raise UnreadableImage(path, cause, "scale it to 8 bit yourself: only you know how")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 257 x 255
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")  # which would be a copy


def _explain(error: Exception, path: Path) -> tuple[str, str]:
    """Cause and remedy of what went wrong while reading `path`."""
    if isinstance(error, FileNotFoundError):
        return "no such file", "check the name"
    if isinstance(error, IsADirectoryError | PermissionError):
        return f"{error.strerror}", "give a file that you may read"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels, as bombs do", "shrink it"
    if path.suffix.lower() in PHONE_SUFFIXES:
        return "HEIC is not read", "export it as JPEG, or install and register pillow-heif"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged", "open and save it as PNG or JPEG"
    text = (str(error) or type(error).__name__).splitlines()[0]
    return f"damaged or incomplete ({text})", "copy it again, or open and save it as PNG or JPEG"


# ---- many images ---------------------------------------------------------------------------


def is_image_name(name: str | Path) -> bool:
    """Whether a file is called as pictures are."""
    return str(name).lower().endswith(SUFFIXES + PHONE_SUFFIXES)


def is_other(name: str | Path) -> bool:
    """Whether a file is called as pictures in formats that are not read."""
    return str(name).lower().endswith(OTHER_SUFFIXES)


def image_names(folder: Path) -> list[str]:
    """All image files below `folder` by suffix, relative to it with /, sorted alike everywhere.

    Raises:
        OSError: it is no folder, or may not be listed.
        ValueError: it holds no image.
    """
    found = sorted(file_names(folder))
    if not found:
        wanted = ", ".join(SUFFIXES + PHONE_SUFFIXES)
        others = [*file_names(folder, is_other)]
        but = f" but {len(others)} such as {printable(others[0])}, which are not" if others else ""
        raise ValueError(f"no images in {shown(folder)}{but}, looked for {wanted}; add some")
    return found


def file_names(folder: Path, wanted: Callable[[str], bool] = is_image_name) -> Iterator[str]:
    """Names of files below `folder` with /, but hidden ones; links are followed, loops are not."""
    seen: set[tuple[int, int]] = set()
    for place, inside, files in os.walk(folder, followlinks=True, onerror=_refuse):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in seen:
            inside.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        inside[:] = sorted(name for name in inside if not is_hidden(name))
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
