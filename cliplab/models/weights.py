"""Weight files: read state dicts without running anybody's code, write the formats of others.

A state dict is a flat table from dotted names to tensors. Three kinds of file hold one here: a
TorchScript archive (what OpenAI published), a torch.save file, and safetensors. Our own files are
safetensors whose header has what else is needed to build the model.
"""

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cliplab.runtime import atomic_write

StateDict = dict[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)

# What the official fp16 models keep in float32: statistics and the parameters of norm layers,
# whose small range of values is used at full precision, and the embeddings added to activations.
_FULL_PRECISION = re.compile(
    r"\b(ln_\w+|bn\d|downsample\.1)\.|\b(positional_embedding|class_embedding|logit_scale)$"
)
_READ_ERRORS = (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, IndexError,
                 pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError)  # fmt: skip
_SHOWN = 6  # names listed in an error before "and N more"


def read_state_dict(path: str | Path) -> StateDict:
    """Tensors of a TorchScript archive, a torch.save file or a .safetensors file, on the CPU.

    Pickles that hold anything but tensors and plain containers are refused: unpickling them could
    run code. An entry `state_dict`, `model_state_dict` or `model`, as training scripts write it, is
    unwrapped, and the prefixes `module.` (DistributedDataParallel) and `clip_model.` (ModelScope)
    are removed.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: a damaged file, or one that is not a table of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such weight file; expected a TorchScript archive, a torch.save file or "
            ".safetensors; `python -m cliplab train clip` makes the shipped ones"
        )
    try:
        loaded = _load(path)
    except _READ_ERRORS as error:
        # torch's long advice to load it all the same is not passed on
        foreign = isinstance(error, pickle.UnpicklingError)
        reason = "no plain tensors" if foreign else str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {reason}). The file is "
            "cut short or damaged, or it holds Python objects, which are refused because loading "
            "them could run code; fetch it again, or convert it to .safetensors"
        ) from error
    return _unwrap(loaded, path)


def _load(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_torchscript(path):
        with _quiet_torchscript():
            archive = torch.jit.load(path, map_location="cpu")
        return {name: tensor.detach() for name, tensor in archive.state_dict().items()}
    return torch.load(path, map_location="cpu", weights_only=True)


def is_torchscript(path: Path) -> bool:
    """Whether `path` is a TorchScript archive, as OpenAI published its models."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _unwrap(loaded: object, path: Path) -> StateDict:
    table = loaded
    if isinstance(loaded, Mapping):
        entries = ("state_dict", "model_state_dict", "model")
        table = next((loaded[name] for name in entries if name in loaded), loaded)
    if not isinstance(table, Mapping) or not table or not _only_tensors(table):
        raise ValueError(
            f"{path}: got a {type(table).__name__} that is not a state dict; expected names mapped "
            "to tensors, as model.state_dict() returns them"
        )
    for prefix in ("module.", "clip_model."):
        if all(name.startswith(prefix) for name in table):
            table = {name.removeprefix(prefix): tensor for name, tensor in table.items()}
    return dict(table)


def _only_tensors(table: Mapping) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in table.items())


def load_strict(model: Model, tensors: Mapping[str, Tensor], source: str) -> Model:
    """Give `model` copies of `tensors` in float32 and return it in eval mode.

    The model may sit on the meta device (built without storage), which saves drawing random
    numbers only to overwrite them and leaves the caller's seed alone.

    Raises:
        ValueError: names or shapes that differ, all of them listed; `source` opens the message.
    """
    _check_names(model, tensors, source)
    filled = {
        name: tensors[name].detach().to(torch.float32, copy=True)
        if expected.is_floating_point()
        else tensors.get(name, torch.zeros((), dtype=expected.dtype)).detach().clone()
        for name, expected in model.state_dict().items()
    }
    model.load_state_dict(filled, assign=True)
    return model.eval()


