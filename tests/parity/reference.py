"""Golden tensors of the official implementations, compared with a tolerance per output."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass
class Reference:
    weights: dict[str, Tensor]  # official names, float32
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    notes: dict  # the JSON beside the tensors

    def atol(self, name: str) -> float:
        """Ten times the official float32 noise of this output; 1e-5 of its range if unmeasured."""
        if name in self.notes.get("noise", {}):
            return self.notes["noise"][name]["atol"]
        return max(1e-6, 1e-5 * self.outputs[name].abs().max().item())

    def assert_close(self, name: str, actual: Tensor) -> None:
        expected = self.outputs[name]
        torch.testing.assert_close(
            actual.detach(), expected, atol=self.atol(name), rtol=0, msg=lambda m: f"{name}: {m}"
        )


def read_reference(path: str) -> Reference:
    """`path` below tests/golden, without suffix, such as "clip/vit"."""
    tensors = load_file(GOLDEN / f"{path}.safetensors")
    parts: dict[str, dict[str, Tensor]] = {"sd": {}, "in": {}, "out": {}}
    for key, tensor in tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = tensor.float() if tensor.dtype == torch.float16 else tensor
    notes = json.loads((GOLDEN / f"{path}.json").read_text(encoding="utf-8"))
    return Reference(parts["sd"], parts["in"], parts["out"], notes)
