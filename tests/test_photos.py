"""Every odd image file that folders of photos hold, made here and read back with known colours."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cliplab.data import UnreadableImage, iter_images, open_image
from cliplab.data.files import image_names, read_header

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners() -> Image.Image:
    """12 x 8 pixels, blue but for red in the top-left 4 x 4 pixels and green in the top-right."""
    image = Image.new("RGB", (12, 8), BLUE)
    image.paste(RED, (0, 0, 4, 4))
    image.paste(GREEN, (8, 0, 12, 4))
    return image


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def reads(image: Image.Image, path: Path, **options: object) -> list[tuple[int, ...]]:
    """The first row of pixels after saving and opening."""
    opened = open_image(save(image, path, **options))
    assert opened.mode == "RGB"
    return [opened.getpixel((x, 0)) for x in range(opened.width)]


# ---- readable, and how -----------------------------------------------------------------------

# where red and green are once an EXIF orientation is applied
TURNS = {
    1: ((0, 0), (11, 0)),
    2: ((11, 0), (0, 0)),  # mirrored
    3: ((11, 7), (0, 7)),  # half a turn
    4: ((0, 7), (11, 7)),
    5: ((0, 0), (0, 11)),
    6: ((7, 0), (7, 11)),  # a quarter clockwise: the usual phone portrait
    7: ((7, 11), (7, 0)),
    8: ((0, 11), (0, 0)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_exif_rotation_is_applied(tmp_path: Path, turn: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    path = save(corners(), tmp_path / f"x.{suffix}", exif=exif, **options.get(suffix, {}))
    image, header = open_image(path), read_header(path)
    assert image.size == header.size == ((12, 8) if turn < 5 else (8, 12))
    assert (header.stored, header.orientation) == ((12, 8), turn)
    for place, colour in zip(TURNS[turn], (RED, GREEN), strict=True):
        np.testing.assert_allclose(image.getpixel(place), colour, atol=60 * (suffix == "jpg"))


@pytest.mark.parametrize("exif", [b"Exif\x00\x00MM\x00*", b"Exif\x00\x00nonsense"])
@pytest.mark.filterwarnings("error")
def test_broken_exif_leaves_the_picture_as_it_is(tmp_path: Path, exif: bytes) -> None:
    path = save(corners(), tmp_path / "x.png", exif=exif)
    with Image.open(path) as image, pytest.raises((SyntaxError, struct.error)):
        ImageOps.exif_transpose(image)
    assert open_image(path).getpixel((0, 0)) == RED
    assert read_header(path).size == (12, 8)


@pytest.mark.parametrize(
    ("cmyk", "expected"),
    [((0, 255, 255, 0), RED), ((0, 0, 0, 0), WHITE), ((0, 0, 0, 255), (0, 0, 0))],
)
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path: Path, cmyk: tuple, expected: tuple, suffix: str) -> None:
    row = reads(Image.new("CMYK", (16, 16), cmyk), tmp_path / f"x.{suffix}")
    np.testing.assert_allclose(row[8], expected, atol=2)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    row = reads(Image.fromarray(values), tmp_path / f"x.{suffix}")
    assert row == [(v, v, v) for v in (0, 0, 1, 1, 128, 254, 255, 255)]


@pytest.mark.parametrize(
    "values",
    [np.array([[0, 70000]], np.int32), np.array([[-1, 5]], np.int32), np.zeros((1, 2), np.float32)],
)
def test_grey_without_a_known_range_is_not_guessed(tmp_path: Path, values: np.ndarray) -> None:
    path = save(Image.fromarray(values), tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match=r"x\.tif: grey of more than 16 bits.*scale it to 8"):
        open_image(path)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image, palette = Image.new("RGBA", (3, 1)), Image.new("P", (2, 1))
    for x, pixel in enumerate([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)]):
        image.putpixel((x, 0), pixel)
    assert reads(image, tmp_path / "x.png") == [RED, WHITE, (127, 127, 127)]
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    assert reads(palette, tmp_path / "plain.png") == [RED, GREEN]
    for suffix in ("png", "gif"):
        assert reads(palette, tmp_path / f"x.{suffix}", transparency=0) == [WHITE, GREEN]
    for mode, colour, options in (("LA", (0, 0), {}), ("L", 7, {"transparency": 7})):
        assert reads(Image.new(mode, (1, 1), colour), tmp_path / "y.png", **options) == [WHITE]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(
        frames[0], tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options
    )
    with Image.open(path) as check:
        assert check.n_frames == 3
    assert open_image(path).getpixel((4, 4)) == RED


def test_small_pictures_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.new("RGB", (800, 400), "red"), tmp_path / "a.jpg", exif=exif)
    assert open_image(path, side=64).size == (100, 200)  # an eighth, turned


# ---- unreadable, and why ---------------------------------------------------------------------

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"  # Pillow would start Ghostscript
HEIC = b"\x00\x00\x00\x24ftypheic\x00\x00\x00\x00mif1heic" * 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jpg", b"", r"x\.jpg: the file is empty \(0 bytes\); copy it"),
        ("x.jpg", None, r"x\.jpg: no such file; check the name"),
        ("", None, "Is a directory; give a file|Permission denied; give a file"),
        ("x.png", b"not an image at all", "not an image, or damaged; open and save it as"),
        ("x.png", POSTSCRIPT, "not an image, or damaged; open and save it as"),
        ("IMG_1.HEIC", HEIC, "HEIC is not read; export it as JPEG"),
        ("a.CR2", b"II*", r"a\.CR2: \.CR2 is not read; export it as JPEG"),
    ],
)
def test_what_is_no_image_says_why(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (open_image, read_header):
        with pytest.raises(UnreadableImage, match=message) as caught:
            read(tmp_path / name)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path) == (str(caught.value), tmp_path / name)
    if content is not None:
        with pytest.raises(UnreadableImage, match=message):
            open_image(tmp_path / name, content=content)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_half_copied(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(Image.fromarray(noise), tmp_path / f"x.{suffix}")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImage, match=r"damaged or incomplete .*; copy it again"):
        open_image(path)


def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = save(Image.new("1", (20_000, 9_000)), tmp_path / "bomb.png")
    assert path.stat().st_size < 100_000
    with pytest.raises(UnreadableImage, match=r"bomb\.png: it has more than 178,956,970 pixels"):
        open_image(path)


# ---- folders ---------------------------------------------------------------------------------


def test_images_of_a_folder_are_sorted_without_hidden_ones_and_loops(tmp_path: Path) -> None:
    names = ["b.JPG", "a/z.png", "a.png", "羊.webp", "a/b/c.TIFF", "IMG.HEIC"]
    ignored = ["note.txt", ".hidden.png", "a/._z.png", ".cache/thumb.png", "noext"]
    for name in names + ignored:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    try:
        (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    except OSError:  # Windows without the right to
        pass
    found = ["IMG.HEIC", "a.png", "a/b/c.TIFF", "a/z.png", "b.JPG", "羊.webp"]
    assert image_names(tmp_path) == found
    for name, error in (("absent", FileNotFoundError), ("a.png", NotADirectoryError)):
        with pytest.raises(error, match=name):
            image_names(tmp_path / name)


def test_iter_images_keeps_order_and_lists_the_unreadable(tmp_path: Path) -> None:
    good = [save(Image.new("RGB", (2, 2), c), tmp_path / f"{c[0]}.png") for c in (RED, BLUE)]
    (tmp_path / "bad.png").write_bytes(b"")
    unreadable: list[UnreadableImage] = []
    found = list(iter_images([good[0], tmp_path / "bad.png", str(good[1])], unreadable))
    assert [image.getpixel((0, 0)) for _, image in found] == [RED, BLUE]
    assert [path for path, _ in found] == good
    assert [error.path.name for error in unreadable] == ["bad.png"]
