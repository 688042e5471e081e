"""Images by words: prompts, zero-shot rows, scores, few-shot classifiers, ImageNet."""
