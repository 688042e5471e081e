"""What the tests of `segment` share: tiny models, pictures of flat colours, one that knows them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cliplab import encoders, segmentation
from cliplab.cli.main import main
from cliplab.models.groupvit import GroupViT, GroupViTConfig, save_groupvit
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.segmentation import Segmentation, Settings, Vocabulary

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "sheep", "dog", "goat", "grass", "sky", "tree", "a", "photo"),
    *("of", ".", "羊", "狗", "草", "地", "天", "空", "一", "张", "的", "照", "片", "[SEP]"),
)
TINY: dict[str, Any] = {
    "image_resolution": 16, "patch_size": 4, "widths": (16, 16), "depths": (1, 0), "heads": (2, 2),
    "group_tokens": (4,), "output_groups": (4,), "embed_dim": 8, "projector_width": 12,
    "context_length": 12, "vocab_size": len(WORDS), "text_width": 16, "text_heads": 2,
    "text_layers": 1, "test_resolution": 16,
}  # fmt: skip
# What the model that knows everything sees in a picture.
COLOURS = {"sheep": (255, 0, 0), "dog": (255, 255, 0), "grass": (0, 255, 0), "sky": (0, 0, 255)}


def drawn(config: GroupViTConfig, words: tuple[str, ...] = WORDS) -> GroupViT:
    """A random model that sees something else everywhere, with word pieces of its own."""
    torch.manual_seed(2)
    model = GroupViT(config)
    for tensor in model.state_dict().values():  # as it is drawn it sees the same everywhere
        if tensor.is_floating_point():
            tensor += 0.5 * tensor.std(correction=0) * torch.randn_like(tensor)
    model.vocab = words
    return model


def make_groupvit(folder: Path, **changes: Any) -> Path:
    """Such a model as a checkpoint -> its folder."""
    save_groupvit(drawn(GroupViTConfig(**{**TINY, **changes})), folder / "model.safetensors")
    return folder


class Knowing:
    """A segmenter that goes by colour; its groups are colours, and two names are exchanged."""

    def __init__(self, swaps: Mapping[str, str] | None = None, score: float = 0.9) -> None:
        self.name, self.device = "knowing", torch.device("cpu")
        self.tokenizer = WordPieceTokenizer(list(WORDS), 12)
        self.model = GroupViT(GroupViTConfig(**TINY))
        self.model.vocab = WORDS
        self.swaps, self.score = swaps or {}, score
        self.path, self.groups = None, 4

    def embed(self, words: Any, templates: Any) -> None:
        self.asked = tuple(words), tuple(templates)

    def describe(self) -> dict[str, Any]:
        return {"model": "groupvit", "name": self.name}

    def segment(
        self, images: list[Image.Image], words: Vocabulary, settings: Settings
    ) -> list[Segmentation]:
        return [self.segment_one(image, words, settings) for image in images]

    def segment_one(
        self, image: Image.Image, words: Vocabulary, settings: Settings
    ) -> Segmentation:
        pixels = torch.from_numpy(np.asarray(image).astype(np.float32))  # (H, W, 3)
        table = torch.tensor(list(COLOURS.values())).float()  # (4, 3)
        owner = (pixels[:, :, None] - table).square().sum(-1).argmin(-1)  # (H, W)
        scores = torch.zeros(len(words.words), *owner.shape)
        for w, word in enumerate(words.words):
            seen = self.swaps.get(word, word)
            if seen in COLOURS:
                scores[w] = (owner == list(COLOURS).index(seen)) * self.score
        return Segmentation(
            words.by_label(scores), owner, words.names, image.size, words.has_background,
            settings.threshold if words.has_background else None,
        )  # fmt: skip


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> Knowing:
    """The model of every command is one that goes by colour."""
    model = Knowing()
    monkeypatch.setattr(segmentation, "load_segmenter", lambda spec, **_: model)
    monkeypatch.setattr(encoders, "foreign", lambda paths: [])  # its pictures are squares
    return model


def flat(path: Path, *rows: str, scale: int = 10) -> Path:
    """A picture of squares `scale` pixels wide: "sg" is a sheep beside grass, k is sky, d a dog."""
    path.parent.mkdir(parents=True, exist_ok=True)
    letters = {"s": "sheep", "d": "dog", "g": "grass", "k": "sky"}
    pixels = np.array([[COLOURS[letters[c]] for c in row] for row in rows], np.uint8)
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(path)
    return path


def numbers(path: Path, *rows: str, scale: int = 10) -> Path:
    """A label PNG of the same squares, digit by digit; x is 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.array([[255 if c == "x" else int(c) for c in row] for row in rows], np.uint8)
    Image.fromarray(values.repeat(scale, 0).repeat(scale, 1)).save(path)
    return path


def run(*arguments: object) -> int:
    return main(["segment", *map(str, arguments)])


def labels_in(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)
