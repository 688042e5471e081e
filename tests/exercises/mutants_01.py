"""Plausible wrong answers to the exercises of lesson 01: (old, new, a word of the reply)."""

MUTANTS = {
    "01.1": [
        ("return math.log(n)", "return 2 * math.log(n)", "mean"),
        ("scale * n / (n - 1)", "scale", "-1/(N-1)"),
        ("(n - 1) * math.exp", "n * math.exp", "expected"),
        ("math.log1p(", "(", "expected"),
    ],
}
