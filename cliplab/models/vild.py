"""ViLD: a detector whose region embeddings live in the space of a CLIP, its teacher.

Finding boxes is left to torchvision's well-kept parts (feature pyramid, RPN, RoIAlign); what makes
it ViLD is here: regions that have an embedding instead of class scores, a learned background for
which there is no word, and a head for texts beside one for the teacher's view. What is done with
the embeddings is in `cliplab.models.distillation`.

Letters: B images, R regions, K classes, D embedding, C channels.

Source: ViLD, arXiv:2104.13921, section 3. Written from the paper.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.distillation import ensemble_geometric, text_logits
from cliplab.models.layers import unit_rows
from cliplab.models.pyramid import MEAN, STRIDE, Pyramid, convolution
from cliplab.models.weights import (
    lists_to_tuples,
    load_strict,
    read_header,
    read_state_dict,
    save_model,
)

HEADS = ("text", "image", "ensemble")
_FORMAT = "cliplab.vild"
_LEVELS = ["0", "1", "2"]  # strides 4, 8 and 16


@dataclass(frozen=True)
class ViLDConfig:
    """Sizes of a ViLD; the defaults are the pasture's."""

    embed_dim: int = 128  # D of the teacher
    separate_heads: bool = True  # one head for texts, one for the teacher's images (ensemble)
    widths: tuple[int, ...] = (24, 48, 96, 160)  # channels at strides 2, 4, 8 and 16
    depths: tuple[int, ...] = (1, 2, 2)  # blocks at strides 4, 8 and 16
    pyramid_width: int = 64  # C of every level of the feature pyramid
    head_channels: int = 96  # of the one convolution in a head, which halves the region's side
    head_width: int = 256  # of the fully connected layers
    roi_size: int = 7  # cells per side of a pooled region
    height: int = 128  # pixels that pictures are resized to
    temperature: float = 0.01  # tau of the softmax over texts
    proposals: int = 100  # regions per image at test time
    train_proposals: int = 64  # regions per image that training samples from
    train_regions: int = 32  # sampled per image, at most half of them animals

    def __post_init__(self) -> None:
        lists_to_tuples(self)


class Regions(NamedTuple):
    """What the heads make of the regions of one image."""

    boxes_xyxy: Tensor  # (R, 4) px of the input, refined
    objectness: Tensor  # (R,) of the proposal network, 0 to 1
    text_emb: Tensor  # (R, D) unit rows: to be compared with texts
    image_emb: Tensor  # (R, D) unit rows: the teacher's view, distilled; text_emb if heads are one


# ---- the network ---------------------------------------------------------------------------


