"""How fast is the pasture drawn, beside reading pictures from files?

One core. The peer is Pillow decoding PNG pictures of the same size from memory: what a data set on
disk would cost at the least.
"""

import io
import time
from collections.abc import Callable

from PIL import Image

from cliplab.pasture import caption, draw, herd, labels, portrait


def per_second(work: Callable[[int], object], count: int, rounds: int = 3) -> float:
    """Best of some rounds, after one call to warm up."""
    work(0)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for i in range(count):
            work(i)
        best = min(best, time.perf_counter() - start)
    return count / best


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def main() -> None:
    small = [png(draw(portrait(i), 64)) for i in range(50)]
    rows = [
        ("describe a portrait", per_second(portrait, 2000)),
        ("caption it, English", per_second(lambda i: caption(portrait(i), "en"), 1000)),
        ("draw a portrait, 64 px", per_second(lambda i: draw(portrait(i), 64), 600)),
        ("draw a portrait, 224 px", per_second(lambda i: draw(portrait(i), 224), 100)),
        ("draw a herd, 96 px", per_second(lambda i: draw(herd(i), 96), 300)),
        ("draw a herd, 128 px", per_second(lambda i: draw(herd(i), 128), 200)),
        ("label a herd, 128 px", per_second(lambda i: labels(herd(i), 128), 100)),
        (
            "peer: decode a PNG of 64 px",
            per_second(lambda i: Image.open(io.BytesIO(small[i % 50])).load(), 2000),
        ),
    ]
    print("| one core | per second |\n|---|---:|")
    for name, rate in rows:
        print(f"| {name} | {rate:,.0f} |")


if __name__ == "__main__":
    main()
