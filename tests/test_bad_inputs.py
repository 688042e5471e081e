"""What users get wrong, one row each: what is refused names its cause, and nothing is written.

`bad_files.make` draws the files. Rows of one table share what stands before and after them.
"""

import importlib
import shlex
from pathlib import Path

import bad_files
import pytest

from cliplab.cli.main import main
from cliplab.training import RECIPES

LABELS = "--labels sheep goat"

# (what is typed, what the error must name)
Row = tuple[str, str]

# ---- files -----------------------------------------------------------------------------------

SOUND = {"image-twice", "polygon-odd", "polygon-words", "rle-size", "rle-short", "rle-text"}
FILES: list[Row] = [
    *((f"classify coco-{name}.json --images frames {LABELS}", f"coco-{name}.json")
      for name in bad_files.COCO if name not in SOUND),
    *((f"classify csv-{name}.csv --images frames {LABELS}", f"csv-{name}.csv")
      for name in bad_files.CSV
      if name not in {"conflict", "latin", "no-label", "up", "not-picture"}),
    (f"classify csv-up.csv --images frames {LABELS}", "passwd"),
    (f"classify csv-not-picture.csv --images frames {LABELS}", "csv-not-picture.csv"),
    *((f"classify yolo/{name}.yaml {LABELS}", f"{name}.yaml") for name in bad_files.YAML),
    *((f"classify yolo-{name} {LABELS}", "a.txt") for name in bad_files.YOLO if name != "flat"),
    (f"classify yolo-flat {LABELS}", "images/a.png"),
    *((f"{command} {source} {LABELS}", source)
      for command in ("classify", "detect", "segment")
      for source in ("nowhere", "empty", "folder.png", "texts", "page.pdf", "broken.safetensors",
                     "no-classes", "frames/notes.txt")),
    *((f"{command} {file} {LABELS}", file)
      for command in ("detect", "segment")
      for file in ("zero.png", "html.png", "cut.jpg", "pointer.png")),
    *((f"segment frames --truth {truth} {LABELS}", truth)
      for truth in ("truth-twice", "truth-none", "nowhere", "there.csv")),
    (f"segment frames --truth truth-bare {LABELS}", "truth-bare/classes.txt"),
]  # fmt: skip

# ---- options ---------------------------------------------------------------------------------

