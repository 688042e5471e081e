"""The files of a detector: its weights and its card; who taught a ViLD, and with which boxes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliplab.classification.labels import Classes, fold
from cliplab.classification.zero_shot import templates
from cliplab.data import shown
from cliplab.detection.detectors import PUBLISHED, WEIGHTS, Options
from cliplab.encoders import LOADERS, Encoder
from cliplab.models.vild import HEADS, ViLD
from cliplab.runtime import checkpoint_dir, unknown_name, verify_checkpoint

CARD = "model_card.json"
_NAMES = {"vild": "ViLD", "glip": "GLIP"}
_INSTEAD = {
    "vild": "name boxes that you have: --model crops --boxes FILE",
    "glip": f"load a published one: --model {PUBLISHED[0]}:PATH",
}


def checkpoint_path(where: str, stem: str = "vild") -> Path:
    """The weights of a ViLD or a GLIP: shipped, in a folder, or a file.

    Args:
        where: "" for the shipped one.
        stem: "vild" or "glip".

    Raises:
        FileNotFoundError: nothing there, and how to make it.
        ValueError: damaged.
    """
    path = Path(where) if where else checkpoint_dir(stem) / WEIGHTS
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{shown(path)}: no such {_NAMES[stem]}; make it with `python -m cliplab train "
            f"{stem}`, restore data/checkpoints/{stem}, or {_INSTEAD[stem]}"
        )
    verify_checkpoint(path.parent, [path.name])
    return path


def read_card(path: Path) -> dict[str, Any]:
    """The model card beside weights; {} if there is none."""
    try:
        found = json.loads((path.parent / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def load_teacher(
    model: ViLD, card: Mapping[str, Any], options: Options
) -> tuple[Encoder, list[str]]:
    """The encoder whose texts name the classes, and what was assumed about it.

    Raises:
        ValueError: another one than the model learned from.
    """
    from cliplab.encoders import load_encoder

    taught: Mapping[str, Any] = model.teacher or card.get("teacher") or {}
    own = taught.get("spec") or taught.get("name") or ""
    spec = options.teacher or (own if own in LOADERS or ":" in own else "pasture")
    teacher = load_encoder(spec, device=options.device, offline=options.offline)
    if teacher.dim != model.config.embed_dim:
        raise ValueError(
            f"--teacher {spec}: has {teacher.dim} dimensions; the detector's regions have "
            f"{model.config.embed_dim}: use the teacher it learned from, {own or 'see its card'}"
        )
    if not taught:
        return teacher, [f"the checkpoint does not say who taught it; taken to be {teacher.name}"]
    if not _is_same(teacher, taught):
        raise ValueError(
            f"--teacher {spec}: this detector learned from another one, "
            f"{taught.get('name', 'unnamed')} (fingerprint {str(taught.get('fingerprint'))[:12]}, "
            f"here {teacher.fingerprint[:12]}): the same words lie elsewhere in its space, and "
            "every answer would be chance; leave out --teacher, or let this one look at crops: "
            f"--model crops --teacher {spec}"
        )
    return teacher, []


def _is_same(teacher: Encoder, taught: Mapping[str, Any]) -> bool:
    """By fingerprint; or by the weights' own hashes, where libraries of another version differ."""
    if taught.get("fingerprint") == teacher.fingerprint:
        return True
    own, told = (
        {k: v for k, v in about.items() if k.startswith("sha256 ")}
        for about in (teacher.provenance, taught)
    )
    return bool(own) and own == told


def own_templates(teacher: Encoder) -> tuple[str, ...]:
    """Those that the pasture's models learned with; the bare label for all others."""
    if not teacher.name.startswith("pasture"):
        return ("{}",)
    return templates("pasture", teacher.languages[0])


def base_flags(
    classes: Classes, card: Mapping[str, Any], options: Options
) -> tuple[Tensor, list[str]]:
    """Which of K classes had boxes in training, (K,) bool, and the sentence that says so.

    Raises:
        ValueError: --base or --novel name something that is not looked for, or the same.
    """
    index = {fold(name): k for k, name in enumerate(classes.names)}
    for option, names in (("--base", options.base), ("--novel", options.novel)):
        for name in names:
            if fold(name) not in index:
                raise ValueError(f"{option}: {unknown_name('label', name, classes.names)}")
    if both := {fold(n) for n in options.base} & {fold(n) for n in options.novel}:
        raise ValueError(f"--base and --novel both name {min(both)!r}; expected one of them")
    known = {fold(name) for name in (card.get("categories") or {}).get("base", ())}
    flags = [
        bool({fold(name), fold(prompt)} & known)
        for name, prompt in zip(classes.names, classes.prompts, strict=True)
    ]
    for names, flag in ((options.base, True), (options.novel, False)):
        for name in names:
            flags[index[fold(name)]] = flag
    if not known and not options.base and not options.novel:
        return torch.tensor(flags), [
            "no card says which labels had boxes in training, so all are taken as novel: --base "
            "names others"
        ]
    return torch.tensor(flags), [
        f"{sum(flags)} of the {len(flags)} labels had boxes in the detector's training (base), so "
        "its text head names them; for the others (novel) its teacher's view counts more"
    ]


def choose_head(model: ViLD, card: Mapping[str, Any], wanted: str | None, *, single: bool) -> str:
    """The head that answers: as asked, else both, or the one that a single head was trained as.

    Raises:
        ValueError: an unknown head.
    """
    if wanted is not None and wanted not in HEADS:
        raise ValueError(f"--head: {unknown_name('head', wanted, HEADS)}")
    if wanted:
        return wanted
    if model.image_head is None:
        variant = (card.get("recipe") or {}).get("variant")
        return "image" if variant == "image" else "text"
    return "text" if single else "ensemble"
