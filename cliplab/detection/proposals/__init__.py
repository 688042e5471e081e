"""Boxes in which something may be, whatever it is called: what a judge of crops is given.

They come from a ViLD's proposal network. True boxes need no function: `Proposals(boxes_xyxy)`.
"""

from cliplab.detection.proposals.proposed import Proposals, region_proposals, vild_proposals

__all__ = [
    "Proposals",
    "region_proposals",
    "vild_proposals",
]
