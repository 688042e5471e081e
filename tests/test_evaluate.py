"""`python -m cliplab evaluate imagenet` on a miniature of ImageNet, and every way to go wrong."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import noise_images

from cliplab.classification.imagenet import (
    Prompts,
    ValidationSet,
    classifier_of,
    evaluate,
    ranks,
    read_prompts,
    read_validation,
)
from cliplab.classification.metrics import expected_calibration_error, rate
from cliplab.cli.main import main
from cliplab.data import open_image
from cliplab.encoders import EmbeddingCache, Encoder, load_encoder

zero_shot_metadata = pytest.importorskip("open_clip.zero_shot_metadata")

CLASSES = (0, 1, 6, 134, 207, 281, 517, 836, 837, 948, 998, 999)  # 836 and 837: "sunglasses"
PER_CLASS = {0: 3, 6: 4, 134: 2, 281: 5, 837: 3, 999: 4}  # pictures of six of them
TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def weights(data: Path) -> Path:
    return data / "checkpoints" / "clip-openai" / "model.pt"


@pytest.fixture(scope="module")
def encoder(weights: Path) -> Encoder:
    return load_encoder(f"openai:{weights}", device="cpu")


@pytest.fixture(scope="module")
def all_prompts() -> Prompts:
    return read_prompts("openai80")


@pytest.fixture(scope="module")
def prompts(all_prompts: Prompts) -> Prompts:
    """Twelve classes, renumbered: all thousand take half a minute on a tiny tower."""
    wnids, names = (
        tuple(words[i] for i in CLASSES) for words in (all_prompts.wnids, all_prompts.class_names)
    )
    return replace(all_prompts, wnids=wnids, class_names=names)


@pytest.fixture(autouse=True)
def _own_places(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(data))
    monkeypatch.setenv("CLIPLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory, all_prompts: Prompts) -> Path:
    """21 pictures of six classes in ImageNet's own layout."""
    root = tmp_path_factory.mktemp("imagenet")
    images = iter(noise_images(sum(PER_CLASS.values())))
    for index, count in PER_CLASS.items():
        folder = root / "val" / all_prompts.wnids[index]
        folder.mkdir(parents=True)
        for i in range(count):
            name = f"ILSVRC2012_val_{index:05d}{i:03d}.JPEG"
            next(images).save(folder / name, quality=90)
    return root


@pytest.fixture
def pictures(imagenet: Path, prompts: Prompts) -> ValidationSet:
    return read_validation(imagenet, prompts.wnids)


# ---- against the official notebook -----------------------------------------------------------


def notebook_by_hand(
    weights: Path, prompts: Prompts, pictures: ValidationSet
) -> tuple[torch.Tensor, torch.Tensor]:
    """OpenAI's Prompt_Engineering_for_ImageNet, with `clip` alone -> classifier, logits."""
    clip = pytest.importorskip("clip")
    from PIL import Image

    model, preprocess = clip.load(str(weights), device="cpu")
    columns, rows = [], []
    with torch.no_grad():
        for name in prompts.class_names:
            texts = [template.format(name) for template in prompts.templates]
            each = model.encode_text(clip.tokenize(texts))
            each = each / each.norm(dim=-1, keepdim=True)
            mean = each.mean(dim=0)
            columns.append(mean / mean.norm())
        for i in range(len(pictures)):
            features = model.encode_image(
                preprocess(Image.open(pictures.root / pictures.files[i]))[None]
            )
            rows.append(features[0] / features[0].norm())
    classifier = torch.stack(columns, dim=1)  # (D, K), as there
    return classifier, 100.0 * torch.stack(rows) @ classifier


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_equals_the_official_notebook_done_by_hand(
    weights: Path, encoder: Encoder, prompts: Prompts, pictures: ValidationSet
) -> None:
    assert len(prompts.templates) == 80
    expected, logits = notebook_by_hand(weights, prompts, pictures)
    mine = classifier_of(encoder, prompts)
    torch.testing.assert_close(mine.T, expected, atol=1e-5, rtol=0)
    # OpenAI's names hold "sunglasses" twice; which of two equal logits comes first is rounding
    # there and the order of the classes here, so compare pictures of classes that differ.
    target = torch.tensor(pictures.labels)
    distinct = target != CLASSES.index(837)
    right = (logits.argmax(dim=1) == target)[distinct]
    top5 = (logits.topk(5, dim=1).indices == target[:, None]).any(dim=1)[distinct]
    files = tuple(f for f, once in zip(pictures.files, distinct.tolist(), strict=True) if once)
    some = ValidationSet(pictures.root, files, tuple(target[distinct].tolist()))
    report = evaluate(encoder, prompts, some)
    assert report["top1"]["value"] == pytest.approx(float(right.float().mean()), abs=1e-4)
    assert report["top5"]["value"] == pytest.approx(float(top5.float().mean()), abs=1e-4)


