"""Local first: caches in the official layouts, blocked sockets, and downloads that cannot be."""

import hashlib
import http.server
import importlib
import json
import re
import shutil
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_checkpoints import (
    OPEN_CLIP,
    RESNET,
    make_hf,
    make_modelscope,
    make_open_clip,
    make_openai,
    noise_images,
)

from cliplab.encoders import hub, load_encoder
from cliplab.encoders.from_huggingface import missing_files, wanted_files
from cliplab.encoders.loading import MODEL
from cliplab.encoders.official import official
from cliplab.runtime import OFFLINE_VARIABLES, sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SEED = MODEL.partition("/")[2]  # the name of the seed notes' model
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def fill_huggingface(cache: Path, repo: str, folder: Path, *, commit: str = COMMIT) -> Path:
    """Put a folder into a cache of the Hugging Face hub as its own downloads lie there."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir(exist_ok=True)
    for path in folder.iterdir():
        blob = root / "blobs" / sha256(path)
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", blob.name))
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit, encoding="utf-8")
    return snapshot


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in each format."""
    root = tmp_path_factory.mktemp("made")
    open_clip = make_open_clip(root / "open_clip", "tiny-hub-cached", OPEN_CLIP)
    folder = root / "open_clip_folder"
    folder.mkdir()
    shutil.copy(open_clip, folder / "open_clip_model.safetensors")
    return {
        "openai": make_openai(root / "openai", RESNET),
        "modelscope": make_modelscope(root / "modelscope", RESNET),
        "hf": make_hf(root / "hf", "clip"),
        "open_clip": open_clip,
        "open_clip_folder": folder,
    }


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder: no cache, no switch, no proxy; a second to wait for servers."""
    variables = ("MODELSCOPE_CACHE", "HF_ENDPOINT", "MODELSCOPE_ENDPOINT")
    for name in (*variables, *OFFLINE_VARIABLES, *PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(hub, "TIMEOUT", 1.0)
    return tmp_path / "home"


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to reach anything, all of which fail."""
    attempts: list[str] = []

    def refuse(name: str) -> Callable:
        def call(*args: object, **_: object) -> None:
            attempts.append(f"{name}{args[-2:]}")
            raise OSError("the test blocks the network")

        return call

    monkeypatch.setattr(socket, "getaddrinfo", refuse("getaddrinfo"))
    monkeypatch.setattr(socket, "create_connection", refuse("create_connection"))
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse(name))
    return attempts


def publish(monkeypatch: pytest.MonkeyPatch, path: Path, server: str = "https://x.invalid") -> str:
    """Have `clip` publish the model "Tiny/1" with the hash of `path` -> its address."""
    with official("openai"):
        import clip.clip

    url = f"{server}/clip/models/{sha256(path)}/tiny.pt"
    monkeypatch.setitem(clip.clip._MODELS, "Tiny/1", url)
    return url


def tag(monkeypatch: pytest.MonkeyPatch, **config: object) -> None:
    """Have open_clip publish weights "tag" for the architecture tiny-hub-cached."""
    import open_clip.pretrained

    published = {"tag": config}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-hub-cached", published)


@pytest.fixture
def fill(
    home: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Callable[[], object]]:
    """What puts a model into the cache of each hub."""
    cache, clip = home / ".cache", home / ".cache" / "clip"
    hf, owned = cache / "huggingface" / "hub", cache / "modelscope" / "models" / f"damo--{SEED}"

    def openai() -> None:
        publish(monkeypatch, made["openai"])
        clip.mkdir(parents=True)
        shutil.copy(made["openai"], clip / "tiny.pt")

    def tagged() -> None:
        tag(monkeypatch, url="", hf_hub="tiny/weights/", quick_gelu=True, mean=(0.5,) * 3)
        fill_huggingface(hf, "tiny/weights", made["open_clip_folder"])

    def address() -> None:
        name = f"tiny-{sha256(made['open_clip'])[:8]}.safetensors"
        tag(monkeypatch, url=f"https://x.invalid/mlfoundations/{name}", hf_hub="")
        clip.mkdir(parents=True)
        shutil.copy(made["open_clip"], clip / name)

    return {
        "openai": openai,
        "modelscope": lambda: shutil.copytree(made["modelscope"], owned / "snapshots" / "v1.0.1"),
        "hf": lambda: fill_huggingface(hf, "tiny/clip", made["hf"]),
        "tag": tagged,
        "address": address,
    }