class RegionHead(nn.Module):
    """Pooled regions (R, C, S, S) -> their embedding (R, D) and box deltas (R, 4)."""

    def __init__(self, config: ViLDConfig) -> None:
        super().__init__()
        cells, width = (config.roi_size + 1) // 2, config.head_width
        self.conv = convolution(config.pyramid_width, config.head_channels, stride=2)
        self.hidden = nn.Linear(config.head_channels * cells**2, width)
        self.hidden2 = nn.Linear(width, width)
        self.embed = nn.Linear(width, config.embed_dim)
        self.box = nn.Linear(width, 4)  # class-agnostic: one box, whatever it is called

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, S, S) -> (R, D) unit rows, (R, 4)."""
        x = F.relu(self.conv(pooled)).flatten(1)  # (R, C' * S/2 * S/2)
        x = F.relu(self.hidden2(F.relu(self.hidden(x))))  # (R, W)
        return unit_rows(self.embed(x)), self.box(x).float()


class ViLD(nn.Module):
    """A two-stage detector that speaks of its regions in the teacher's space.

    A new model is untrained; seed first.
    """

    rpn: Any  # torchvision's RegionProposalNetwork
    box_coder: Any  # torchvision's BoxCoder
    teacher: dict[str, str]  # "name" and "fingerprint" of the encoder whose space it speaks; or {}

    def __init__(self, config: ViLDConfig | None = None) -> None:
        from torchvision.models.detection._utils import BoxCoder
        from torchvision.ops import MultiScaleRoIAlign

        super().__init__()
        self.config = config = config or ViLDConfig()
        self.backbone = Pyramid(config.widths, config.depths, config.pyramid_width)
        self.rpn = _proposal_network(config)
        self.roi_align = MultiScaleRoIAlign(
            _LEVELS, config.roi_size, sampling_ratio=1, canonical_scale=64, canonical_level=3
        )
        self.head = RegionHead(config)
        self.image_head = RegionHead(config) if config.separate_heads else None
        self.background_emb = nn.Parameter(torch.randn(config.embed_dim) * 0.01)
        self.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        self.teacher = {}

    def maps(self, pixels: Tensor) -> tuple[dict[str, Tensor], tuple[int, int]]:
        """(B, 3, H, W) -> maps of the picture, filled up to whole cells, and its own (H, W)."""
        height, width = pixels.shape[-2:]
        filled = F.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE), value=MEAN)
        return self.backbone(filled), (height, width)

    def propose(
        self,
        maps: dict[str, Tensor],
        size: tuple[int, int],
        truth: list[Tensor] | None = None,
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Boxes that may hold something, and the loss if the true ones are given.

        Args:
            maps: of `maps`.
            size: (H, W) of the pictures in pixels.
            truth: for each picture its labelled boxes (A, 4); everything else counts as nothing.

        Returns:
            For each picture proposals (R, 4) px, best first; their objectness (R,), 0 to 1; and the
            loss, a scalar (0 without `truth`).
        """
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        rpn, levels = self.rpn, list(maps.values())[1:]  # stride 4 adds cost and no recall
        anchors = rpn.anchor_generator(_as_image_list(levels[-1], size), levels)
        objectness, deltas = rpn.head(levels)
        counts = [o[0].numel() for o in objectness]
        flat, deltas = (x.float() for x in concat_box_prediction_layers(objectness, deltas))
        boxes = rpn.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
        found = rpn.filter_proposals(boxes, flat, [size] * len(anchors), counts)
        if truth is None:
            return *found, flat.new_zeros(())
        labels, matched = rpn.assign_targets_to_anchors(anchors, [{"boxes": b} for b in truth])
        wanted = rpn.box_coder.encode(matched, anchors)
        return *found, sum(rpn.compute_loss(flat, deltas, labels, wanted))

    def pooled(self, maps: dict[str, Tensor], boxes: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Features of all boxes, one picture after the other, (R, C, S, S)."""
        exact = {name: x.float() for name, x in maps.items()}
        return self.roi_align(exact, boxes, [size] * len(boxes))

    @torch.no_grad()
    def forward(self, pixels: Tensor, boxes: list[Tensor] | None = None) -> list[Regions]:
        """Pictures (B, 3, H, W) in [0, 1] -> the regions of each; no class is named yet.

        Args:
            pixels: pictures of one size.
            boxes: (R, 4) px for each picture, to be used instead of proposals and as they are.
        """
        maps, size = self.maps(pixels)
        if boxes is None:
            proposals, objectness, _ = self.propose(maps, size)
        else:
            proposals, objectness = boxes, [b.new_ones(len(b)) for b in boxes]
        pooled = self.pooled(maps, proposals, size)
        text_emb, deltas = self.head(pooled)
        image_emb = self.image_head(pooled)[0] if self.image_head else text_emb
        refined = self.refined(proposals, deltas, size) if boxes is None else torch.cat(boxes)
        counts = [len(b) for b in proposals]
        parts = (x.split(counts) for x in (refined, text_emb, image_emb))
        return [
            Regions(box, score, text, image)
            for box, text, image, score in zip(*parts, objectness, strict=True)
        ]

    def refined(self, boxes: list[Tensor], deltas: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes moved by what the head says (R, 4), inside the picture, all pictures in one."""
        from torchvision.ops import clip_boxes_to_image

        return clip_boxes_to_image(self.box_coder.decode(deltas, boxes).view(-1, 4), size)


def _proposal_network(config: ViLDConfig) -> nn.Module:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

    anchors = AnchorGenerator(((16, 28), (44, 68)), ((0.5, 1.0, 2.0),) * 2)
    return RegionProposalNetwork(
        anchors, RPNHead(config.pyramid_width, 6), fg_iou_thresh=0.6, bg_iou_thresh=0.3,
        batch_size_per_image=64, positive_fraction=0.5,
        pre_nms_top_n={"training": 150, "testing": 300},
        post_nms_top_n={"training": config.train_proposals, "testing": config.proposals},
        nms_thresh=0.7,
    )  # fmt: skip


def _as_image_list(coarsest: Tensor, size: tuple[int, int]) -> Any:
    """The padded pictures as torchvision's anchors ask for them: their sizes, not their pixels."""
    from torchvision.models.detection.image_list import ImageList

    batch, _, height, width = coarsest.shape
    blank = torch.empty((batch, 0, height * STRIDE, width * STRIDE), device=coarsest.device)
    return ImageList(blank, [size] * batch)


# ---- naming the regions --------------------------------------------------------------------


def class_scores(
    model: ViLD, regions: Regions, text_emb: Tensor, base: Tensor, *, head: str = "ensemble",
    contest: "Contest | None" = None,
) -> Tensor:  # fmt: skip
    """How sure the detector is of each class in each region, (R, K), 0 to 1.

    Args:
        regions: of one picture.
        text_emb: (K, D) unit rows, the classes in the words of the teacher's text tower; (M, D)
            with a contest, the classes first.
        base: (K,) bool, classes that had boxes in training; read by "ensemble" only.
        head: "text" (softmax with the background), "image" (the teacher's view: softmax without
            background, which it has none of, so the geometric mean with the proposal's
            objectness), or "ensemble" of the two.
        contest: which texts decide about which class; default: the classes exclude one another.
    """
    if head not in HEADS:
        raise ValueError(f"head: got {head!r}; expected one of {', '.join(HEADS)}")
    tau, background = model.config.temperature, model.background_emb.detach()
    text_prob = text_logits(regions.text_emb, text_emb, background, tau).softmax(1)
    text_prob = text_prob[:, 1:] if contest is None else shares(text_prob, contest)
    if head == "text":
        return text_prob
    image_logits = text_logits(regions.image_emb, text_emb, background, tau)[:, 1:]
    image_prob = image_logits.softmax(1)  # (R, K)
    image_prob = image_prob if contest is None else shares(image_prob, contest)
    if head == "image":
        return (image_prob * regions.objectness[:, None]).sqrt()
    return ensemble_geometric(text_prob, image_prob, base)


class Contest(NamedTuple):
    """What counts for and against each of K classes, of M texts."""

    own: Tensor  # (K, M) bool: the class, or a kind of it
    rivals: Tensor  # (K, M) bool: what excludes the class; the rest says nothing about it


def shares(prob: Tensor, contest: Contest) -> Tensor:
    """A softmax (R, B + M), B columns of background first -> (R, K): each class in its contest."""
    own, rivals = (mask.to(prob).T for mask in contest)  # (M, K)
    background, texts = prob.split([prob.shape[1] - len(own), len(own)], dim=1)
    mine = texts @ own
    against = background.sum(1, keepdim=True) + texts @ rivals
    return mine / (mine + against).clamp_min(torch.finfo(prob.dtype).tiny)


# ---- files ---------------------------------------------------------------------------------


def save_vild(model: ViLD, path: str | Path) -> None:
    """Write weights (fp16), configuration and teacher to one .safetensors file, atomically."""
    save_model(model, path, _FORMAT, config=asdict(model.config), teacher=model.teacher)


def load_vild(path: str | Path) -> ViLD:
    """The model of `save_vild`, in float32, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: a damaged file, or one that save_vild did not write.
    """
    tensors, header = read_state_dict(path), read_header(path, _FORMAT)
    if not header:
        raise ValueError(
            f"{path}: not a ViLD of this package (its header has no configuration); make one with "
            "`python -m cliplab train vild`"
        )
    model = ViLD(ViLDConfig(**header["config"]))
    model.teacher = header.get("teacher", {})
    return load_strict(model, tensors, str(path))