def test_words_are_those_of_the_installed_open_clip(
    all_prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(all_prompts) == 1000
    assert all_prompts.wnids[281] == "n02123045"  # tabby, in WordNet
    assert all_prompts.class_names == tuple(zero_shot_metadata.IMAGENET_CLASSNAMES)
    told = [template("a") for template in zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES]
    assert [template.replace("{}", "a") for template in all_prompts.templates] == told
    assert len(told) == 80
    assert read_prompts("openai7").templates[0] == "itap of a {}."
    assert read_prompts("{}", "a {}").templates == ("{}", "a {}")
    names = zero_shot_metadata.IMAGENET_CLASSNAMES[::-1]
    monkeypatch.setattr(zero_shot_metadata, "IMAGENET_CLASSNAMES", names)
    with pytest.raises(ValueError, match=r"class n01440764 is 'toilet paper'; expected 'tench'"):
        read_prompts("openai7")
    monkeypatch.setitem(sys.modules, "open_clip.zero_shot_metadata", None)
    with pytest.raises(ImportError, match=r"come with open_clip .*pip install open-clip-torch"):
        read_prompts()


def test_ranks_break_ties_by_the_order_of_the_classes() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [9.0, 1.0, 2.0, 3.0]])
    assert ranks(logits, torch.tensor([2, 3, 1])).tolist() == [1, 3, 3]
    assert ranks(logits, torch.tensor([1, 0, 0])).tolist() == [0, 0, 0]


# ---- the result ------------------------------------------------------------------------------


def without_times(report: dict) -> dict:
    return {key: value for key, value in report.items() if key not in (*TIMES, "cached")}


def test_the_report_adds_up(encoder: Encoder, prompts: Prompts, pictures: ValidationSet) -> None:
    report = evaluate(encoder, prompts, pictures, batch_size=3)
    images = [open_image(pictures.root / file) for file in pictures.files]
    logits = encoder.logit_scale * encoder.encode_image(images) @ classifier_of(encoder, prompts).T
    right = (ranks(logits, torch.tensor(pictures.labels)) < 1).tolist()
    assert report["top1"] == rate(right).as_dict()
    assert 0 < report["top1"]["value"] < report["top5"]["value"]
    shares, hit = logits.softmax(dim=1), torch.tensor(right)
    # the label that makes argmax of the probabilities right exactly where the rank says so
    labels = torch.where(hit, shares.argmax(1), (shares.argmax(1) + 1) % len(prompts))
    expected = expected_calibration_error(shares, labels)
    assert report["calibration_error"] == pytest.approx(expected, abs=1e-4)
    assert {row["name"]: row["n"] for row in report["per_class"]} == {
        "tench": 3, "stingray": 4, "crane bird": 2, "tabby cat": 5, "sunglasses": 3,
        "toilet paper": 4,
    }  # fmt: skip
    for row in report["per_class"]:
        k = prompts.wnids.index(row["wnid"])
        mine = [r for r, label in zip(right, pictures.labels, strict=True) if label == k]
        assert row["top1"] == sum(mine)
        assert (row["taken_for"] is None) == all(mine)
    recalls = [row["top1"] / row["n"] for row in report["per_class"]]
    assert report["mean_class_recall"] == pytest.approx(sum(recalls) / 6, abs=1e-4)
    assert report["partial"] == ["pictures of 6 classes only, judged among all 12"]


