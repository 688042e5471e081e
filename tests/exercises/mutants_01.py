"""Plausible wrong answers to the exercises of lesson 01: (old, new, a word of the reply)."""

MUTANTS = {
    "01.1": [
        ("return math.log(n)", "return 2 * math.log(n)", "mean"),
        ("scale * n / (n - 1)", "scale", "-1/(N-1)"),
        ("(n - 1) * math.exp", "n * math.exp", "expected"),
        ("math.log1p(", "(", "expected"),
    ],
    "01.2": [
        ("p + q - 2 *", "2 * p - 2 *", "only the rows"),
        ("cells = scale", "cells = 1", "scale is missing"),
        ("(p + q - 2 * ", "(p + q - ", "diagonal"),
        ("cells @ text_emb", "cells @ image_emb", "is the caption"),
        ("cells @ text_emb", "cells.T @ text_emb", "transposed"),
        ("cells @ text_emb", "-cells @ text_emb", "other sign"),
        ("/ (2 * len(logits))", "/ len(logits)", "2 N questions"),
    ],
    "01.3": [
        (") / 2", ")", "cosine of -1"),
        ("(n - 1)", "n", "n - 1 are wrong"),
        (" / 2", " ** -1 * 2", "temperature"),
        ("p / (1 - p)", "p", "whole row"),
        ("math.log(", "math.log10(", "natural"),
    ],
    "01.4": [
        ("F.cross_entropy(logits, own)", "F.cross_entropy(logits[:, own], torch.arange(len(own)))",
         "are wrong answers, too"),
        ("    asking", "    own = torch.arange(len(own))\n    asking", "`own` says"),
        ("logits[:, own].T", "logits.T", "where captions ask, too"),
        ("F.cross_entropy(logits, own), F.cross_entropy(asking, torch.arange(len(own)))",
         "F.cross_entropy(asking, torch.arange(len(own))), F.cross_entropy(logits, own)",
         "exchanged"),
        ("(asking, torch", "(logits[:, own], torch", "both are the rows"),
        ("F.cross_entropy(", "len(own) * F.cross_entropy(", "sums"),
        ("scale * image_emb", "image_emb", "scale is missing"),
        ("scale * image_emb", "1 / scale * image_emb", "temperature"),
    ],
    "01.5": [
        ("any(dim=1)", "all(dim=1)", "one own caption"),
        ("hit.any(dim=1)", "hit", "share of hits"),
        ("topk(k,", "topk(k - 1,", "k - 1"),
        ("topk(k,", "topk(k + 1,", "k + 1"),
        ("owner[best]", "best", "not their numbers"),
        (
            "hit.any(dim=1)",
            "(owner == cosine.topk(k, dim=0).indices).any(dim=0)",
            "here captions look",
        ),
    ],
    "01.6": [
        # accumulation: every chunk an exam of its own
        ("""    with torch.no_grad():  # first pass: all embeddings, no graph
        whole = [emb.requires_grad_() for emb in model(images, ids)]  # (N, D) each
""", """    model.zero_grad()
    for part in zip(images.split(chunk), ids.split(chunk), strict=True):
        losses.clip_loss(*model(*part), model.log_logit_scale.exp()).backward()
    return [weight.grad for weight in model.parameters()]
""", "accumulation"),
        ("""    with torch.no_grad():  # first pass: all embeddings, no graph
""", """    losses.clip_loss(*model(images, ids), model.log_logit_scale.exp()).backward()
    return [weight.grad for weight in model.parameters()]
    with torch.no_grad():
""", "had a graph at once"),
        ("model.log_logit_scale.exp())", "model.log_logit_scale.exp().detach())", "missing"),
        ("zip(images.split(chunk), ids.split(chunk), strict=True)",
         "[(images[: len(images) // chunk * chunk].split(chunk)[0], ids[:chunk])]", "expected"),
    ],
    "01.7": [
        ("-math.log(n - 1)", "math.log(n - 1)", "sign"),
        ("log(n - 1)", "log(n)", "odds"),
        ("-math.log(n - 1)", "-10.0", "batch size"),
        ("-math.log(n - 1)", "1 / n", "share of yes"),
    ],
    "01.8": [
        ("< share", "> share", "not the part kept"),
        ("randint(10,", "randint(9,", "upper end"),
        ("drawn, digits)", "(digits + 1 + drawn % 9) % 10, digits)", "a tenth"),
        ("torch.rand(len(digits), generator=generator)", "torch.arange(len(digits)) / len(digits)",
         "one end"),
        (".manual_seed(seed)", ".manual_seed(0)", "another seed"),
        ("generator = torch.Generator().manual_seed(seed)", "generator = None", "each time"),
        ("return torch.where(broken, drawn, digits)", "return digits.copy_(drawn)", "changes its"),
    ],
}  # fmt: skip