OF_SHARED: list[Row] = [  # of classify, detect and segment alike
    ("--split tset", "has a split; leave out --split"),
    ("--kind png", "--kind"),
    ("--device tpu", "'cpu'"),
    ("--json there.json", "there.json"),
    ("--html there.html", "there.html"),
    ("--html x.html --json x.html", "--json"),
    ("--template sheep", "{}"),
    ("--verbose", "--verbose"),
    ("--labels", "--labels"),
    ("--labels sheep sheep", "'sheep' repeated"),
    ("--labels = goat", "'='"),
    ("--labels ,", "--labels: got none; expected"),
]
OF_CLASSIFY: list[Row] = [
    ("--labels sheep", "'sheep'"),
    ("--labels '' goat", "'goat'"),
    ("--lables sheep", "did you mean --labels"),
    ("--labels sheep Sheep", "'Sheep'"),
    (f"--labels '{'sheep ' * 200}' goat", "77"),
    ("--images one.png", "frames"),
    ("--boxes nowhere.json", "nowhere.json"),
    ("--boxes coco-cut.json", "coco-cut.json"),
    ("--boxes csv-box-words.csv", "csv-box-words.csv"),
    ("--box-scale 0", "--box-scale"),
    ("--batch-size 0", "--batch-size"),
    ("--seed x", "--seed"),
    ("--precision float16", "--precision"),
    ("--template {name}", "{name}"),
    ("--shots 2", "--examples"),
    ("--method magic --examples classes", "'magic'"),
    ("--save-classifier x.safetensors", "--examples"),
    ("--examples nowhere", "nowhere"),
    ("--examples frames", "frames"),
    ("--examples one-class", "sheep/a.png"),
    ("--examples classes --shots 99", "99"),
    ("--examples classes --shots 0", "--shots"),
    ("--examples classes --classifier broken.safetensors", "--classifier and --examples"),
    ("--classifier broken.safetensors", "--classifier and --labels"),
    ("--out outfolder", "outfolder"),
    ("--out there.csv", "there.csv"),
    ("--out frames/a.png --force", "frames/a.png"),
    ("--out x.csv --json x.csv", "--json"),
    ("--encoder pastrue", "'pasture'"),
    ("--encoder openai:", "'openai:'"),
    ("--encoder openai:ViT-Z", "ViT-B/32"),
    ("--encoder openai:empty.pt", "empty.pt"),
    ("--encoder openai:html.pt", "html.pt"),
    ("--encoder hf:empty", "empty/config.json"),
    ("--encoder modelscope:empty", "vision_model_config.json"),
    ("--encoder modelscope:no/such", "no/such"),
]
OF_DETECT: list[Row] = [
    ("--model vlid", "'vild'"),
    ("--model vild:", "vild:PATH"),
    ("--model vild:frames", "frames"),
    ("--model glip:html.pt", "html.pt"),
    ("--model glip-t:html.pt", "html.pt"),
    ("--model glip-x:html.pt", "glip-x"),
    *((f"--score {value}", "--score") for value in ("2", "-0.1", "nan", "half")),
    *((f"--iou {value}", "--iou") for value in ("0", "7", "nan")),
    *((f"--top {value}", "--top") for value in ("0", "-3", "all")),
    ("--head text", "--head"),
    ("--teacher pasture", "--teacher"),
    ("--model crops --teacher pastrue", "'pasture'"),
    ("--model crops --teacher openai:html.pt", "html.pt"),
    ("--boxes nowhere.json", "nowhere.json"),
    ("--boxes coco-cut.json", "coco-cut.json"),
    ("--model crops --labels sheep", "'sheep'"),
    (f"--labels '{'sheep ' * 90}' goat", "77"),
    ("--out there.json", "there.json"),
    ("--pictures there.csv", "there.csv: a file; expected a folder"),
    ("--pictures frames", "frames"),
    ("--phrases sheep", "--phrases"),
]
OF_SEGMENT: list[Row] = [
    ("--model groupvti", "'groupvti'"),
    ("--model pastur", "did you mean 'pasture'"),
    ("--model html.pt", "html.pt"),
    ("--model empty", "empty"),
    ("--model hf:nowhere/x", "hf download nowhere/x"),
    *((f"--threshold {value}", "--threshold") for value in ("5", "-1", "nan", "low")),
    ("--refine 3", "--refine"),
    ("--labels sheep", "'sheep'"),
    ("--labels sheep --threshold 0.5", "'sheep'"),
    ("--labels a=sheep|goat b=goat", "'goat' repeated"),
    (f"--labels '{'sheep ' * 90}' goat", "too long"),
    ("--labels 'sheep=|' goat", "''"),
    ("--background sheep", "'sheep' repeated"),
    ("--background ''", "--background"),
    ("--out there.csv", "there.csv"),
    ("--panoptic there.json", "there.json"),
]
PHRASES: list[Row] = [
    *((f"'{text}'", "--phrases") for text in ("", " ", "[sheep", "sheep]", "[]", "?!.", "，、")),
    ("'not a sheep'", "not a sheep"),
    ("123", "'123'"),
    ("😀", "😀"),
    ("sheep --score 3", "--score"),
    ("sheep --template {}", "--template"),
]

# ---- the other commands ----------------------------------------------------------------------

OF_IMAGENET: list[Row] = [
    ("--data nowhere", "nowhere"),
    ("--data frames", "frames"),
    ("--data classes", "classes"),
    ("--data classes --template openai99", "openai80"),
    ("--data classes --json there.json", "there.json"),
]
OF_TRAIN: list[Row] = [
    ("clpi", "'clip'"),
    *((f"clip {option}", option.split()[0]) for option in (
        "--steps 0", "--steps x", "--steps -5", "--batch 0", "--lr nan", "--lr -1", "--model clip",
        "--recolour -1", "--width 0", "--threads -1", "--workers -1", "--test-pictures 0",
        "--unknown 1", "--portraits inf")),
    *((f"vild {option}", option.split()[0]) for option in (
        "--variant none", "--novel some", "--pictures 0", "--distill-weight nan")),
    *((f"glip {option}", option.split()[0]) for option in (
        "--max-tokens 0", "--pictures -1", "--steps x", "--start here")),
    *((f"groupvit {option}", option.split()[0]) for option in (
        "--stages 5", "--recipe web", "--captions 2", "--share nan")),
    ("groupvit --second-round-steps -1", "second-round"),
    ("groupvit --groups 1", "groups"),
]  # fmt: skip
OTHERS: list[Row] = [
    ("classif frames", "'classify'"),
    ("--labels a b", "'--labels'"),
    *((command, "SOURCE") for command in ("classify", "detect", "segment")),
    *((f"{command} ''", "empty path") for command in ("classify", "detect", "segment")),
    ("classify frames", "--labels"),
    ("detect frames", "labels"),
    ("segment frames", "--labels"),
    ("detect frames --phrases sheep", "the model glip"),
    ("detect frames --model crops --phrases sheep", "the model glip"),
    ("classify frames --classifier broken.safetensors", "broken.safetensors"),
    ("classify frames --classifier frames", "frames"),
    ("classify classes --labels shep goat", "'sheep'"),
    ("evaluate", "BENCHMARK"),
    ("evaluate imagenet", "--data"),
    ("evaluate imagenet --data classes", "--encoder"),
    ("evaluate imagnet", "'imagenet'"),
    ("run 09", "'09'"),
    ("run nowhere.ipynb", "nowhere.ipynb"),
    ("run 02 -p X", "NAME=VALUE"),
    ("run 02 -p UNKNOWN=1", "UNKNOWN"),
    ("run 02 -p QUICK=maybe", "QUICK"),
    ("run 02 -p SEED=abc", "SEED"),
    *((f"run 02 --timeout {value}", "--timeout") for value in ("-1", "nan", "inf", "soon")),
    ("run 02 --out frames", "frames"),
    ("run 02 --out there.csv", "there.csv"),
    ("run --resume --out nowhere", "nowhere"),
    ("report", "RUN"),
    ("report nowhere", "nowhere"),
    ("report --compare frames", "--compare"),
    ("report --compare frames nowhere", "frames"),
    ("report --compare frames frames --rtol x", "--rtol"),
    ("report frames --compare a b", "--compare"),
    ("doctor --debg", "--debug"),
]

