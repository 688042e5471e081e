"""How long does GLIP take for a photo, beside the sum of its parts as the libraries give them?

GLIP-T with random weights, one photo of 800 x 1333 pixels, a prompt of 80 classes. The parts are
timed alone, with the same shapes: torchvision's Swin-T, transformers' BERT, torchvision's
deformable convolutions, and the dense products (linear layers, attention, plain convolutions) that
fusion, pyramid and head are made of. Take turns, medians; the first turn warms up.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from _shared import Work, own_process, peak_gb, take_turns, verdicts
from torch import Tensor, nn

from cliplab.models.glip import GLIP, GLIP_T, GLIPConfig, Selection, select

ROUNDS = 2
SIZE = (800, 1344)  # pixels; 1333 filled up to a multiple of 32
TOKENS = 194  # of COCO's 80 class names as a prompt
CLASSES = 80
MEANT = 1.2


# ---- the model -------------------------------------------------------------------------------


def inputs(device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """A photo, a prompt, its mask."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, *SIZE, generator=generator)
    ids = torch.randint(1000, 30000, (1, TOKENS), generator=generator)
    return pixels.to(device), ids.to(device), torch.ones_like(ids, dtype=torch.bool).to(device)


def model_of(config: GLIPConfig) -> GLIP:
    torch.manual_seed(0)
    return GLIP(config).eval()


@torch.inference_mode()
def forward(model: GLIP, given: tuple[Tensor, ...], *, half: bool = False) -> list:
    """Pixels and tokens to boxes."""
    pixels, ids, mask = given
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=half):
        raw = model(pixels, ids, mask)
    rows = torch.arange(TOKENS) * CLASSES // TOKENS
    positive = rows == torch.arange(CLASSES)[:, None]  # (K, L), about two tokens a class
    return select(raw, positive, [SIZE], model.config, Selection(top=100))


# ---- its parts, alone ------------------------------------------------------------------------


