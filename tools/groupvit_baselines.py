"""What GroupViT is measured against: `python tools/groupvit_baselines.py`.

From below: the most frequent class everywhere; the shipped CLIP's patches, each named by itself
(as MaskCLIP does), or in clusters (k-means, spectral). From above: the same image tower with a
linear layer, trained on the masks. That is the only training here that sees a mask, and nothing of
it is shared with the captions' training but the untrained network.

All are judged in the harness of `groupvit_evaluation`: the same test pictures, full resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from numpy.typing import NDArray
from torch import Tensor, nn

from cliplab.classification import build_classifier, templates
from cliplab.encoders import load_encoder
from cliplab.models.clip import IMAGE_MEAN, IMAGE_STD, load_openai
from cliplab.models.layers import ModifiedResNet
from cliplab.pasture import SEMANTIC_CLASSES, labels
from cliplab.runtime import checkpoint_dir, seed_all, write_json
from cliplab.segmentation import Quality, Tally, refine
from cliplab.training.groupvit_dataset import SHIFT, SIZE, load_dataset, scene_of
from cliplab.training.groupvit_evaluation import LabelledScenes, draw_scenes
from cliplab.training.groupvit_model import GroupViTRecipe, new_model
from cliplab.training.loop import Run, Schedule, fit, mixed_precision
from cliplab.training.pictures import augment, to_pixels

COMMAND = "python tools/groupvit_baselines.py"
SIDES = (96, 192, 320)  # px that CLIP is shown a picture at; chosen on val
CLUSTERS = (4, 6, 8, 12)  # a picture; chosen on val
# labels (H, W), and the segments that they were given to (H, W); None: no segments to speak of
Prediction = tuple[Tensor, Tensor | None]


def judge_labels(
    scenes: LabelledScenes, predict: Callable[[LabelledScenes], list[Prediction]]
) -> Quality:
    """The quality of any method that labels all pictures of an scenes."""
    tally = Tally(SEMANTIC_CLASSES)
    for (predicted, owner), true in zip(predict(scenes), scenes.truth, strict=True):
        tally.add(predicted, true, owner)
    return tally.result()


def majority(scenes: LabelledScenes) -> list[Prediction]:
    """Grass everywhere: the class with most pixels in val."""
    val = draw_scenes("val", 50)
    most = int(torch.bincount(val.truth.flatten().int()).argmax())
    return [(torch.full(true.shape, most), None) for true in scenes.truth]


# ---- the shipped CLIP ----------------------------------------------------------------------


class DenseCLIP:
    """The shipped CLIP, asked about every place of its last feature map.

    Its attention pooling mixes all places; without the mixing, value and output projection alone
    put each place into the space of the texts.

    Source: MaskCLIP, arXiv:2112.01071, section 3.2, for ResNets.
    """

    def __init__(self, path: Path | None = None) -> None:
        path = path or checkpoint_dir("clip-openai") / "model.pt"
        visual = load_openai(path).visual
        if not isinstance(visual, ModifiedResNet):
            raise ValueError(f"{path}: got a {type(visual).__name__}; expected a ResNet")
        self.visual = visual
        encoder = load_encoder(f"openai:{path}", device="cpu")
        self.text_emb = build_classifier(
            encoder, list(SEMANTIC_CLASSES), templates("pasture", "en")
        )  # (K, D)

    @torch.no_grad()
    def features(self, image: NDArray[np.uint8], side: int) -> tuple[Tensor, Tensor]:
        """A picture (S, S, 3) seen `side` px large -> unit rows (D, h, w), and what is under them.

        Returns:
            Stride 32, in the space of texts; and the map below (C, 2h, 2w), stride 16.
        """
        pixels = to_pixels(image[None], IMAGE_MEAN, IMAGE_STD)
        pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
        fine, coarse = self.visual.feature_maps(pixels)
        pool = self.visual.attnpool
        emb = pool.c_proj(pool.v_proj(coarse.flatten(2).transpose(1, 2)))  # (1, P, D)
        emb = F.normalize(emb, dim=-1).transpose(1, 2).unflatten(2, coarse.shape[-2:])
        return emb[0], fine[0]

    def label(
        self, scenes: LabelledScenes, *, side: int = 192, refine_steps: int = 0
    ) -> list[Prediction]:
        """Every place by itself: cosines with the names, interpolated, and the best one.

        Args:
            scenes: pictures.
            side: px that they are seen at.
            refine_steps: of `refine`, along the edges.
        """
        found: list[Prediction] = []
        for image in scenes.images:
            picture = to_pixels(image[None], IMAGE_MEAN, IMAGE_STD)
            scores = refine(self._scores(image, side)[None], picture, refine_steps)[0]
            found.append((scores.argmax(dim=0), None))
        return found

    def _scores(self, image: NDArray[np.uint8], side: int) -> Tensor:
        emb, _ = self.features(image, side)
        cosine = torch.einsum("kd,dhw->khw", self.text_emb, emb)
        return F.interpolate(cosine[None], image.shape[:2], mode="bilinear")[0]  # (K, S, S)

    def label_clusters(
        self, scenes: LabelledScenes, *, side: int = 192, clusters: int = 6, method: str = "k-means"
    ) -> list[Prediction]:
        """Places in clusters of features alike; a cluster's mean embedding is named.

        Args:
            scenes: pictures.
            side: px that they are seen at.
            clusters: of a picture.
            method: "k-means" or "spectral".
        """
        found: list[Prediction] = []
        for image in scenes.images:
            emb, fine = self.features(image, side)
            emb = F.interpolate(emb[None], fine.shape[-2:], mode="bilinear")[0]
            member = torch.from_numpy(_cluster(fine.flatten(1).T.numpy(), clusters, method)).long()
            share = F.one_hot(member, clusters).T.float()  # (G, P)
            mean = F.normalize(share @ emb.flatten(1).T, dim=-1)  # (G, D)
            named = (mean @ self.text_emb.T).argmax(dim=1)  # (G,)
            owner = member.view(1, 1, *fine.shape[-2:]).float()
            owner = F.interpolate(owner, image.shape[:2], mode="nearest")[0, 0].long()
            found.append((named[owner], owner))
        return found


def _cluster(features: NDArray[np.float32], count: int, method: str) -> NDArray[np.int_]:
    """Rows (P, C) -> cluster of each (P,)."""
    from sklearn.cluster import KMeans, SpectralClustering

    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    if method == "k-means":
        return KMeans(count, n_init=2, random_state=0).fit_predict(unit)
    affinity = np.exp((unit @ unit.T - 1) / 0.1)  # cosine distance, made a similarity
    spectral = SpectralClustering(count, affinity="precomputed", n_init=2, random_state=0)
    return spectral.fit_predict(affinity)


# ---- with masks ----------------------------------------------------------------------------


class Supervised(nn.Module):
    """The image tower without groups and a linear layer: (B, 3, S, S) -> logits (B, K, S, S)."""

    def __init__(self, recipe: GroupViTRecipe) -> None:
        super().__init__()
        whole = new_model(replace(recipe, stages=0))
        self.config, self.tower = whole.config, whole.img_encoder
        self.head = nn.Linear(recipe.width, len(SEMANTIC_CLASSES))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, K, S, S)."""
        seen = self.tower(pixels)
        coarse = self.head(seen.tok).transpose(1, 2).unflatten(2, seen.grid)  # (B, K, h, w)
        return F.interpolate(coarse.float(), pixels.shape[-2:], mode="bilinear")

    @torch.no_grad()
    def label(self, scenes: LabelledScenes) -> list[Prediction]:
        """The best class of every pixel."""
        self.eval()
        parts = np.array_split(scenes.images, max(1, len(scenes) // 25))
        pixels = (to_pixels(part, IMAGE_MEAN, IMAGE_STD) for part in parts)
        return [(named, None) for part in pixels for named in self(part).argmax(dim=1)]


def train_supervised(recipe: GroupViTRecipe, work: Path) -> Supervised:
    """Learn the masks of the pictures that the others see captions of; same budget."""
    dataset = load_dataset(work / "scenes", recipe.pictures)
    masks = np.stack([labels(scene_of(seed), SIZE).semantic for seed in range(recipe.pictures)])
    seed_all(recipe.seed)
    model = Supervised(recipe).to(memory_format=torch.channels_last).train()

    def losses_of(step: int) -> dict[str, Tensor]:
        generator = np.random.default_rng([recipe.seed, step])
        chosen = generator.choice(len(dataset), recipe.batch, replace=len(dataset) < recipe.batch)
        # One array, so that mask and picture are mirrored and moved together.
        both = np.concatenate([dataset.images[chosen], masks[chosen][..., None]], axis=3)
        moved = augment(both, generator, shift=SHIFT)
        pixels = to_pixels(moved[..., :3], IMAGE_MEAN, IMAGE_STD)
        with mixed_precision(torch.device("cpu")):
            logits = model(pixels)
        return {"masks": F.cross_entropy(logits, torch.from_numpy(moved[..., 3].copy()).long())}

    schedule = Schedule(steps=recipe.steps, lr=recipe.lr, warmup=min(100, recipe.steps // 4))
    folder = work / "supervised" / f"seed{recipe.seed}-{recipe.steps}"
    settings = {k: getattr(recipe, k) for k in ("seed", "steps", "pictures", "batch", "lr")}
    fit(model, losses_of, schedule, Run(folder, settings))
    return model.eval()


# ---- the rows ------------------------------------------------------------------------------


def untrained_rows(scenes: LabelledScenes, val: LabelledScenes) -> dict[str, dict[str, Any]]:
    """All baselines that train nothing, each with the settings that were best on val."""
    clip = DenseCLIP()

    def best(predict: Callable[..., list[Prediction]], grid: list[dict[str, Any]]) -> dict:
        scored = [judge_labels(val, partial(predict, **options)).miou for options in grid]
        options = grid[scored.index(max(scored))]
        return {**judge_labels(scenes, partial(predict, **options)).as_dict(), "settings": options}

    rows = {
        "majority": {**judge_labels(scenes, majority).as_dict(), "settings": {}},
        "dense CLIP": best(
            clip.label,
            [{"side": side, "refine_steps": steps} for side in SIDES for steps in (0, 20)],
        ),
    }
    for method in ("k-means", "spectral"):
        grid = [{"method": method, "side": 192, "clusters": count} for count in CLUSTERS]
        rows[method] = best(clip.label_clusters, grid)
    return rows


@dataclass(frozen=True)
class Options:
    """Options of `python tools/groupvit_baselines.py`."""

    pictures: int = 200  # of the test split
    val_pictures: int = 40  # to choose settings on
    steps: int = GroupViTRecipe.steps  # with masks
    seeds: tuple[int, ...] = (0,)  # of the same
    threads: int = 0  # of the CPU; 0 leaves it to torch
    work: Path = Path("runs/train/groupvit")  # pictures, states; baselines.json goes there


def main(typed: list[str] | None = None) -> None:
    """Measure all baselines and write them beside the trainings, for the table."""
    options = tyro.cli(Options, args=typed, description=__doc__)
    if options.threads:
        torch.set_num_threads(options.threads)
    scenes, val = draw_scenes("test", options.pictures), draw_scenes("val", options.val_pictures)
    rows = untrained_rows(scenes, val)
    for seed in options.seeds:
        model = train_supervised(GroupViTRecipe(seed=seed, steps=options.steps), options.work)
        quality = judge_labels(scenes, model.label).as_dict()
        rows[f"supervised, seed {seed}"] = {**quality, "settings": {"steps": options.steps}}
    table = {"command": COMMAND, "pictures": options.pictures, "rows": rows}
    write_json(options.work / "baselines.json", table)
    for name, row in rows.items():
        print(f"{name:24} mIoU {row['miou']:.3f}")


if __name__ == "__main__":
    main()
