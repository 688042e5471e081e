"""GLIP's words against the released code's positive maps, and against transformers' BERT."""

import json

import pytest
import torch
from parity.reference import GOLDEN, read_reference

from cliplab.detection import read_prompt
from cliplab.models.glip import Prompt, pieces_of, positive_map
from cliplab.models.glip.config import GLIPConfig
from cliplab.models.glip.model import TextEncoder
from cliplab.models.glip.tokens import tokens_of_characters
from cliplab.models.tokenizers import WordPieceTokenizer

MAPS = json.loads((GOLDEN / "glip" / "positive_map.json").read_text(encoding="utf-8"))
TOKENIZER = WordPieceTokenizer(MAPS["vocab"], 256)


def prompt_of(case: dict) -> Prompt:
    spans = tuple(tuple(map(tuple, places)) for places in case["tokens_positive"])
    return Prompt(case["caption"], tuple(map(str, range(len(spans)))), spans)


@pytest.mark.parametrize("case", MAPS["cases"], ids=lambda case: case["caption"].strip())
def test_positive_maps(case: dict) -> None:
    prompt = prompt_of(case)
    pieces = pieces_of(TOKENIZER, prompt.caption)
    assert ["[CLS]", *(piece.text for piece in pieces), "[SEP]"] == case["tokens"]
    assert [[p.start, p.end] for p in pieces] == case["offsets"][1:-1]
    assert tokens_of_characters(pieces, len(prompt.caption)) == case["char_to_token"]
    positive = positive_map(prompt, pieces, MAPS["width"])
    shares = positive / (positive.sum(1, keepdim=True) + 1e-6)  # as the released code returns it
    for row, pairs in zip(shares, case["positive_map_nonzero"], strict=True):
        assert row.nonzero().flatten().tolist() == [column for column, _ in pairs]
        assert row[row > 0].tolist() == pytest.approx([share for _, share in pairs], rel=1e-6)
    rows = {str(k + 1): row.nonzero().flatten().tolist() for k, row in enumerate(positive)}
    assert rows == case["label_to_token_plus1"]


@pytest.mark.parametrize(
    ("text", "tokens", "rows"),
    [
        ("sheep. standing sheep. person. dog.", 0, [[1], [3, 4, 5], [7], [9]]),
        ("a sheep, lying in the grass. eating", 1, [[2], [4], [7], [9, 10]]),
    ],
)
def test_captions_of_the_whole_model(text: str, tokens: int, rows: list) -> None:
    full = read_reference("glip/full")
    tokenizer = WordPieceTokenizer(full.notes["config"]["vocab"], 256)
    prompt = read_prompt(text)
    ids = full.inputs["input_ids"][tokens]
    pieces = pieces_of(tokenizer, text)
    assert [tokenizer.start_id, *(p.id for p in pieces), tokenizer.end_id] == ids[ids > 0].tolist()
    found = positive_map(prompt, pieces_of(tokenizer, prompt.caption), 16)
    assert [row.nonzero().flatten().tolist() for row in found] == rows


TEXTS = [
    "Two black goats, left of the trough!",
    "水槽左边的黑山羊。躺着的羊，１２只",
    "  Café ÉCOLE  naïve\tsheep-dog (it's) 🐑 sheep🐑 ",
    "a\u200bb \u3000x […] ﬁne Ⅳ 한국 שלום",
]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_and_their_places_are_those_of_transformers(text: str) -> None:
    transformers = pytest.importorskip("transformers")
    letters = sorted({c for t in TEXTS for c in t.lower()} | set("abcdefghijklmnopqrstuvwxyz"))
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["goat", "##s", "black", "sheep", "trough", "cafe", "ecole", "##g", "##o", "##ve"]
    vocab = list(dict.fromkeys(specials + words + [c for c in letters if not c.isspace()]))
    theirs = transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(vocab)})
    encoded = theirs(text, return_offsets_mapping=True)
    ours = pieces_of(WordPieceTokenizer(vocab), text)
    assert [piece.id for piece in ours] == encoded["input_ids"][1:-1]
    assert [(p.start, p.end) for p in ours] == [tuple(x) for x in encoded["offset_mapping"][1:-1]]


@torch.no_grad()
def test_text_encoder_is_transformers_bert() -> None:
    """So that files from there load, and nobody needs the library to read a prompt."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 96, "max_position_embeddings": 32}
    theirs = transformers.BertModel(transformers.BertConfig(**sizes), add_pooling_layer=False)
    weights = {n: torch.randn_like(x) * 0.3 if x.is_floating_point() else x
               for n, x in theirs.state_dict().items()}  # fmt: skip
    theirs.load_state_dict(weights)
    config = GLIPConfig(
        vocab_size=64, text_width=48, text_layers=2, text_heads=4, text_hidden=96,
        text_positions=32, max_tokens=32,
    )  # fmt: skip
    ours = TextEncoder(config).eval()
    ours.body["model"].load_state_dict(weights)
    ids = torch.randint(1, 64, (2, 9))
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    expected = theirs.eval()(ids, attention_mask=mask.long()).last_hidden_state
    hidden, embedded = ours(ids, mask)
    torch.testing.assert_close(hidden[mask], expected[mask], atol=1e-5, rtol=0)
    assert torch.equal(embedded[~mask], torch.zeros(4, 48))