def levels() -> list[tuple[int, int]]:
    """Cells of each level of the pyramid."""
    sizes = [(-(-SIZE[0] // s), -(-SIZE[1] // s)) for s in GLIP_T.strides]
    return [(int(h), int(w)) for h, w in sizes]


def swin() -> Work:
    """torchvision's Swin-T without its classifier."""
    from torchvision.models import swin_t

    body, (pixels, _, _) = swin_t().features.eval(), inputs()
    return lambda: body(pixels)


def bert() -> Work:
    from transformers import BertConfig, BertModel

    model, (_, ids, mask) = BertModel(BertConfig(), add_pooling_layer=False).eval(), inputs()
    return lambda: model(ids, attention_mask=mask.long())


def deformable() -> Work:
    """The 13 convolutions of a DyHead block, six times."""
    from torchvision.ops import deform_conv2d

    sizes, width = levels(), GLIP_T.channels
    weight = torch.randn(width, width, 3, 3)
    jobs = [(size, size, 1) for size in sizes]
    jobs += [(fine, coarse, 2) for fine, coarse in pairwise(sizes)]
    jobs += [(coarse, coarse, 1) for coarse in sizes[1:]]
    given = [
        (torch.randn(1, width, *source), torch.randn(1, 18, *out), torch.rand(1, 9, *out), stride)
        for source, out, stride in jobs
    ]

    def work() -> None:
        for _ in range(GLIP_T.blocks):
            for x, offset, mask, stride in given:
                deform_conv2d(x, offset, weight, None, stride, 1, mask=mask)

    return work


def dense() -> Work:
    """Six times fusion's projections and attention, BERT's layer, the offsets; and the pyramid."""
    cells, config = sum(h * w for h, w in levels()), GLIP_T
    image, text = torch.randn(1, cells, config.channels), torch.randn(1, TOKENS, config.text_width)
    into = [nn.Linear(n, config.fusion_width) for n in (config.channels, config.text_width) * 2]
    out = [nn.Linear(config.fusion_width, n) for n in (config.channels, config.text_width)]
    layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True).eval()
    maps = [torch.randn(1, config.channels, h, w) for h, w in levels()]
    offsets, smooth = torch.randn(27, config.channels, 3, 3), torch.randn(256, 256, 3, 3)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (config.fusion_heads, -1)).transpose(1, 2)

    def work() -> None:
        for x in maps:
            F.conv2d(x, smooth, padding=1)
        for _ in range(config.blocks):
            query, values = heads(into[0](image)), heads(into[2](image))
            key, words = heads(into[1](text)), heads(into[3](text))
            table = query @ key.transpose(2, 3)
            out[0]((table.softmax(-1) @ words).transpose(1, 2).flatten(2))
            out[1]((table.transpose(2, 3).softmax(-1) @ values).transpose(1, 2).flatten(2))
            layer(text)
            for x in maps:
                F.conv2d(x, offsets, padding=1)

    return work


PARTS: dict[str, Callable[[], Work]] = {
    "Swin-T (torchvision)": swin,
    "BERT (transformers)": bert,
    "deformable convolutions (torchvision)": deformable,
    "dense products of fusion, pyramid and head (torch)": dense,
}
NAMED = tuple(PARTS)[:3]  # those that have a library of their own


# ---- memory ------------------------------------------------------------------------------------


def memory(half: bool) -> None:
    """Print the GB of a process that does one forward pass and nothing else."""
    forward(model_of(GLIP_T), inputs(), half=half)
    print(peak_gb())


# ---- the report ----------------------------------------------------------------------------------


@torch.inference_mode()
def on_cpu() -> None:
    given = inputs()
    full, plain = model_of(GLIP_T), model_of(replace(GLIP_T, fusion=False))
    contenders: dict[str, Work] = {
        "GLIP-T, float32": lambda: forward(full, given),
        "GLIP-T, bfloat16": lambda: forward(full, given, half=True),
        "GLIP-T (A), without fusion, float32": lambda: forward(plain, given),
    }
    contenders |= {name: make() for name, make in PARTS.items()}
    taken = take_turns(contenders, ROUNDS)
    print(f"Photo of {SIZE[0]} x {SIZE[1]}, {TOKENS} tokens, {torch.get_num_threads()} threads:\n")
    print("| what | seconds |\n|---|---:|")
    for name, value in taken.items():
        print(f"| {name} | {value:.2f} |")
    whole = taken["GLIP-T, float32"]
    named, parts = (sum(taken[name] for name in names) for names in (NAMED, PARTS))
    rows = [
        ("GLIP-T / its parts", MEANT, whole / parts),
        ("GLIP-T / Swin-T, BERT and deformable convolutions only", MEANT, whole / named),
    ]
    verdicts(rows, most=True)
    print(f"bfloat16 is {whole / taken['GLIP-T, bfloat16']:.2f} times as fast as float32.")
    if sys.platform != "win32":
        for name, half in (("float32", False), ("bfloat16", True)):
            used = own_process("glip", f"memory({half})")
            print(f"\nMemory of a process with one forward pass, {name}: {used:.1f} GB.")


def on_gpu() -> None:
    given = inputs("cuda")
    model = model_of(GLIP_T).cuda()
    print("\n| GPU | photos per second |\n|---|---:|")
    for name, half, compiled in (
        ("float32", False, False),
        ("bfloat16", True, False),
        ("bfloat16, torch.compile", True, True),
    ):
        if compiled:
            model.compile()

        def work(half: bool = half) -> None:
            forward(model, given, half=half)
            torch.cuda.synchronize()

        print(f"| {name} | {1 / take_turns({'gpu': work}, 20)['gpu']:.1f} |")
    print(f"\nMemory of the GPU: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB.")


def main() -> None:
    on_cpu()
    if torch.cuda.is_available():
        on_gpu()
    else:
        print("\nNo GPU on this machine; photos per second there were not measured.")


if __name__ == "__main__":
    main()
