"""What `detect` and `segment` need until they stand on the skeleton; then this module goes."""

import argparse
from pathlib import Path
from typing import Any


def named_inputs(args: argparse.Namespace) -> dict[str, Path]:
    """Option -> file or folder that is read."""
    found = {"SOURCE": args.source}
    for name in ("boxes", "truth"):
        value = getattr(args, name, None)
        if value and value != "source":  # as `detect` calls the boxes of SOURCE itself
            found[f"--{name}"] = Path(value)
    return found


def parameters(args: argparse.Namespace) -> dict[str, Any]:
    """The options as they were given; the command's own bookkeeping left out."""
    from cliplab.data import shown

    own = {key: value for key, value in vars(args).items() if key not in ("command", "debug")}
    return {key: shown(value) if isinstance(value, Path) else value for key, value in own.items()}


def as_options(message: str) -> str:
    """A message of `read_photos` in the words of the command line."""
    for ours, theirs in (
        ("use read_unlabelled()", "pass --unlabelled"),
        ("call with_splits()", "leave out --split"),
        ("box_scale:", "--box-scale:"),
        *((f"{name}=", f"--{name} ") for name in ("kind", "images", "boxes")),
    ):
        message = message.replace(ours, theirs)
    return message.replace(" , ", ", ")