CACHED = [  # spec, what puts it into its hub's cache, the revision that the report must name
    ("openai:Tiny/1", "openai", "published"),
    ("modelscope:", "modelscope", "v1.0.1"),
    (f"modelscope:{MODEL}", "modelscope", "v1.0.1"),
    ("hf:tiny/clip", "hf", COMMIT),
    (f"hf:tiny/clip@{COMMIT}", "hf", COMMIT),
    ("open_clip:tiny-hub-cached/tag", "tag", COMMIT),
    ("open_clip:tiny-hub-cached/tag", "address", "published"),
]


# ---- what is here needs no network -----------------------------------------------------------


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize(("spec", "where", "revision"), CACHED)
def test_cached_models_load_without_a_socket(
    fill: dict, made: dict, sockets: list[str], spec: str, where: str, revision: str, offline: bool
) -> None:
    fill[where]()
    encoder = load_encoder(spec, device="cpu", offline=offline)
    assert encoder.encode_image(noise_images(2)).shape == (2, encoder.dim)
    assert encoder.encode_text(["羊"]).shape == (1, encoder.dim)
    assert sockets == []
    assert encoder.provenance["revision"] == revision
    family = made[spec.partition(":")[0]]
    weights = family if family.is_file() else next(family.glob("*model.[bs]*"))
    hashes = [v for k, v in encoder.provenance.items() if k.startswith("sha256 ")]
    assert hashes == [sha256(weights)]


def test_weights_of_a_tag_keep_its_preprocessing_and_activation(
    fill: dict, made: dict[str, Path]
) -> None:
    fill["tag"]()
    encoder = load_encoder("open_clip:tiny-hub-cached/tag", device="cpu", offline=True)
    grey = encoder.preprocess(Image.new("RGB", (40, 40), (255, 255, 255)))[0, 0, 0]
    assert grey == pytest.approx((1 - 0.5) / 0.26862954)
    plain = load_encoder(f"open_clip:tiny-hub-cached/{made['open_clip']}", device="cpu")
    assert (plain.encode_text("a") - encoder.encode_text("a")).abs().max() > 1e-3  # QuickGELU


@pytest.mark.parametrize("layout", ["models/{}", "hub/models/{}", "hub/{}", "{}"])
def test_older_layouts_of_modelscope_are_found(
    home: Path, made: dict[str, Path], layout: str
) -> None:
    folder = home / ".cache" / "modelscope" / layout.format(MODEL)
    shutil.copytree(made["modelscope"], folder)
    for mark in ("Revision:v1.0.1,CreatedAt:1690000000", "v1.0.1"):
        (folder / ".mv").write_text(mark, encoding="utf-8")
        assert hub.modelscope_snapshot(MODEL, "v1.0.1") == folder
        assert hub.modelscope_snapshot(MODEL, "v1.0.2") is None


# ---- what is not here, and cannot be had -----------------------------------------------------


def test_files_copied_to_where_the_error_wants_them_are_found(
    home: Path, made: dict[str, Path], sockets: list[str]
) -> None:
    for spec in ("hf:tiny/clip", "hf:tiny/clip@v2"):
        with pytest.raises(FileNotFoundError) as caught:
            load_encoder(spec, offline=True)
        told = re.search(r"they belong in (.*?)\. On a machine", str(caught.value))
        assert told
        shutil.copytree(made["hf"], told[1])
        assert load_encoder(spec, offline=True).dim > 0
    assert not sockets


