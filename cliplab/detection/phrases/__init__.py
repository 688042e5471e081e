"""What a detector is asked for: a class list or a sentence, its phrases, and their tokens."""

from cliplab.detection.phrases.prompt import (
    SEPARATOR,
    Prompt,
    class_prompt,
    read_prompt,
    relating_words,
    sentence_prompt,
)
from cliplab.detection.phrases.tokens import (
    Chunk,
    Piece,
    batch_of,
    chunks_of,
    pieces_of,
    positive_map,
    tokens_of_characters,
)

__all__ = [
    "SEPARATOR", "Chunk", "Piece", "Prompt", "batch_of", "chunks_of", "class_prompt", "pieces_of",
    "positive_map", "read_prompt", "relating_words", "sentence_prompt", "tokens_of_characters",
]  # fmt: skip
