"""Boxes in which something may be, whatever it is called: what a judge of crops is given.

They come from a ViLD's proposal network, from any file of COCO boxes or results, or from one of
torchvision's detectors. True boxes need no function: `Proposals(boxes_xyxy)`.
"""

from cliplab.detection.proposals.from_coco import read_proposals
from cliplab.detection.proposals.from_torchvision import (
    DETECTORS,
    coco_detector,
    coco_detector_proposals,
)
from cliplab.detection.proposals.proposed import Proposals, region_proposals, vild_proposals

__all__ = [
    "DETECTORS",
    "Proposals",
    "coco_detector",
    "coco_detector_proposals",
    "read_proposals",
    "region_proposals",
    "vild_proposals",
]
