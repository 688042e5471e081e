"""cliplab: how image-text models work, from a contrastive loss to segmentation without labels.

Importing this package does no work: it loads no other module of its own, no torch, no file, and
opens no connection. Import the room you need, for instance ``from cliplab import zero_shot``.
"""

__version__ = "0.1.0"