ROWS: list[Row] = [
    *FILES,
    *((f"{command} frames {LABELS} {typed}", name)
      for command in ("classify", "detect", "segment") for typed, name in OF_SHARED),
    *((f"classify frames {LABELS} {typed}", name) for typed, name in OF_CLASSIFY),
    *((f"detect frames {LABELS} {typed}", name) for typed, name in OF_DETECT),
    *((f"segment frames {LABELS} {typed}", name) for typed, name in OF_SEGMENT),
    *((f"detect frames --model glip --phrases {typed}", name) for typed, name in PHRASES),
    *((f"evaluate imagenet --encoder pasture {typed}", name) for typed, name in OF_IMAGENET),
    *((f"train {typed}", name) for typed, name in OF_TRAIN),
    *OTHERS,
]  # fmt: skip

# (what is typed, what must be said of it): it works, but not silently
REMARKED: list[Row] = [
    (f"classify csv-conflict.csv --images frames {LABELS}", "under two classes"),
    (f"classify coco-image-twice.json --images frames {LABELS}", "annotation 2"),
    (f"classify coco-polygon-odd.json --images frames {LABELS}", "b.png"),
    ("classify frames --labels 😀 🐑", "😀"),
    *((f"segment frames --truth truth-{name} {LABELS}", "frames/a.png")
      for name in ("high", "colours")),
    *((f"segment coco-{name}.json --images frames {LABELS}", "not judged")
      for name in ("polygon-odd", "polygon-words", "rle-size", "rle-short", "rle-text")),
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad")
    bad_files.make(root)
    return root


@pytest.fixture
def here(root: Path, tmp_path: Path, loaded_once: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bad files' folder; encoders are loaded once, nothing is fetched, nothing is trained."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("CLIPLAB_OFFLINE", "1")
    monkeypatch.setenv("CLIPLAB_CACHE", str(tmp_path))
    return root


def _seen(root: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob("*")}


def test_the_table_is_long() -> None:
    assert len(dict(ROWS + REMARKED)) == len(ROWS + REMARKED) >= 250


@pytest.mark.parametrize(("typed", "name"), ROWS, ids=[typed[:80] for typed, _ in ROWS])
def test_it_is_refused(
    typed: str, name: str, here: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    words = shlex.split(typed)
    if words[0] == "train" and words[1] in RECIPES:
        recipe = importlib.import_module(f"cliplab.training.{words[1]}")
        monkeypatch.setattr(recipe, "run", lambda options: pytest.fail(f"accepted: {options}"))
    before = _seen(here)
    assert main(words) == 2
    said = capsys.readouterr()
    error = said.err.splitlines()[-1]
    assert error.startswith("cliplab")
    assert name in error.partition(": error: ")[2]
    assert (said.out, len(error) < 1000, "Traceback" in said.err) == ("", True, False)
    assert _seen(here) == before


@pytest.mark.parametrize(("typed", "name"), REMARKED, ids=[typed[:80] for typed, _ in REMARKED])
def test_it_is_said(typed: str, name: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    before = _seen(here)
    assert main(shlex.split(typed)) == 0
    assert name in capsys.readouterr().err
    assert _seen(here) == before
