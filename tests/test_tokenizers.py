"""Token ids exactly as the official tokenizers give them, readable pieces, and refusals."""

import json
import random
from pathlib import Path

import pytest
import torch

from cliplab.models.tokenizers import (
    BytePairTokenizer,
    Tokenizer,
    WordPieceTokenizer,
    check_vocab,
    read_vocab,
)

GOLDEN = Path(__file__).parent / "golden"
VOCAB = GOLDEN / "chinese_clip" / "model_dir" / "vocab.txt"
BYTE_PAIR_CASES = json.loads((GOLDEN / "clip/tokenizer.json").read_text(encoding="utf-8"))["cases"]
WORD_PIECE_CASES = json.loads((GOLDEN / "chinese_clip/tokenizer.json").read_text(encoding="utf-8"))[
    "small_vocab"
]


@pytest.fixture(scope="module")
def byte_pairs() -> BytePairTokenizer:
    pytest.importorskip("clip", reason="needs openai-clip")
    return BytePairTokenizer()


@pytest.fixture(scope="module")
def word_pieces() -> WordPieceTokenizer:
    return WordPieceTokenizer(VOCAB)


# ---- byte pairs ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", BYTE_PAIR_CASES, ids=lambda case: case["text"][:20])
def test_byte_pairs_are_openais(byte_pairs: BytePairTokenizer, case: dict) -> None:
    assert byte_pairs.encode(case["text"]) == case["bpe_ids"]
    expected = case["tokenize_77_truncate"]
    row = byte_pairs([case["text"]], truncate=True)[0].tolist()
    assert row == expected + [0] * (77 - len(expected))
    if "tokenize_77_error" in case:
        with pytest.raises(
            ValueError, match="has 92 tokens with start and end; expected at most 77"
        ):
            byte_pairs([case["text"]])
    else:
        assert byte_pairs(case["text"])[0].tolist() == row


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("A Photo of antidisestablishmentarianism", "a photo of anti dise stab lish ment arianism"),
        ("🐑 naïve", "🐑 na ï ve"),
        ("羊", "<0xE7> <0xBE> <0x8A>"),
        ("", ""),
    ],
)
def test_byte_pieces_are_readable(byte_pairs: BytePairTokenizer, text: str, pieces: str) -> None:
    assert byte_pairs.pieces(text) == pieces.split()
    assert len(byte_pairs.pieces(text)) == len(byte_pairs.encode(text))


def test_ids_are_int64_rows_of_the_context_length(byte_pairs: BytePairTokenizer) -> None:
    ids = BytePairTokenizer(context_length=8)(["a sheep", "two sheep lying"])
    assert ids.shape == (2, 8)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, byte_pairs(["a sheep", "two sheep lying"])[:, :8])
    assert byte_pairs.vocab_size == 49408
    assert (ids.argmax(dim=1) == torch.tensor([3, 4])).all()  # the end token is the highest id
    assert byte_pairs([]).shape == (0, 77)


def test_byte_pairs_agree_with_openais_own_on_any_text(byte_pairs: BytePairTokenizer) -> None:
    simple_tokenizer = pytest.importorskip("clip.simple_tokenizer")
    theirs, rng = simple_tokenizer.SimpleTokenizer(), random.Random(0)
    symbols = "ab sheep'sTHE &amp;羊é½²３<|endoftext|>\n!?.-_’'ll\u0130\u0301\U0001f411"
    for _ in range(2000):
        text = "".join(rng.choices(symbols, k=rng.randint(0, 30)))
        assert byte_pairs.encode(text) == theirs.encode(text), text


# ---- word pieces ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", WORD_PIECE_CASES, ids=lambda case: case["text"].strip()[:20])
def test_word_pieces_are_modelscopes(word_pieces: WordPieceTokenizer, case: dict) -> None:
    assert word_pieces.pieces(case["text"]) == case["tokens"]
    assert word_pieces.encode(case["text"]) == case["ids"]


