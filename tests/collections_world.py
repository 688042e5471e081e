"""What the tests of `embed` and `search` share: an encoder of colours, and pictures as it sees."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from cliplab.encoders import Encoder


class Colours(nn.Module):
    """A picture is its colours, 4 x 4 of them; a text is noise of its own."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor([1.0]))
        self.text_projection = nn.Parameter(torch.full((1, 48), shift))

    def encode_image(self, pixels: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(pixels, 4).flatten(1)


def pixels(image: Image.Image) -> Tensor:
    small = np.asarray(image.resize((8, 8)), np.float32)
    return torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)


def colours(shift: float = 0.0) -> Encoder:
    return Encoder(
        "colours", Colours(shift), tokenizer=None, preprocess=pixels, languages=("en",),
        device=torch.device("cpu"),
    )  # fmt: skip


def picture(i: int) -> bytes:
    """The i-th picture as PNG, unlike all others."""
    blocks = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((16, 12 + i % 4), Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def folder(path: Path, numbers: range) -> Path:
    """Pictures called 0000.png, 0001.png and so on, whatever they show."""
    path.mkdir(parents=True, exist_ok=True)
    for place, i in enumerate(numbers):
        (path / f"{place:04d}.png").write_bytes(picture(i))
    return path


def shard(path: Path, numbers: range) -> Path:
    """A tar file as WebDataset has them: a picture and a caption of each sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i in numbers:
            for name, content in ((f"{i:04d}.png", picture(i)), (f"{i:04d}.txt", b"a picture")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def digest(i: int) -> str:
    return hashlib.sha256(picture(i)).hexdigest()
