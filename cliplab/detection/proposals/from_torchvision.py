"""Proposals from torchvision's detectors of COCO's 80 classes, whose names are not used."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cliplab.detection.proposals.proposed import Proposals
from cliplab.models.weights import StateDict, read_state_dict
from cliplab.runtime import is_offline, unknown_name

DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fcos_resnet50_fpn",
    "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
)  # fmt: skip
# Published with batch norms that add nothing to the variance; torchvision resets them, too.
_NO_EPS = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")


def coco_detector(
    name: str = "fasterrcnn_mobilenet_v3_large_fpn", *, weights: str | Path | None = None,
    offline: bool | None = None,
) -> Any:  # fmt: skip
    """One of torchvision's detectors with its weights for COCO, in eval mode, on the CPU.

    Args:
        name: of DETECTORS.
        weights: the file; default torch hub's folder of checkpoints, then a download.
        offline: True: never download; None: as $CLIPLAB_OFFLINE and its kind say.

    Raises:
        ValueError: an unknown name, or a file that is damaged or of another model.
        FileNotFoundError: no such file; or none in the folder, and it cannot be downloaded: with
            the file's name, where it belongs and how to fetch it elsewhere.
    """
    from torchvision.models import get_model, get_model_weights

    if name not in DETECTORS:
        raise ValueError(unknown_name("detector", name, DETECTORS))
    url = get_model_weights(name)["COCO_V1"].url
    if weights is None:
        path = _published(name, url, is_offline(offline))
    elif not (path := Path(weights)).is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected torchvision's {url.rpartition('/')[2]}: on a machine "
            f"with network: {_fetching(url)}"
        )
    model = get_model(name, weights=None, weights_backbone=None)
    _fill(model, read_state_dict(path), f"{path}: not the weights of {name}")
    for module in model.modules() if name in _NO_EPS else ():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    return model.eval()


def _fill(model: torch.nn.Module, tensors: StateDict, failed: str) -> None:
    # not load_strict: torchvision's modules know the older names that the published files have
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{failed} ({reason}); expected the file that torchvision publishes for it, or one "
            "saved from the same model"
        ) from error


def _fetching(url: str) -> str:
    return f"curl -L -O {url}"


def _published(name: str, url: str, offline: bool) -> Path:
    """The file in torch hub's folder, downloaded if it is not there."""
    from cliplab.encoders.hub import Wanted, download, whole_file

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    if not path.is_file():
        otherwise = "give the path of the file as `weights`"
        wanted = Wanted(f"torchvision:{name}", (path.name,), folder, _fetching(url), otherwise)
        digest = path.stem.rpartition("-")[2]  # the first digits of its SHA-256

        def fetch(empty: str) -> str:
            target = str(Path(empty) / path.name)
            torch.hub.download_url_to_file(url, target, digest, progress=False)
            return target

        download(wanted, url, lambda: whole_file(path, fetch), offline=offline)
    return path


@torch.no_grad()
def coco_detector_proposals(
    detector: Any, images: Iterable[Image.Image], *, top: int = 100, iou: float = 0.7
) -> list[Proposals]:
    """Where a detector of COCO's 80 classes found anything, whatever it called it; best first.

    Args:
        detector: of `coco_detector`; it is shown one picture at a time.
        images: N pictures of any size.
        top: boxes of a picture.
        iou: overlap from which the less sure of two boxes is dropped: COCO's detectors answer with
            one box for each name that they think of.
    """
    from torchvision.ops import nms
    from torchvision.transforms.functional import to_tensor

    found = []
    for image in images:
        said = detector([to_tensor(image.convert("RGB"))])[0]
        kept = nms(said["boxes"], said["scores"], iou)[:top]
        found.append(Proposals(said["boxes"][kept], said["scores"][kept].clamp(0, 1)))
    return found