ABSENT = {  # spec -> file, folder, command that the error names
    "openai:ViT-B/32": ("ViT-B-32.pt", ".cache/clip", "curl -LO https://"),
    "modelscope:": (
        "vision_model_config.json, text_model_config.json, vocab.txt, pytorch_model.bin",
        f"damo--{SEED}/snapshots/v1.0.1",
        f"modelscope download --model {MODEL} --revision v1.0.1 --local_dir {SEED}",
    ),
    "hf:google/siglip2-base-patch16-224@v2": (
        "config.json, model.safetensors or pytorch_model.bin, preprocessor_config.json",
        "hub/models--google--siglip2-base-patch16-224/snapshots/v2. On a machine",
        "hf download google/siglip2-base-patch16-224 --revision v2 --local-dir siglip2-base",
    ),
    "open_clip:ViT-B-32/laion2b_s34b_b79k": (
        "open_clip_model.safetensors or open_clip_pytorch_model.bin",
        "hub/models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K/snapshots/",
        "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K --revision main",
    ),
}


OTHERWISE = {
    "openai": "name the file: openai:<folder>/ViT",
    "modelscope": "give their own folder: modelscope:<folder>",
    "hf": "give their own folder: hf:<folder>",
    "open_clip": "name the file: open_clip:<architecture>/<folder>/<file>",
}


def check_way_out(spec: str, message: str) -> None:
    file, folder, command = ABSENT[spec]
    assert f"Missing or damaged: {file}" in message
    assert folder in message.replace("\\", "/")
    assert command in message
    assert f", or {OTHERWISE[spec.partition(':')[0]]}" in message
    assert "commit" not in message


@pytest.mark.parametrize("switch", ["argument", *OFFLINE_VARIABLES])
@pytest.mark.parametrize("spec", ABSENT)
def test_offline_says_what_to_fetch_and_opens_no_socket(
    sockets: list[str], monkeypatch: pytest.MonkeyPatch, spec: str, switch: str
) -> None:
    if switch != "argument":
        monkeypatch.setenv(switch, "1")
    with pytest.raises(FileNotFoundError, match=r"not downloaded \(offline\)") as caught:
        load_encoder(spec, offline=True if switch == "argument" else None)
    check_way_out(spec, str(caught.value))
    assert sockets == []


@pytest.fixture
def silent() -> Iterator[str]:
    """A proxy that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("spec", ABSENT)
def test_a_proxy_that_hangs_is_given_up(
    silent: str, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", silent.replace("http://", "http://me:secret@"))
    monkeypatch.setattr(hub, "TIMEOUT", 0.5)
    before = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"not downloaded \(\w*(Error|Timeout)") as caught:
        load_encoder(spec, offline=False)
    assert time.monotonic() - before < 5
    check_way_out(spec, str(caught.value))
    assert "secret" not in str(caught.value)


# ---- what can be had -------------------------------------------------------------------------


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, bytes]], str]]:
    """Serves {path: content} on this machine; `serve.code` for all other paths."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urllib.parse.unquote(self.path.partition("?")[0])
            asked.append(path)
            content = served.get(path)
            self.send_response(start.code if content is None else 200)
            body = content or b""
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: start.cut])

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    served: dict[str, bytes] = {}
    asked: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def start(files: dict[str, bytes]) -> str:
        served.update(files)
        return f"http://127.0.0.1:{server.server_port}"

    start.code, start.cut, start.asked = 404, None, asked
    yield start
    server.shutdown()
    server.server_close()


