"""Boxes with names: crops, ViLD and GLIP behind one protocol, and how good they are."""
