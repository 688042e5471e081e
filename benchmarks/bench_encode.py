"""How fast do the shipped models embed pictures and texts, beside the official code?

The same weights in our readable classes and in `clip` and `modelscope`; 64-pixel pictures, so that
resizing is no part of it; all threads that torch takes.
"""

import time

from cliplab.encoders import load_encoder
from cliplab.pasture import caption, draw, portrait
from cliplab.runtime import checkpoint_dir

PAIRS = (
    ("pasture", f"openai:{checkpoint_dir('clip-openai') / 'model.pt'}", "en"),
    ("pasture-zh", f"modelscope:{checkpoint_dir('clip-chinese')}", "zh"),
)


def seconds(work, rounds: int = 3) -> float:
    work()
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    scenes = [portrait(i, split="test") for i in range(512)]
    images = [draw(scene, 64) for scene in scenes]
    print("| encoder | images per second | texts per second |\n|---|---:|---:|")
    for ours, official, language in PAIRS:
        texts = [caption(scene, language) for scene in scenes]
        for spec in (ours, official):
            encoder = load_encoder(spec, device="cpu")
            image_s = seconds(lambda e=encoder: e.encode_image(images))
            text_s = seconds(lambda e=encoder, t=texts: e.encode_text(t))
            name = ours if spec == ours else f"{official.split(':')[0]}, official code"
            print(f"| {name} | {len(images) / image_s:,.0f} | {len(texts) / text_s:,.0f} |")


if __name__ == "__main__":
    main()