def test_openai_model_is_downloaded_checked_and_kept(
    home: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, serve: Callable
) -> None:
    content = made["openai"].read_bytes()
    url = publish(monkeypatch, made["openai"], serve({}))
    serve({url.partition("/clip")[1] + url.partition("/clip")[2]: content})
    cached, serve.cut = home / ".cache" / "clip", 1000
    with pytest.raises(FileNotFoundError, match=r"Missing or damaged: tiny\.pt"):
        load_encoder("openai:Tiny/1", offline=False)
    assert list(cached.iterdir()) == []
    serve.cut = None
    encoder = load_encoder("openai:Tiny/1", device="cpu", offline=False)
    assert encoder.encode_text("a").shape == (1, 32)
    assert [p.name for p in cached.iterdir()] == ["tiny.pt"]
    count = len(serve.asked)
    load_encoder("openai:Tiny/1", device="cpu", offline=False)
    assert len(serve.asked) == count  # the second time from the cache
    (cached / "tiny.pt").write_bytes(content[:1000])
    load_encoder("openai:Tiny/1", device="cpu", offline=False)
    assert len(serve.asked) > count  # what is damaged there is fetched anew


def test_huggingface_model_is_downloaded_and_found_again_offline(
    home: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, serve: Callable
) -> None:
    names = sorted(path.name for path in made["hf"].iterdir())
    extra = ["README.md", "pytorch_model.bin", "flax_model.msgpack"]
    listing = {"id": "tiny/clip", "sha": COMMIT, "private": False, "downloads": 0, "tags": []}
    listing["siblings"] = [{"rfilename": name} for name in [*names, *extra]]
    tree = [{"type": "file", "path": n, "size": 1, "oid": "0" * 40} for n in [*names, *extra]]
    files = {f"/tiny/clip/resolve/{COMMIT}/{n}": (made["hf"] / n).read_bytes() for n in names}
    api = "/api/models/tiny/clip"
    files |= {f"{api}/revision/main": json.dumps(listing).encode(), "/": b"hello"}
    endpoint = serve(files | {f"{api}/tree/{COMMIT}": json.dumps(tree).encode()})
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    encoder = load_encoder("hf:tiny/clip", device="cpu", offline=False)
    assert encoder.provenance["revision"] == COMMIT
    assert not any(name in path for path in serve.asked for name in extra)
    again = load_encoder("hf:tiny/clip", device="cpu", offline=True)
    assert again.fingerprint == encoder.fingerprint


def test_modelscope_model_is_asked_of_its_hub(
    fill: dict, monkeypatch: pytest.MonkeyPatch, serve: Callable
) -> None:
    theirs = importlib.import_module("modelscope.hub.snapshot_download")
    asked = []

    def snapshot_download(model: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((model, revision, allow_patterns))
        fill["modelscope"]()
        return str(hub.modelscope_snapshot(MODEL, "v1.0.1"))

    monkeypatch.setattr(theirs, "snapshot_download", snapshot_download)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", serve({}))
    encoder = load_encoder("modelscope:", device="cpu", offline=False)
    load_encoder("modelscope:", device="cpu", offline=False)
    assert asked[0][:2] == (MODEL, "v1.0.1")
    assert "pytorch_model.bin" in asked[0][2]
    assert len(asked) == 1
    assert encoder.name == f"modelscope:{MODEL}"


# ---- files that are missing, cut or dangerous ------------------------------------------------


class Attack:
    """What a pickle from a stranger may do: run a program as soon as it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def family_copy(made: dict[str, Path], key: str, folder: Path) -> tuple[str, Path]:
    """A copy of a family's model with pickled weights -> its spec, the file of weights."""
    from safetensors.torch import load_file

    if key == "openai":
        path = Path(shutil.copy(made["openai"], folder / "model.pt"))
        return f"openai:{path}", path
    if key == "modelscope":
        shutil.copytree(made["modelscope"], folder / "ms")
        return f"modelscope:{folder / 'ms'}", folder / "ms" / "pytorch_model.bin"
    if key == "open_clip":
        path = folder / "weights.pt"
        torch.save(load_file(made["open_clip"]), path)
        return f"open_clip:tiny-hub-cached/{path}", path
    copy = shutil.copytree(made["hf"], folder / "hf")
    path = copy / "model.safetensors"
    if key == "hf.bin":
        torch.save(load_file(path), copy / "pytorch_model.bin")
        path.unlink()
        path = copy / "pytorch_model.bin"
    return f"hf:{copy}", path


FAMILIES = ["openai", "modelscope", "open_clip", "hf.bin"]


@pytest.mark.parametrize("key", FAMILIES)
@pytest.mark.parametrize("forced", [False, True])
def test_a_pickle_that_would_run_code_is_refused(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, forced: bool
) -> None:
    spec, path = family_copy(made, key, tmp_path)
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "x": Attack(tmp_path / "mark")}, path)
    if forced:  # a switch with which torch would load it
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ValueError, match=rf"{path.name}: refused, .*could run any program"):
        load_encoder(spec)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("key", [*FAMILIES, "hf"])