def _check_names(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise ValueError unless `tensors` has exactly the names and shapes that `model` has.

    BatchNorm's step counters may be missing: they play no part in the result.
    """
    expected = model.state_dict()
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    missing = sorted(needed - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(needed & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    faults = [f"{len(names)} {what}: {_shorten(names)}" for what, names in found.items() if names]
    if faults:
        raise ValueError(
            f"{source}: these weights are not those of a {type(model).__name__} of this "
            f"configuration; {'; '.join(faults)}. Load them with the class they were saved from"
        )


def _shorten(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def save_model(model: nn.Module, path: str | Path, kind: str, **header: Any) -> None:
    """Write a model to one .safetensors file, atomically: matrices in fp16, vectors as they are.

    Vectors (norms, biases, statistics) are small, and fp16 has a narrow range.

    Args:
        kind: of model, such as "cliplab.vild"; `read_header` compares it.
        header: what else is needed to build the model, as plain values.

    Raises:
        ValueError: weights that are not finite, or beyond fp16's range of +-65504.
    """
    halves = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu()
        matrix = tensor.is_floating_point() and tensor.ndim > 1
        halves[name] = (tensor.half() if matrix else tensor).contiguous()
        _check_finite(name, halves[name])
    plain = {key: json.dumps(value, ensure_ascii=False) for key, value in header.items()}
    with atomic_write(path) as file:
        file.write(save(halves, {"format": kind, **plain}))


def read_header(path: str | Path, kind: str) -> dict[str, Any]:
    """The header of a file of `save_model`; {} for a file of another kind.

    Raises:
        ValueError: a damaged header.
    """
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
        if header.pop("format", "") != kind:
            return {}
        return {key: json.loads(value) for key, value in header.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}); fetch it again") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file, such as the settings beside weights."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a JSON object ({error}); copy it again") from error


def lists_to_tuples(config: Any) -> None:
    """Make the lists that JSON has given to a frozen dataclass the tuples that it had."""
    for name, value in vars(config).items():
        if isinstance(value, list):
            object.__setattr__(config, name, tuple(value))


def to_published_precision(tensors: Mapping[str, Tensor]) -> StateDict:
    """CPU copies with weights in fp16, as OpenAI and ModelScope publish them.

    Norm layers, their statistics and position embeddings stay float32, integers stay as they are.

    Raises:
        ValueError: a tensor with NaN or infinity, or with a value beyond fp16's range of +-65504.
    """
    published = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float() if _FULL_PRECISION.search(name) else tensor.half()
            _check_finite(name, tensor)
        published[name] = tensor.contiguous()
    return published


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise ValueError(
            f"{name}: has values that are NaN, infinite or beyond fp16 (+-65504); "
            "expected finite weights: the training has diverged, resume an earlier state"
        )


def write_torchscript(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write `tensors` as a compressed TorchScript archive that torch.jit.load reads, atomically.

    OpenAI's `clip.load` opens only such archives on a current torch. The archive has no code:
    a tree of empty modules carries the dotted names, and the tensors are its buffers. torch.jit
    stores records uncompressed; they are deflated here, which its reader accepts, since most of
    a byte-pair embedding trained on few words is rows of zeros. Equal tensors give equal bytes.
    """
    root = nn.Module()
    for name, tensor in tensors.items():
        *branches, leaf = name.split(".")
        module = root
        for branch in branches:
            if branch not in module._modules:
                module.add_module(branch, nn.Module())
            module = module.get_submodule(branch)
        module.register_buffer(leaf, tensor)
    stored = io.BytesIO()
    with _quiet_torchscript():
        torch.jit.save(torch.jit.script(root), stored)
    with atomic_write(path) as file:
        _deflate(stored, file)


def _deflate(stored: io.BytesIO, file: IO[bytes]) -> None:
    """Copy a zip archive, compressed and without the records that only a debugger reads."""
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(file, "w") as target:
        for record in source.infolist():
            if record.filename.endswith(".debug_pkl"):
                continue
            fixed_date = zipfile.ZipInfo(record.filename)  # 1980: no clock time in the file
            target.writestr(fixed_date, source.read(record), zipfile.ZIP_DEFLATED, 9)


@contextmanager
def _quiet_torchscript() -> Iterator[None]:
    """Hide torch's notice that TorchScript is deprecated: the format is not ours to choose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit.* is deprecated")
        yield