def test_word_pieces_agree_with_full_tokenizer_on_any_text(word_pieces: WordPieceTokenizer) -> None:
    official = pytest.importorskip(
        "modelscope.models.multi_modal.clip.bert_tokenizer", reason="needs modelscope[framework]"
    ).FullTokenizer(str(VOCAB))
    draw = random.Random(0)
    known = [*range(0x3100), *range(0xF900, 0x10000)]  # scripts, symbols, compatibility forms
    rest = [*range(0x3100, 0xD800), *range(0xE000, 0xF900), *range(0x1F300, 0x2FFFF)]
    codes = draw.sample(known, 2000) + draw.sample(rest, 1000)  # all of them agreed once; 45 s
    texts = [
        " ".join(f"A{chr(code)}b" for code in codes[i : i + 500]) for i in range(0, len(codes), 500)
    ]
    for _ in range(300):
        texts.append("".join(chr(draw.choice(codes)) for _ in range(draw.randint(0, 30))))
    texts += [
        "a" * 200,
        "a" * 201,
        "[MASK] ##ing",
        "İstanbul ΟΔΟΣ ﬁ e\u0301",
        "a\u2028b\u200bc\x85d",
    ]
    for text in texts:
        assert word_pieces.pieces(text) == official.tokenize(text), text[:40]


def test_word_piece_rows_are_cut_only_when_asked(word_pieces: WordPieceTokenizer) -> None:
    text = "羊" * 60
    with pytest.raises(
        ValueError, match=r"text too long: '羊+' has 62 tokens.*at most 52.*truncate"
    ):
        word_pieces(["羊", text])
    row = word_pieces(text, truncate=True)[0]
    assert row[0] == word_pieces.start_id
    assert row[-1] == word_pieces.end_id
    assert (row[1:-1] == 8).all()
    assert (word_pieces("羊" * 50)[0] == row).all()


def test_vocabulary_from_a_list_or_a_windows_file(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "羊", "##s"]
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*tokens, ""]).encode())
    assert read_vocab(path) == tokens
    assert (
        WordPieceTokenizer(path).encode("羊 s")
        == WordPieceTokenizer(tokens).encode("羊 s")
        == [4, 1]
    )


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        (["[PAD]", "[UNK]", "[CLS]", "羊"], r"without \[SEP\]; expected .*\[PAD\] first"),
        (["羊", "[PAD]", "[UNK]", "[CLS]", "[SEP]"], r"without \[PAD\] at 0"),
    ],
)
def test_vocabularies_that_cannot_work_are_refused(vocab: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_vocab(vocab)


def test_what_is_no_text_or_no_vocabulary_is_refused(
    word_pieces: WordPieceTokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"texts\[1\]: got a NoneType; expected a string"):
        word_pieces(["羊", None])
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such vocabulary"):
        WordPieceTokenizer(tmp_path / "none.txt")
    (tmp_path / "gbk.txt").write_bytes("羊".encode("gbk"))
    with pytest.raises(ValueError, match=r"gbk\.txt: not UTF-8"):
        WordPieceTokenizer(tmp_path / "gbk.txt")


# ---- what of a text is read ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a photo of a lying sheep", 1.0),
        ("躺着的羊", 0.0),
        ("a photo of a 羊", 4 / 7),
        ("", 1.0),
    ],
)
def test_coverage_counts_pieces_that_are_no_bytes(
    byte_pairs: BytePairTokenizer, text: str, share: float
) -> None:
    assert byte_pairs.coverage(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("piece", "read"),
    [("[UNK]", False), ("<unk>", False), ("<0xE7>", False), ("о<0xD0>", False), ("羊", True),
     ("##s", True), ("<", True), ("0x41", True)],
)  # fmt: skip
def test_pieces_of_every_tokenizer_are_told_apart(piece: str, read: bool) -> None:
    assert Tokenizer.is_read(piece) is read
