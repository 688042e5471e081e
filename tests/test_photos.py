"""Every odd image file that folders of photos hold, made here and read back with known colours."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cliplab.data import UnreadableImage, iter_images, list_images, open_image

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


# ---- readable, and how -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "gif"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    corners().save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = open_image(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(corners()))


@pytest.mark.parametrize(
    ("orientation", "size", "red", "green"),
    [
        (1, (12, 8), (0, 0), (11, 0)),
        (2, (12, 8), (11, 0), (0, 0)),  # mirrored
        (3, (12, 8), (11, 7), (0, 7)),  # half a turn
        (4, (12, 8), (0, 7), (11, 7)),
        (5, (8, 12), (0, 0), (0, 11)),
        (6, (8, 12), (7, 0), (7, 11)),  # a quarter clockwise: the usual phone portrait
        (7, (8, 12), (7, 11), (7, 0)),
        (8, (8, 12), (0, 11), (0, 0)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_rotation_is_applied(
    tmp_path: Path,
    orientation: int,
    size: tuple[int, int],
    red: tuple[int, int],
    green: tuple[int, int],
    suffix: str,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(save(corners(), tmp_path / f"x.{suffix}", exif=exif))
    assert image.size == size
    assert image.getpixel(red) == RED
    assert image.getpixel(green) == GREEN


@pytest.mark.parametrize("exif", [b"Exif\x00\x00MM\x00*", b"Exif\x00\x00nonsense"])
@pytest.mark.filterwarnings("error")
def test_broken_exif_leaves_the_picture_as_it_is(tmp_path: Path, exif: bytes) -> None:
    path = save(corners(), tmp_path / "x.png", exif=exif)
    with Image.open(path) as image, pytest.raises((SyntaxError, struct.error)):
        ImageOps.exif_transpose(image)
    assert open_image(path).getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("cmyk", "expected"),
    [((0, 255, 255, 0), RED), ((0, 0, 0, 0), WHITE), ((0, 0, 0, 255), (0, 0, 0))],
)
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(
    tmp_path: Path, cmyk: tuple[int, ...], expected: tuple[int, ...], suffix: str
) -> None:
    image = open_image(save(Image.new("CMYK", (16, 16), cmyk), tmp_path / f"x.{suffix}"))
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel((8, 8)), expected, atol=2)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    image = open_image(save(Image.fromarray(values), tmp_path / f"x.{suffix}"))
    grey = np.asarray(image)
    assert grey[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]
    assert (grey == grey[:, :, :1]).all()


def test_32_bit_grey_within_16_bit_and_float_grey_within_one(tmp_path: Path) -> None:
    whole = np.array([[0, 65535]], dtype=np.int32)
    assert np.asarray(open_image(save(Image.fromarray(whole), tmp_path / "i.tif")))[0, 1, 0] == 255
    part = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    grey = np.asarray(open_image(save(Image.fromarray(part), tmp_path / "f.tif")))[0, :, 0]
    assert grey.tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 70000]], dtype=np.int32), "grey values from 0 to 70000"),
        (np.array([[-1, 5]], dtype=np.int32), "grey values from -1 to 5"),
        (np.array([[0, 3.5]], dtype=np.float32), "grey values from 0 to 3.5"),
        (np.array([[0, np.nan]], dtype=np.float32), "grey values from nan"),
    ],
)
def test_grey_without_a_known_range_is_not_guessed(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    path = save(Image.fromarray(values), tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match=rf"x\.tif: {message}.*; scale it to 8 bit yourself"):
        open_image(path)


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)]):
        image.putpixel((x, 0), pixel)
    opened = open_image(save(image, tmp_path / "x.png"))
    assert [opened.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, (127, 127, 127)]


@pytest.mark.parametrize(
    ("mode", "colour", "transparent"), [("LA", (0, 0), None), ("L", 7, 7), ("RGB", RED, RED)]
)
def test_other_transparency_is_white_too(
    tmp_path: Path, mode: str, colour: object, transparent: object
) -> None:
    options = {} if transparent is None else {"transparency": transparent}
    path = save(Image.new(mode, (2, 2), colour), tmp_path / "x.png", **options)
    assert open_image(path).getpixel((1, 1)) == WHITE


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    plain = open_image(save(image, tmp_path / "plain.png"))
    assert [plain.getpixel((x, 0)) for x in (0, 1)] == [RED, GREEN]
    for suffix in ("png", "gif"):
        clear = open_image(save(image, tmp_path / f"clear.{suffix}", transparency=0))
        assert [clear.getpixel((x, 0)) for x in (0, 1)] == [WHITE, GREEN]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"x.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as check:
        assert check.n_frames == 3
    assert open_image(path).getpixel((4, 4)) == RED


# ---- unreadable, and why ---------------------------------------------------------------------


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"  # Pillow would start Ghostscript
HEIC = b"\x00\x00\x00\x24ftypheic\x00\x00\x00\x00mif1heic" * 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jpg", b"", r"x\.jpg: the file is empty \(0 bytes\); copy it"),
        ("x.jpg", None, r"x\.jpg: no such file; check the name"),
        ("", None, "this is a folder; give an image file"),
        ("x.png", b"not an image at all", "not an image, or damaged; open and save it as"),
        ("x.png", POSTSCRIPT, "not an image, or damaged; open and save it as"),
        ("IMG_1.HEIC", HEIC, "HEIC is not read; export it as JPEG"),
    ],
)
def test_what_is_no_image_says_why(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImage, match=message):
        open_image(tmp_path / name)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_half_copied(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(Image.fromarray(noise), tmp_path / f"x.{suffix}")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImage, match=r"damaged or incomplete .*; copy it again"):
        open_image(path)


def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = save(Image.new("1", (10_000, 9_000)), tmp_path / "bomb.png")
    assert path.stat().st_size < 100_000
    with pytest.raises(
        UnreadableImage, match=r"bomb\.png: it has more than 89,478,485 pixels.*CLIPLAB_MAX_PIXELS"
    ):
        open_image(path)


def test_bomb_limit_is_exact_and_configurable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(corners(), tmp_path / "x.png")
    monkeypatch.setenv("CLIPLAB_MAX_PIXELS", "96")
    assert open_image(path).size == (12, 8)
    for refused in ("95", "40"):  # Pillow warns at its limit and fails at twice: both are refused
        monkeypatch.setenv("CLIPLAB_MAX_PIXELS", refused)
        with pytest.raises(UnreadableImage, match=f"more than {refused} pixels"):
            open_image(path)
    monkeypatch.setenv("CLIPLAB_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match=r"CLIPLAB_MAX_PIXELS: got 'many'; expected a whole"):
        open_image(path)


def test_error_carries_its_parts_and_survives_pickling(tmp_path: Path) -> None:
    error = UnreadableImage(tmp_path / "x.png", "cause", "remedy")
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.cause, again.remedy) == (tmp_path / "x.png", "cause", "remedy")
    assert str(again) == str(error) == f"{(tmp_path / 'x.png').as_posix()}: cause; remedy"


# ---- folders ---------------------------------------------------------------------------------


def test_list_images_is_recursive_sorted_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    names = ["b.JPG", "a/z.png", "a.png", "羊.webp", "a/b/c.TIFF", "IMG.HEIC"]
    ignored = ["note.txt", ".hidden.png", "a/._z.png", ".cache/thumb.png", "noext"]
    for name in names + ignored:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    listed = [path.relative_to(tmp_path).as_posix() for path in list_images(str(tmp_path))]
    assert listed == ["IMG.HEIC", "a.png", "a/b/c.TIFF", "a/z.png", "b.JPG", "羊.webp"]


def test_list_images_refuses(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    for name, error in (("absent", FileNotFoundError), ("x.png", NotADirectoryError)):
        with pytest.raises(error, match=name):
            list_images(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"no images in .*empty, looked for \.jpg, .*; add some"):
        list_images(tmp_path / "empty")


def test_iter_images_keeps_order_and_lists_the_unreadable(tmp_path: Path) -> None:
    good = [save(Image.new("RGB", (2, 2), c), tmp_path / f"{c[0]}.png") for c in (RED, BLUE)]
    (tmp_path / "bad.png").write_bytes(b"")
    unreadable: list[UnreadableImage] = []
    found = list(iter_images([good[0], tmp_path / "bad.png", str(good[1])], unreadable))
    assert [image.getpixel((0, 0)) for _, image in found] == [RED, BLUE]
    assert [path for path, _ in found] == good
    assert [error.path.name for error in unreadable] == ["bad.png"]
