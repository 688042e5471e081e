"""Plausible wrong answers to the exercises of lesson 03: (old, new, a word of the reply)."""

MUTANTS = {
    "03.1": [
        ("torch.cat([centre - half, centre + half], dim=1)", "scale * boxes", "place"),
        ("centre - half, centre + half", "low, low + 2 * half", "one side"),
        ("(high - low) / 2", "(high - low)", "twice as large"),
        ("[centre - half, centre + half]", "[low - (scale - 1) * high / 2, scale * high]", "sides"),
        ("[centre - half,", "[(centre - half).clamp(min=0),", "leave the picture"),
    ],
    "03.2": [
        ("F.normalize(background, dim=0)", "background", "length 1"),
        ("return logits[:, 1:].softmax(dim=1)", "share = 0", "still takes part"),
        ("scaled.softmax(dim=1)", "scaled.softmax(dim=0)", "regions"),
        ("/ tau", "* tau", "divide by it"),
        ("if share is None", "if True", "missing"),
        (
            "return scaled.softmax(dim=1)[:, 1:]",
            "p = logits.softmax(dim=1) * torch.tensor([share] + [1.0] * len(text_emb))\n"
            "    return (p / p.sum(dim=1, keepdim=True))[:, 1:]",
            "before the softmax",
        ),
    ],
    "03.3": [
        (".clamp(min=0)", "", "below 0"),
        (" - both)", ")", "twice"),
        ("/ (area_a[:, None] + area_b - both)", "/ area_a[:, None]", "first box"),
        ("area_a[:, None] + area_b - both", "area_a[:, None].minimum(area_b)", "smaller"),
    ],
    "03.4": [
        ("(p - hit)", "(hit - p)", "sign"),
        (" / len(logits)", "", "divide by R"),
        (" * shown", "", "its gradient is 0"),
        ("logits.masked_fill(~shown, 0)", "logits", "novel logit is 0"),
        ("~shown, 0)", "~shown, -torch.inf)", "masked form"),
        ("(p - hit)", "p", "target is missing"),
    ],
    "03.5": [
        ("sum(dim=1).mean()", "sum(dim=1).mean() / 2", "weight 0.5"),
        ("sum(dim=1).mean()", "mean()", "sums them"),
        ("sum(dim=1).mean()", "sum()", "their mean"),
        (".abs()", ".square()", "squared"),
        ("difference.abs().sum(dim=1)", "difference.norm(dim=1)", "Euclidean"),
        ("F.normalize(student, dim=1)", "student", "length 1"),
        ("dim=1) - teacher", "dim=0) - teacher", "columns"),
        (".abs()", "", "cancel"),
    ],
    "03.6": [
        ("is_val & (labels == k)", "labels == k", "test split"),
        ("is_val & ", "~is_val & ", "only test crops"),
        ("F.normalize(crops.mean(dim=0), dim=0)", "crops.mean(dim=0)", "shorter than 1"),
        ("[:n]", "", "all validation crops"),
        (
            "emb[is_val & (labels == k)][:n]",
            "emb[labels == k][:n][is_val[labels == k][:n]]",
            "first",
        ),
        ("text_emb.clone()", "torch.zeros_like(text_emb)", "keeps its words"),
        (".clone()", "", "changes its arguments"),
        ("if len(crops):", "if len(crops) == n:", "single"),
    ],
    "03.7": [
        ("free[candidates.argmax()] = False", "pass", "two boxes"),
        ("boxes[scores.argsort(descending=True)]", "boxes", "as they come"),
        ("[order]", "", "sorted by score"),
        (
            "best[torch.searchsorted(so_far / count, points)].mean().item()",
            "(precision * so_far.diff(prepend=torch.zeros(1))).sum().item() / count",
            "101 recalls",
        ),
        ("sum(areas) / len(areas)", "areas[0]", "all IoUs"),
        ("so_far / count", "so_far / so_far[-1]", "finds counts"),
    ],
    "03.8": [
        ("z, t = z - z.mean(dim=0), t - t.mean(dim=0)", "pass", "of both"),
        ("z, t = z - z.mean(dim=0),", "z, t = z,", "of z too"),
        ("z.T @ t)", "z.T @ t).T", "transposed"),
        (" + eps * torch.eye(z.shape[1])", "", "missing"),
        ("eps * torch.eye(z.shape[1])", "eps", "diagonal"),
        (
            "return torch.linalg.solve(z.T",
            "z, t = t, z\n    return torch.linalg.solve(z.T",
            "t to z",
        ),
    ],
}