class Killed(BaseException):
    """Like Ctrl-C, but if a test lets it through, pytest goes on."""


def test_a_killed_evaluation_goes_on(
    encoder: Encoder,
    prompts: Prompts,
    pictures: ValidationSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Classes and pictures that were embedded are not embedded again, and change no result."""
    prompts = replace(prompts, templates=prompts.templates[:4])
    cache, seen = EmbeddingCache(tmp_path), [0, 0]
    encode_text, encode_pixels = encoder.encode_text, encoder.encode_pixels

    def text(texts: list[str], **options: Any) -> torch.Tensor:
        seen[0] += len(texts)
        return encode_text(texts, **options)

    def pixels(batches: list[torch.Tensor]) -> torch.Tensor:
        if seen[1] == 12:
            raise Killed
        seen[1] += sum(map(len, batches))
        return encode_pixels(batches)

    monkeypatch.setattr(encoder, "encode_text", text)
    monkeypatch.setattr(encoder, "encode_pixels", pixels)
    with pytest.raises(Killed):
        evaluate(encoder, prompts, pictures, batch_size=4, cache=cache)
    assert seen == [48, 12]
    seen[1] = 100  # not to be killed again
    report = evaluate(encoder, prompts, pictures, batch_size=4, cache=cache)
    assert seen == [48, 109]
    monkeypatch.undo()
    assert without_times(report) == without_times(evaluate(encoder, prompts, pictures))
    other = replace(prompts, templates=prompts.templates[:1])
    rows = classifier_of(encoder, other, cache)
    assert not torch.allclose(rows, classifier_of(encoder, prompts, cache))


def test_unreadable_pictures_count_as_wrong_and_are_listed(
    encoder: Encoder, prompts: Prompts, imagenet: Path, tmp_path: Path
) -> None:
    shutil.copytree(imagenet, tmp_path / "copy")
    pictures = read_validation(tmp_path / "copy", prompts.wnids)
    before = evaluate(encoder, prompts, pictures)
    lost = next(row for row in before["per_class"] if row["top1"])  # one class is all spoilt
    spoilt = [file for file in pictures.files if file.startswith(lost["wnid"])]
    right = sum(row["top1"] for row in before["per_class"]) - lost["top1"]
    for files, left, error in ((spoilt, 21 - len(spoilt), float), (pictures.files, 0, type(None))):
        for file in files:
            (pictures.root / file).write_bytes(b"no picture")
        after = evaluate(encoder, prompts, read_validation(pictures.root, prompts.wnids))
        assert after["top1"] == rate([True] * right + [False] * (21 - right)).as_dict()
        assert list(after["unreadable"]) == list(files)
        assert isinstance(after["calibration_error"], error)
        if left:
            assert after["readable"]["top1"] == rate([i < right for i in range(left)]).as_dict()
        right = 0


# ---- layouts -------------------------------------------------------------------------------------


def test_folders_give_the_index_and_a_limit_is_spread(
    imagenet: Path, tmp_path: Path, all_prompts: Prompts
) -> None:
    for root in (imagenet, imagenet / "val"):
        found = read_validation(root, all_prompts.wnids)
        assert [found.labels.count(k) for k in PER_CLASS] == list(PER_CLASS.values())
        assert found.files[0] == "n01440764/ILSVRC2012_val_00000000.JPEG"
        assert list(found.files) == sorted(found.files)
        assert "pictures of 6 classes only, judged among all 1,000" in found.notes[0]
    some = found.spread(12)
    assert [some.labels.count(k) for k in PER_CLASS] == [2] * 6
    assert "12 of 21 images, evenly spread" in some.notes
    assert found.spread(None) == found.spread(21) == found
    for name in ("0", "2", "10", "999"):  # numbers, not texts
        (tmp_path / "v2" / name).mkdir(parents=True)
        noise_images(1)[0].save(tmp_path / "v2" / name / "a.jpeg")
    assert read_validation(tmp_path / "v2", all_prompts.wnids).labels == (0, 2, 10, 999)


# ---- the command -------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_the_command_among_all_thousand_classes(
    imagenet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["imagenet", "--data", imagenet, "--encoder", "pasture", "--device", "cpu"]
    asked = [*base, "--template", "a photo of a {}."]
    assert run(*asked, "--json", "a.json") == 0
    printed, said = capsys.readouterr()
    assert "wrote a.json\n" in said
    for line in (
        "imagenet val, zero-shot: 21 images, 1,000 classes",
        "prompts  own: 1 template, open_clip_torch",
        "not the whole set: pictures of 6 classes only",
        "worst classes",
    ):
        assert line in printed
    report = json.loads(Path("a.json").read_text("utf-8"))
    assert report["parameters"]["encoder"] == "pasture"
    assert {"python", "torch", "cliplab"} <= set(report["versions"])
    assert len(report["per_class"]) == 6
    # the same command finds all of it in the cache; templates of one's own are others
    assert run(*asked, "--json", "b.json") == 0
    again = json.loads(Path("b.json").read_text("utf-8"))
    assert without_times(again | {"parameters": {}}) == without_times(report | {"parameters": {}})
    assert run(*base, "--template", "a {}", "one {}.", "--json", "c.json") == 0
    assert json.loads(Path("c.json").read_text("utf-8"))["prompts"]["templates"] == 2


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--data", "nothing"], "nothing: no classes of ImageNet"),
        (["--data", "loose"], "loose/val: no classes of ImageNet"),
        (["--data", "hollow"], "hollow/val: no images of ImageNet"),
        (["--data", "other"], "n99999999: 1 of 2 folders are no class"),
        (["--data", "one", "--template", "a {}", "b"], "template 'b' has no {}"),
        (["--data", "one", "--limit", "0"], "--limit: got 0"),
        (["--data", "one", "--batch-size", "0"], "--batch-size: got 0"),
    ],
)  # more in test_bad_inputs.py
def test_wrong_calls_are_one_line(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("hollow/val/n01440764", "other/val/n01440764", "other/val/n99999999",
                   "nothing", "loose/val", "one/val/n01440764"):  # fmt: skip
        Path(folder).mkdir(parents=True)
    noise_images(1)[0].save("loose/val/a.JPEG")
    noise_images(1)[0].save("one/val/n01440764/a.JPEG")
    assert run("imagenet", "--encoder", "pasture", "--device", "cpu", *arguments) == 2
    captured = capsys.readouterr()
    (line,) = [x for x in captured.err.splitlines() if not x.startswith("note: ")]
    assert captured.out == ""
    assert answer in line


def test_unread_prompts_and_pictures_are_told_and_do_not_stop_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tench = tmp_path / "few" / "val" / "n01440764"
    tench.mkdir(parents=True)
    noise_images(1)[0].save(tench / "a.JPEG")
    (tench / "b.JPEG").write_bytes(b"")
    asked = ["imagenet", "--data", "few", "--encoder", "pasture-zh"]
    assert run(*asked, "--device", "cpu", "--template", "{}") == 3
    captured = capsys.readouterr()
    assert "n01440764/b.JPEG: the file is empty" in captured.err
    assert "may come from the cache" in captured.out
    assert "note: pasture-zh cannot read the prompt 'tench' (nor 'goldfish', " in captured.err
