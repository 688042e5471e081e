"""What does `import cliplab` cost, beside importing torch?

Whole processes, so the start of Python is in every row; best of five.
"""

import subprocess
import sys
import time

STATEMENTS = ("pass", "import cliplab", "import cliplab.runtime", "import torch")


def seconds(statement: str) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    print("| statement | seconds |\n|---|---:|")
    for statement in STATEMENTS:
        print(f"| `{statement}` | {seconds(statement):.2f} |")


if __name__ == "__main__":
    main()
