"""Readable models that load the official weights; one file per paper, shared layers beside them."""
