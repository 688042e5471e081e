"""What all recipes share: schedules, resuming, pictures, cards and tables."""

import json
from dataclasses import replace
from pathlib import Path

import gather_rows
import numpy as np
import pytest
import torch
from torch import nn

from cliplab.cli.main import read_recipe
from cliplab.runtime import checkpoint_dir, read_card, sha256, write_json
from cliplab.training import cards
from cliplab.training.loop import Run, Schedule, adamw, fit, learning_rate
from cliplab.training.pictures import Arrays, augment, load_chunks, mirror_boxes, to_pixels

# ---- the loop ------------------------------------------------------------------------------


def test_rate_warms_up_and_falls_to_zero() -> None:
    schedule = Schedule(steps=100, lr=0.1, warmup=10)
    rates = [learning_rate(s, schedule) for s in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_only_matrices_decay() -> None:
    layer = nn.Linear(3, 2)
    matrices, others = adamw(layer.parameters(), Schedule(steps=1)).param_groups
    assert matrices["params"][0] is layer.weight
    assert others["params"][0] is layer.bias
    assert others["weight_decay"] == 0 < matrices["weight_decay"]


def line(folder: Path, steps: int, *, stop: int | None = None) -> torch.Tensor:
    """Fit a line; `stop` raises Ctrl-C at that step."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)

    def losses_of(step: int) -> dict[str, torch.Tensor]:
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        return {"square": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    schedule = Schedule(steps=steps, lr=0.05, warmup=2)
    fit(model, losses_of, schedule, Run(folder, {"steps": steps}), save_every=2)
    return model.weight.detach()


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path) -> None:
    whole = line(tmp_path / "whole", 30)
    with pytest.raises(KeyboardInterrupt):
        line(tmp_path / "halves", 30, stop=17)
    assert torch.equal(line(tmp_path / "halves", 30), whole)
    lines = [json.loads(x) for x in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "step" in line] == [20]
    here = f"cpu, {torch.get_num_threads()} threads"
    assert [line["trained on"] for line in lines if "step" not in line] == [here]


def test_a_state_of_other_settings_is_refused(tmp_path) -> None:
    line(tmp_path, 4)
    with pytest.raises(ValueError, match=r"other steps: remove the folder to start anew"):
        line(tmp_path, 6)


def test_a_loss_that_explodes_stops_the_training(tmp_path) -> None:
    model, run = nn.Linear(1, 1), Run(tmp_path, {})
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        fit(model, lambda step: {"a": model.weight.sum() * torch.nan}, Schedule(1), run)


def test_the_log_has_each_of_several_losses(tmp_path) -> None:
    model = nn.Linear(1, 1)
    seen = []

    def losses_of(step: int) -> dict[str, torch.Tensor]:
        return {"a": model.weight.sum() * 0 + 1, "b": model.bias.sum() * 0 + 2}

    fit(model, losses_of, Schedule(101), Run(tmp_path, {}), after_step=seen.append)
    rows = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows if "a" in row] == [(100, 3.0)]
    assert next(row for row in rows if "a" in row)["b"] == 2
    assert seen == list(range(101))


# ---- pictures ------------------------------------------------------------------------------


def numbers(start: int, count: int) -> Arrays:
    return {"n": np.arange(start, start + count)}


@pytest.mark.parametrize("processes", [1, 2])
def test_files_are_made_once_and_joined_in_order(tmp_path, processes: int) -> None:
    def load(make) -> np.ndarray:
        return load_chunks(tmp_path, "n-", 7, make, size=3, processes=processes)["n"]

    assert load(numbers).tolist() == list(range(7))
    names = ["n-00000000-3.npz", "n-00000003-3.npz", "n-00000006-1.npz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    (tmp_path / names[1]).unlink()  # as if it had been interrupted
    asked = []

    def again(start: int, count: int) -> Arrays:
        asked.append((start, count))
        return numbers(start, count)

    assert load(again).tolist() == list(range(7))
    assert asked == [(3, 3)]


def test_extra_channels_move_with_the_picture_and_keep_their_values() -> None:
    dark = np.random.default_rng(0).integers(0, 2, (3, 16, 16, 3), dtype=np.uint8)
    both = np.concatenate([100 * dark, dark[..., :1]], axis=3)
    moved = augment(both, np.random.default_rng(1), shift=4)
    assert (moved.shape, moved.dtype) == (both.shape, np.uint8)
    assert (moved[..., 3] == (moved[..., 0] > 0)).all()
    assert not (moved[..., 3] == both[..., 3]).all()
    assert not np.isin(moved[..., 0], (0, 100)).all()  # brightened


def test_mirrored_boxes_hold_the_mirrored_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 255, (9, 12), dtype=np.uint8)
    boxes = torch.tensor([[1.0, 2, 5, 8], [0, 0, 12, 9]])
    a, b, c, d = mirror_boxes(boxes, 12)[0].int().tolist()
    assert (image[:, ::-1][b:d, a:c] == image[2:8, 1:5][:, ::-1]).all()
    assert torch.equal(mirror_boxes(mirror_boxes(boxes, 12), 12), boxes)


def test_pixels_are_normalised() -> None:
    white, gains = np.full((1, 4, 6, 3), 255, np.uint8), np.array([0.5])
    for given, expected in ((None, [1, 1, 0]), (gains, [0, 0.5, -0.25])):
        pixels = to_pixels(white, (0.5, 0, 1), (0.5, 1, 2), given)
        assert pixels.shape == (1, 3, 4, 6)
        assert pixels[0, :, 0, 0].tolist() == pytest.approx(expected)


# ---- cards ---------------------------------------------------------------------------------

SHIPPED = {
    "clip-openai": "clip", "clip-chinese": "clip", "vild": "vild", "glip": "glip",
    "glip-no-fusion": "glip", "groupvit": "groupvit",
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_is_of_its_files_readable_and_says_what_makes_them(name: str) -> None:
    folder = checkpoint_dir(name)
    card = read_card(folder)
    found = {p.name for p in folder.iterdir()} - set(cards.BESIDES)
    assert found == set(card["files"])
    assert all(sha256(folder / f) == digest for f, digest in card["files"].items())
    text = (folder / "model_card.md").read_text("utf-8")
    assert text == cards.rendered(card), "write it again: cliplab.training.cards.save_card"
    assert card["command"] in text
    assert len(text.splitlines()) < 400
    *_, stem, rest = card["command"].split(maxsplit=5)
    assert card["command"].startswith(f"python -m cliplab train {SHIPPED[name]} ")
    made = read_recipe(stem, *rest.split()).recipe
    assert (replace(made, fusion=True) if stem == "glip" else made) == type(made)()


def test_every_shipped_card_is_looked_at() -> None:
    assert {p.parent.name for p in checkpoint_dir("").glob("*/*card.json")} == set(SHIPPED)


def test_a_command_says_all_kinds_of_options() -> None:
    options = {"seed": 1, "no_such": True, "fusion": False, "steps": (2, 0), "start": ""}
    said = cards.command_of("glip", options)
    assert said == (
        "python -m cliplab train glip --seed 1 --no-such --no-fusion --steps 2 0 --start ''"
    )


# ---- tables --------------------------------------------------------------------------------


def vild_card(seed: int, variant: str = "text", novel: str = "zero", **changes) -> dict:
    scored = {
        g: dict.fromkeys(("ap50", "ap", "ar"), v + seed / 100)
        for g, v in (("base", 0.5), ("novel", 0.25))
    }
    recall = {"base": {"value": 1.0}, "novel": {"value": 0.9}}
    heads = dict.fromkeys(("text", "image", "ensemble"), scored)
    return {
        "recipe": {"variant": variant, "novel": novel, "seed": seed, "steps": 5},
        "command": f"train {variant} {novel} {seed}",
        "teacher": {"fingerprint": "ab"},
        "metrics": {"pictures": 600, "recall": recall, **heads},
    } | changes


def glip_card(seed: int, *steps: int, fusion: bool = True, pictures: int = 4) -> dict:
    right = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10 + seed}
    metrics = {"pictures": pictures, "grounding": {"relation": right, "chance": 0.25}}
    made = {"seed": seed, "fusion": fusion, "pictures": 6, "rounds": [{"steps": n} for n in steps]}
    return {"recipe": made, "command": f"train {fusion} {seed} {steps}", "metrics": metrics}


def groupvit_card(seed: int, pictures: int = 100, **changes) -> dict:
    """As the shipped cards are: with the names that fields had before."""
    recipe = {"seed": seed, "steps": 400, "more": 0, "answered": 4000} | changes
    return {
        "recipe": recipe,
        "command": f"train {seed} {changes}",
        "metrics": {"pictures": pictures, "val pictures": 4, "en": {"tuned": 0.5 + seed / 100}},
    }


def gathered(stem: str, folder: Path, some: list[dict]) -> dict:
    """By the command, from files."""
    for i, card in enumerate(some):
        write_json(folder / str(i) / "model_card.json", card)
    gather_rows.main([stem, "--folders", str(folder), "--out", str(folder / "rows.json")])
    return json.loads((folder / "rows.json").read_text("utf-8"))


def test_rows_of_vild_hold_a_number_per_seed(tmp_path) -> None:
    some = [vild_card(1), vild_card(0), vild_card(0, "ensemble"), vild_card(0, "text", "masked")]
    table = gathered("vild", tmp_path, some)
    rows = table["rows"]
    assert rows["text"]["seeds"] == [0, 1]
    assert rows["text"]["novel"]["ap50"] == [0.25, 0.26]
    assert rows["text"]["recall"] == {"base": [1.0, 1.0], "novel": [0.9, 0.9]}
    assert list(rows) == [
        "text", "ensemble", "ensemble: text head", "ensemble: image head", "text, masked"
    ]  # fmt: skip
    assert len(table["trainings"]) == 4


def test_rows_of_glip_are_whole_or_halfway(tmp_path, monkeypatch) -> None:
    some = [glip_card(1, 5, 4, 3), glip_card(0, 5, 4, 3), glip_card(0, 5, 4, 3, fusion=False)]
    some += [glip_card(2, 5, 4, 0), glip_card(0, 5, 0, 3)]  # the last is no row
    table = gathered("glip", tmp_path, some)
    assert {name: row["seeds"] for name, row in table["rows"].items()} == {
        "fusion": [0, 1], "no fusion": [0], "fusion, halfway": [2],
    }  # fmt: skip
    assert len(table["trainings"]) == 4
    for path, value in (("relation", 0.5), ("chance", 0.25)):
        assert cards.values(table["rows"]["fusion"], "grounding", path) == [value, value]
    (tmp_path / "rows.json").rename(tmp_path / "away.json")
    monkeypatch.setattr(cards, "checkpoint_dir", lambda name: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python tools/gather_rows\.py glip"):
        cards.load_rows("glip")


def test_rows_of_groupvit_keep_the_recipe_and_the_baselines(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gather_rows, "BASELINES", tmp_path / "baselines.json")
    shipped = groupvit_card(0, 200) | {"recipe": {"seed": 0, "steps": 800, "more": 1000}}
    some = [shipped, groupvit_card(1), groupvit_card(0), groupvit_card(0, stages=0)]
    table = gathered("groupvit", tmp_path / "a", some)
    assert set(table["rows"]) == {"1-stage-soft", "no-groups", "shipped"}
    row = table["rows"]["1-stage-soft"]
    assert (row["seeds"], row["recipe"]["steps"], table["steps"]) == ([0, 1], 400, 400)
    assert cards.values(row, "en", "tuned") == [0.5, 0.51]
    assert table["baselines"] == cards.load_rows("groupvit")["baselines"]  # of the shipped table
    write_json(tmp_path / "baselines.json", {"pictures": 100, "rows": {"majority": {"miou": 0.0}}})
    assert set(gathered("groupvit", tmp_path / "b", some)["baselines"]) == {"majority"}
    with pytest.raises(ValueError, match="baselines: got 100 pictures, the cards have 7"):
        gather_rows.gather("groupvit", gather_rows.GROUPVIT, [groupvit_card(0, 7)])


@pytest.mark.parametrize(
    ("stem", "some", "message"),
    [
        ("vild", [], "no model card found; train first"),
        ("vild", [vild_card(0)] * 2, "row 'text': two cards of seed 0; expected one"),
        ("vild", [vild_card(0), vild_card(1, teacher={"fingerprint": "cd"})],
         "teacher: the cards have ab, cd"),
        ("glip", [glip_card(0, 5, 4, 3), glip_card(1, 5, 4, 3, pictures=9)],
         "pictures in the evaluation: the cards have 4, 9; expected one value"),
        ("glip", [glip_card(0, 5, 4, 3), glip_card(1, 5, 6, 3)], "steps of the first two"),
        ("groupvit", [groupvit_card(0), groupvit_card(1, steps=6)], "steps: the cards have"),
    ],
)  # fmt: skip
def test_cards_that_cannot_be_compared_make_no_table(stem, some: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gather_rows.gather(stem, gather_rows.TABLES[stem], some)


def test_a_card_shows_numbers_with_their_intervals(tmp_path: Path) -> None:
    rate = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    metrics = {"seen": {"joint": rate, "confusion": [[1, 2]]}, "tiny": 1e-5, "words": ["a", "b"]}
    cards.save_card(tmp_path, {"name": "x", "command": "python -m x", "metrics": metrics})
    lines = (tmp_path / "model_card.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# x"
    assert "| command | `python -m x` |" in lines
    assert lines[lines.index("## Metrics") + 4 :] == [
        "| seen · joint | 0.500 (0.250–0.750, n = 8) |", "| tiny | 1e-05 |", "| words | a, b |",
    ]  # fmt: skip
