"""Figures: pictures, boxes, masks, matrices and curves, drawn with matplotlib."""
