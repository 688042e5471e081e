"""Plausible wrong answers to the exercises of lesson 04: (old, new, a word of the reply)."""

MUTANTS = {
    "04.1": [
        ("deltas[:, 2:].exp()", "deltas[:, 2:]", "logarithm"),
        ("deltas[:, 2:].exp()", "(1 + deltas[:, 2:])", "not 1 + d"),
        ("deltas[:, :2] * side", "deltas[:, :2]", "pixels"),
        ("* side / 2", "* side", "half a side"),
        ("(anchors[:, :2] + anchors[:, 2:]) / 2", "anchors[:, :2]", "not the corner"),
        ("[centre - half, centre + half]", "[centre, 2 * half]", "two corners"),
        ("deltas[:, :2] * side", "deltas[:, :2] * side * deltas[:, 2:].exp()", "before it grows"),
    ],
    "04.2": [
        ("stays & (labels == labels[row])", "stays", "another label"),
        ("stays & (labels", "(scores > scores[row]) & (labels", "drops nobody"),
        ("descending=True", "descending=False", "best score"),
        ("scores.argsort(descending=True)", "torch.arange(len(boxes))", "as they come"),
        ("return stays", "return ~stays", "stays"),
    ],
    "04.3": [
        ("enumerate(pieces, start=1)", "enumerate(pieces)", "[CLS]"),
        ("start <= first and last <= end", "start == first", "first alone"),
        ("start <= first and last <= end", "start <= first <= end", "begins where a phrase ends"),
        ("start <= first and last <= end", "start <= last and first <= end", "touches"),
        ("last <= end", "last < end", "ends with its phrase"),
    ],
    "04.4": [
        (".sigmoid()", "", "no probabilities"),
        (" / positive.sum(dim=1)", "", "mean"),
        (".sigmoid()", ".softmax(dim=1)", "no softmax"),
        ("positive.sum(dim=1)", "positive.shape[1]", "not over all"),
        (
            "return probability @ positive.float().T / positive.sum(dim=1)",
            "return (cells @ words.T @ positive.float().T / positive.sum(dim=1)).sigmoid()",
            "then the mean",
        ),
    ],
    "04.5": [
        (".sum()", ".mean()", "summed"),
        ("log(logits) / 4", "p.log() / 4", "not finite"),
        ("hit + miss", "hit", "count too"),
        ("(hit + miss)", "-(hit + miss)", "sign"),
    ],
    "04.6": [
        (".masked_fill(~real, -torch.inf)", "", "padding is heard"),
        (
            "table.masked_fill(~real, -torch.inf).softmax(dim=1)",
            "table.softmax(dim=1) * real",
            "before the softmax",
        ),
        (" / image.shape[1] ** 0.5", "", "root of C"),
        ("table.masked_fill(~real, -torch.inf)", "(table * real)", "no mask"),
        (
            "table.masked_fill(~real, -torch.inf).softmax(dim=1)",
            "table.softmax(dim=0) * real",
            "over the cells",
        ),
        ("gamma * (to_words @ text)", "to_words @ text", "gamma is missing"),
        ("image + gamma", "gamma", "add it"),
    ],
    "04.7": [
        (" & inside", "", "centre inside"),
        ("distance.split(counts)", "distance.split(len(anchors))", "each map"),
        ("rule(overlap)", "rule(iou(anchors, box)[:, 0])", "candidates alone"),
        ("rule(overlap)", "overlap.mean() + overlap.std()", "rule that is given"),
    ],
    "04.8": [
        ("if name.endswith(endings)", "if endings and endings[0] in name", "must stay"),
        ("name.endswith(endings)", "not name.endswith(endings)", "must be zero"),
        ("torch.zeros_like(weight)", "weight.zero_()", "changes its arguments"),
        (
            "for name, weight in weights.items()",
            "for name, weight in weights.items() if not name.endswith(endings)",
            "every name",
        ),
    ],
}
