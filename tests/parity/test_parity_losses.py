"""Our losses against open_clip's ClipLoss and SigLipLoss, value and gradient.

Its two-process cases are left out: tests/test_scale_losses.py holds ranks to one process.
"""

import pytest
import torch
from parity.reference import read_reference

from cliplab.models.losses import clip_loss, siglip_loss

GOLDEN = read_reference("contrastive/losses")
CASES = [
    case
    for case in GOLDEN.notes["cases"]
    if "world_size" not in case and "dist" not in case["name"]
]


def test_all_single_process_cases_are_here() -> None:
    assert len(CASES) == 20
    computed = {name.rsplit(".", 1)[0] for name in GOLDEN.outputs if "dist" not in name}
    assert {case["name"] for case in CASES} == computed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_value_and_gradients(case: dict) -> None:
    leaves = {
        "grad_image": GOLDEN.inputs[f"{case['inputs']}.image"].clone(),
        "grad_text": GOLDEN.inputs[f"{case['inputs']}.text"].clone(),
        "grad_scale": torch.tensor(case["scale"]),
    }
    if case["loss"] == "SigLipLoss":
        leaves["grad_bias"] = torch.tensor(case["bias"])
    for leaf in leaves.values():
        leaf.requires_grad_()
    loss = (siglip_loss if "grad_bias" in leaves else clip_loss)(*leaves.values())
    GOLDEN.assert_close(f"{case['name']}.loss", loss)
    loss.backward()
    for name, leaf in leaves.items():
        GOLDEN.assert_close(f"{case['name']}.{name}", leaf.grad)