@pytest.mark.parametrize("kind", ["cut", "empty", "text", "lfs"])
def test_damaged_weights_are_named(
    made: dict[str, Path], tmp_path: Path, key: str, kind: str
) -> None:
    spec, path = family_copy(made, key, tmp_path)
    content = path.read_bytes()
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    damaged = {"cut": content[: len(content) // 2], "empty": b"", "lfs": lfs}
    path.write_bytes(damaged.get(kind, b"<html>404</html>"))
    remedy = "git lfs pull" if kind == "lfs" else "again"
    name = "hf" if key == "hf" and kind != "lfs" else path.name
    with pytest.raises(ValueError, match=rf"{name}: .*{remedy}"):
        load_encoder(spec)


def test_huggingface_folder_with_files_missing(made: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made["hf"], tmp_path / "hf")
    for gone in ("tokenizer.json", "preprocessor_config.json", "model.safetensors", "config.json"):
        (folder / gone).unlink()
        with pytest.raises(FileNotFoundError, match=gone):
            load_encoder(f"hf:{folder}")


def test_huggingface_shards_must_all_be_there(made: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = shutil.copytree(made["hf"], tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    AutoModel.from_pretrained(made["hf"]).save_pretrained(folder, max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    whole, split = load_encoder(f"hf:{made['hf']}"), load_encoder(f"hf:{folder}")
    torch.testing.assert_close(split.encode_text("a sheep"), whole.encode_text("a sheep"))
    assert len(split.provenance) == 2 + len(shards)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=rf"missing {shards[1].name}; copy the whole mod"):
        load_encoder(f"hf:{folder}")
    (folder / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json: not an index"):
        load_encoder(f"hf:{folder}")


def test_huggingface_weights_must_be_complete(made: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(made["hf"], tmp_path / "hf")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"the weights lack 1 tensors, visual_projection\.weight"):
        load_encoder(f"hf:{folder}")


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {}, []])
def test_huggingface_models_of_another_kind(tmp_path: Path, config: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"config\.json: (unknown model_type|not a model's config)"
    ):
        load_encoder(f"hf:{tmp_path}")


def test_code_of_a_repository_is_not_run(made: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made["hf"], tmp_path / "hf")
    mark = tmp_path / "mark"
    (folder / "mine.py").write_text(f"open({str(mark)!r}, 'w')\n", encoding="utf-8")
    for name, key in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        path = folder / name
        content = json.loads(path.read_text("utf-8")) | {"auto_map": {key: "mine.Mine"}}
        path.write_text(json.dumps(content), encoding="utf-8")
    load_encoder(f"hf:{folder}")
    assert not mark.exists()


def test_only_one_copy_of_the_weights_is_asked_for(tmp_path: Path) -> None:
    common = ["config.json", "tokenizer.json", "merges.txt", "preprocessor_config.json"]
    rest = ["README.md", "tf_model.h5", "onnx/model.onnx", "model.py"]
    shards = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
    index = "model.safetensors.index.json"
    both = ["model.safetensors", "pytorch_model.bin"]
    assert wanted_files([*common, *rest, *both]) == [*common, "model.safetensors"]
    assert wanted_files([*rest, *shards, index, both[1]]) == [*shards, index]
    assert wanted_files([*rest, "pytorch_model-1.bin", "pytorch_model.bin.index.json"])
    assert wanted_files([*rest, both[1]]) == [both[1]]
    assert len(missing_files(tmp_path)) == 4
