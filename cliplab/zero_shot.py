"""Zero-shot classification: class names become a classifier, cosines become probabilities.

Taught in: notebooks/02. Source: CLIP, arXiv:2103.00020, section 3.1.
"""

import json
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.runtime import data_dir, unknown_name
from cliplab.scores import Scores
from cliplab.two_towers import Encoder

__all__ = ["Scores", "build_classifier", "check_class_names", "classify", "templates"]


def build_classifier(
    encoder: Encoder,
    class_names: Sequence[str],
    templates: Sequence[str] = ("{}",),
    *,
    truncate: bool = False,
) -> Tensor:
    """Mean of unit prompt embeddings, re-normalised: K classes x T templates -> (K, D) unit rows.

    Args:
        encoder: whose text tower reads the prompts.
        class_names: at least two, all different.
        templates: prompts with {} where the class name goes.
        truncate: cut prompts that are longer than the encoder's context.

    Raises:
        ValueError: no, one or repeated class names; a template without {}; a prompt longer than
            the context, unless `truncate`.

    Source: CLIP, section 3.1.4: ensembling in embedding space costs nothing once it is computed.
    """
    names = check_class_names(class_names)
    templates = _check_templates(templates)
    prompts = [template.replace("{}", name) for name in names for template in templates]
    prompt_emb = encoder.encode_text(prompts, truncate=truncate)  # (K*T, D), class-major
    mean = prompt_emb.unflatten(0, (len(names), len(templates))).mean(dim=1)  # (K, D)
    return F.normalize(mean, dim=-1)


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """The names without outer white space; ValueError unless at least two differ, whatever case."""
    if isinstance(class_names, str):
        raise ValueError(
            f"class_names: got the text {class_names!r}; expected a list, such as ['sheep', 'goat']"
        )
    names = [str(name).strip() for name in class_names]
    if not names:
        raise ValueError("class_names: got none; expected two or more to choose between")
    if not all(names):
        raise ValueError(f"class_names: got an empty name in {names}; expected text")
    if len(names) == 1:
        raise ValueError(
            f"class_names: got only {names[0]!r}, which would always get 100 %; "
            "expected two or more, for instance with 'something else'"
        )
    # Both tokenizers lower-case: "Sheep" and "sheep" would be the same row twice.
    folded = [name.casefold() for name in names]
    if repeated := sorted({name for name in names if folded.count(name.casefold()) > 1}):
        raise ValueError(
            f"class_names: {', '.join(map(repr, repeated))} repeated; expected each once, since "
            "duplicates share their probability"
        )
    return names


def _check_templates(templates: Sequence[str]) -> list[str]:
    if isinstance(templates, str):
        raise ValueError(f"templates: got the text {templates!r}; expected a list: [{templates!r}]")
    if not templates:
        raise ValueError("templates: got none; expected at least one, such as '{}'")
    for template in templates:
        if "{}" not in template:
            raise ValueError(
                f"template {template!r} has no {{}}, so every class would get the same prompt; "
                "write {} where the class name goes, as in 'a photo of a {}.'"
            )
    return list(templates)


def templates(name: str, language: str) -> tuple[str, ...]:
    """The templates of `data/prompts/<name>.json` in one language; its provenance is in the file.

    Raises:
        FileNotFoundError: no such set; those that exist are listed.
        ValueError: the set has no such language.
    """
    folder = data_dir() / "prompts"
    sets = sorted(path.stem for path in folder.glob("*.json"))
    if name not in sets:
        raise FileNotFoundError(f"{folder}: {unknown_name('prompt set', name, sets)}")
    languages = json.loads((folder / f"{name}.json").read_text("utf-8"))
    if language not in languages or language == "provenance":
        known = [key for key in languages if key != "provenance"]
        raise ValueError(f"{name}: {unknown_name('language', language, known)}")
    return tuple(languages[language]["templates"])


def classify(
    encoder: Encoder,
    images: Iterable[Image.Image],
    classifier: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> Scores:
    """Cosines of N images with K classes, and softmax of logit_scale times them -> `Scores`.

    Args:
        encoder: the one that built the classifier.
        images: PIL images, or a generator of them.
        classifier: (K, D) unit rows from `build_classifier`.
        class_names: K names for tables and figures; default "class 0", "class 1", ...
        batch_size: images encoded at a time.
        progress: show a bar on stderr.

    Raises:
        ValueError: a classifier of another shape, of rows that are not unit, or for other names.
    """
    if classifier.ndim != 2 or classifier.shape[1] != encoder.dim:
        raise ValueError(
            f"classifier: got shape {tuple(classifier.shape)}; expected (K, {encoder.dim}) for "
            f"{encoder.name}: build it with build_classifier and the same encoder"
        )
    if not torch.allclose(classifier.norm(dim=1), torch.ones(len(classifier)), atol=1e-3):
        raise ValueError("classifier: rows are not of unit length; use F.normalize(rows, dim=-1)")
    names = class_names or [f"class {k}" for k in range(len(classifier))]
    image_emb = encoder.encode_image(images, batch_size=batch_size, progress=progress)  # (N, D)
    bias = getattr(encoder, "logit_bias", None)  # of a sigmoid loss, as SigLIP's
    return Scores.from_cosine(names, image_emb @ classifier.T, encoder.logit_scale, bias)
