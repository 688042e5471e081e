"""Plausible wrong answers to the exercises of lesson 05: (old, new, a word of the reply)."""

MUTANTS = {
    "05.1": [
        ("share.sum(dim=1, keepdim=True)", "torch.tensor(share.shape[1])", "number of all"),
        ("(voters + plus)", "voters", "left out of the denominator"),
        (".clamp(min=1e-9)", "", "not finite"),
        ("/ (voters + plus).clamp(min=1e-9)", "", "sum of the patches"),
    ],
    "05.2": [
        ("return kept / kept.sum(dim=0, keepdim=True)", "return kept", "do not sum to 1"),
        ("share.sum(dim=1).topk", "share.amax(dim=1).topk", "sure patch"),
        ("topk(n)", "topk(n, largest=False)", "smallest"),
        ("share.sum(dim=1).topk", "share.argmax(dim=0).bincount(minlength=len(share)).topk",
         "wins"),
    ],
    "05.3": [
        ("return hard + soft - soft.detach()", "return soft", "softmax itself"),
        ("return hard + soft - soft.detach()", "return hard", "no gradient"),
        ("hard + soft - soft.detach()", "hard + 2 * (soft - soft.detach())", "gradient is not"),
        ("(0, soft.argmax(dim=0", "(1, soft.argmax(dim=1", "its best patch"),
    ],
    "05.4": [
        ("return logits.softmax(dim=1) * among", "return among", "first factor"),
        ("return logits.softmax(dim=1) * among", "return logits.softmax(dim=1)", "second factor"),
        ("logits[:, best].softmax(dim=1)", "logits.softmax(dim=1)[:, best]", "best words alone"),
        ("picture.topk(top)", "picture.topk(top, largest=False)", "expected"),
    ],
    "05.5": [
        ("[either > 0].mean()", ".nan_to_num().mean()", "leave it out"),
        ("| (true == k)).sum()", "| (true == k) & (named < classes)).sum()", "named wrongly"),
        (
            "((named == k) | (true == k)).sum()",
            "(named == k).sum() + (true == k).sum()",
            "only once",
        ),
        ("iou[either > 0].mean()", "(named == true).float().mean()", "share of right pixels"),
    ],
    "05.6": [
        ("label + 1, 0", "label, 0", "begin at 1"),
        ("best >= threshold", "best > threshold", "equals the threshold"),
        ("best >= threshold", "best < threshold", "too low"),
        ("max(dim=0)", "max(dim=1)", "shape"),
    ],
    "05.7": [
        ("owner * classes + true", "true * groups + owner", "wrong way round"),
        (".view(groups, classes)", ".view(classes, groups).T.contiguous()", "expected"),
        ("minlength=groups * classes", "minlength=0", "raises"),
    ],
    "05.8": [
        ("for k in range(species)", "for k in range(0)", "one at a time"),
        ("chosen[k] = max(", "chosen[k] = min(", "worst"),
        ("for k in range(species)", "for k in range(species - 1)", "expected"),
    ],
}  # fmt: skip
