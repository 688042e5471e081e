"""Prompts: lists and sentences, phrases and their tokens, and prompts of any length."""

import pytest
import torch

from cliplab.detection import class_prompt, read_prompt, relating_words, sentence_prompt, side_of
from cliplab.models.glip import Chunk, Prompt, batch_of, chunks_of, pieces_of, positive_map
from cliplab.models.tokenizers import WordPieceTokenizer

WORDS = (
    "sheep goat black white dog trough the a left of on in , . - 羊 山 黑 白 狗 水 槽 边 左 的 x"
)
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split(), "##s", *map(str, range(10)), "##x"]
TOKENIZER = WordPieceTokenizer(VOCAB, 256)


def texts(prompt: Prompt) -> list[list[str]]:
    """What stands at the spans of each phrase."""
    return [[prompt.caption[a:b] for a, b in spans] for spans in prompt.spans]


# ---- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "phrases"),
    [
        ("sheep", ["sheep"]),
        ("sheep, black goat", ["sheep", "black goat"]),
        ("sheep. goat. dog.", ["sheep", "goat", "dog"]),
        ("羊！山羊？狗：牛", ["羊", "山羊", "狗", "牛"]),
        (["sheep!", "goat?"], ["sheep", "goat"]),
        ("羊、黑山羊", ["羊", "黑山羊"]),
        ("ｓｈｅｅｐ，　ｇｏａｔ", ["sheep", "goat"]),
        (["red barn", "dog"], ["red barn", "dog"]),
        ("first aid kit, the second hand barn", ["first aid kit", "second hand barn"]),
        ("besides sheep, also goats", ["sheep", "goats"]),
        ("除了羊还有山羊", ["羊", "山羊"]),
        ("除了羊以外，也有山羊", ["羊", "山羊"]),
        ("the black goat to the left of a trough.", ["black goat", "trough"]),
        ("A photo of a white sheep lying down by a tree", ["white sheep lying down", "tree"]),
        ("水槽左边的黑山羊", ["水槽", "黑山羊"]),
        ("草地上有一只躺着的羊", ["草地", "躺着的羊"]),
        ("图中有一堆干草垛和一棵大树", ["干草垛", "大树"]),
        ("大树旁的马和正在喝水的羊", ["大树", "马", "喝水的羊"]),
        ("the [black goat] left of the [water trough]", ["black goat", "water trough"]),
        ("【黑山羊】在水槽左边", ["黑山羊"]),
    ],
)
def test_lists_and_sentences(typed: str | list, phrases: list) -> None:
    prompt = read_prompt(typed)
    assert list(prompt.phrases) == phrases
    assert [places[0] for places in texts(prompt)] == phrases
    assert read_prompt(prompt) is prompt


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("sheep, black goat", []),
        ("a photo of a sheep, a goat and the dog", []),
        ("there is an [eating sheep] in the picture", []),
        ("图中有一堆干草垛、一只羊和一棵大树", []),
        ("躺着的白羊的照片", []),
        ("照片里有两只羊和这匹马", []),
        ("the [black goat] left of the trough", ["left", "of", "trough"]),
        ("a goat with a dog", ["with"]),
        ("水槽左边的黑山羊", ["左边"]),
        ("草地上有羊", ["上"]),
    ],
)
def test_words_that_tell_which_one_is_meant(typed: str, words: list[str]) -> None:
    assert relating_words(read_prompt(typed)) == words


@pytest.mark.parametrize(
    ("typed", "side"),
    [
        *[("the goat left of the trough", (0, 1, -1)), ("a goat to the right of a cow", (0, 1, 1))],
        *[("the [goat] on the Left side of the [trough]", (0, 1, -1)), ("a goat by a cow", None)],
        *[
            ("水槽左边的山羊", (1, 0, -1)),
            ("山羊在水槽的右侧", (0, 1, 1)),
            ("水槽旁边的山羊", None),
        ],
        *[("the goat left of the cow left of the barn", None), ("goat, left of", None)],
        *[("the [cow], left of which is a [goat]", None), ("a [goat], left of it a [cow]", None)],
        ("the [goat] on the right-hand side of the [cow]", (0, 1, 1)),
        ("the [goat] left of the [cow], a [goat]", None),
        *[("the goat is right by the side of the cow", None), ("left-handed goat, cow", None)],
    ],
)
def test_a_named_side_is_of_one_phrase_and_of_another(typed: str, side: object) -> None:
    assert side_of(read_prompt(typed)) == side


@pytest.mark.parametrize(
    "typed",
    [
        *("sheep", "a sheep", "the sheep", "two sheep", "all the sheep", "a flock of sheep"),
        ["the sheep"],
        *("羊", "一只羊", "那只羊", "两只羊", "所有的羊", "一群羊"),
    ],
)
def test_articles_and_counts_are_no_part_of_what_is_looked_for(typed: str | list) -> None:
    expected = "羊" if "羊" in typed else "sheep"
    prompt = read_prompt(typed)
    assert (prompt.caption, prompt.phrases, prompt.left_out) == (expected, (expected,), ())


@pytest.mark.parametrize(
    ("typed", "phrases", "left_out"),
    [
        ("sheep, not goats", ["sheep"], ["not goats"]),
        ("羊，不要山羊", ["羊"], ["不要山羊"]),
        ("an animal that is not a sheep", ["animal"], ["that is not a sheep"]),
        ("不是羊的动物", ["动物"], ["不是羊的"]),
        ("没有角的羊在水槽左边", ["羊", "水槽"], ["没有角的"]),
        ("animals except sheep", ["animals"], ["except sheep"]),
        ("除了羊以外的动物", ["动物"], ["除了羊以外的"]),
        ("the leftmost sheep", ["sheep"], ["leftmost"]),
        ("最左边的羊", ["羊"], ["最左边的"]),
        ("the sheep nearest to the trough", ["sheep"], ["nearest to the trough"]),
        ("离水槽最近的羊", ["羊"], ["离水槽最近的"]),
        ("第二只羊", ["羊"], ["第二只"]),
        (
            "the sheep on the left side of the picture",
            ["sheep"],
            ["on the left side of the picture"],
        ),
        ("图中左侧的羊", ["羊"], ["图中左侧的"]),
        ("羊在中间", ["羊"], ["在中间"]),
        ("the sheep on the left side of the trough", ["sheep", "trough"], []),
        ("羊在水槽左边", ["羊", "水槽"], []),
        ("[sheep], not [goat]", ["sheep"], ["not [goat]"]),
        ("[羊]，不要[山羊]", ["羊"], ["不要[山羊]"]),
        ("a [no entry sign]", ["no entry sign"], []),
        ("不锈钢水槽", ["不锈钢水槽"], []),
        ("the northwest forest, no-entry", ["northwest forest", "no-entry"], []),
    ],
)
def test_negation_and_superlatives_are_left_out_whole(
    typed: str, phrases: list[str], left_out: list[str]
) -> None:
    prompt = read_prompt(typed)
    assert (list(prompt.phrases), list(prompt.left_out)) == (phrases, left_out)


@pytest.mark.parametrize("typed", ["not a goat", "不是山羊", "不要山羊"])
def test_who_only_says_what_is_not_meant_asks_for_nothing(typed: str) -> None:
    with pytest.raises(ValueError, match=f"got '{typed}', in which there is no phrase"):
        read_prompt(typed)


def test_a_list_becomes_a_sentence() -> None:
    prompt = class_prompt(["sheep", " black\u3000 goat. "])
    assert prompt.caption == "sheep. black goat"
    assert prompt.spans == (((0, 5),), ((7, 17),))


@pytest.mark.parametrize("nothing", ["", ",;。、|", [], ["", " . "], "of the", "左边的"])
def test_nothing_to_look_for(nothing: str | list) -> None:
    with pytest.raises(ValueError, match="in which there is no phrase; expected a list"):
        read_prompt(nothing)


@pytest.mark.parametrize("typed", ["a [goat", "a goat]", "[]", "a [  ] goat", "the [black [goat]]"])
def test_brackets_that_do_not_match(typed: str) -> None:
    with pytest.raises(ValueError, match="expected words in matching brackets"):
        read_prompt(typed)


def test_blanks_in_brackets_are_no_part_of_a_phrase() -> None:
    prompt = read_prompt("the [     goat ] left of [ the trough  ]\t")
    assert prompt.caption == "the      goat  left of  the trough  "
    assert prompt.phrases == ("goat", "the trough")
    (chunk,) = chunks_of(prompt, TOKENIZER)
    assert chunk.positive.any(1).all()


def test_a_class_that_occurs_twice_is_asked_for_once() -> None:
    assert class_prompt(["Sheep", "goat", "sheep", "ＳＨＥＥＰ"]).phrases == ("Sheep", "goat")


def test_a_phrase_that_occurs_twice_in_a_sentence_has_two_spans() -> None:
    prompt = read_prompt("a sheep next to a Sheep and a dog")
    assert prompt.phrases == ("sheep", "dog")
    assert texts(prompt) == [["sheep", "Sheep"], ["dog"]]
    given = sentence_prompt("sheep left of sheepdog and sheep", ["SHEEP"])
    assert given.spans == (((0, 5), (27, 32)),)  # not in sheepdog
    assert sentence_prompt("sheepdog and dog", ["dog", "Dog"]).spans == (((13, 16),),)
    assert sentence_prompt("黑山羊和山羊", ["山羊"]).spans == (((1, 3), (4, 6)),)


def test_spans_may_overlap() -> None:
    given = sentence_prompt("the black goat", ["black goat", "goat"])
    assert given.phrases == ("black goat", "goat")
    assert given.spans == (((4, 14),), ((10, 14),))
    rows = positive_map(given, pieces_of(TOKENIZER, given.caption), 6)
    assert rows.int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]]


def test_a_phrase_that_is_not_there() -> None:
    for phrase in ("cow", ""):
        with pytest.raises(ValueError, match=f"phrase '{phrase}': not in the sentence"):
            sentence_prompt("the black goat", [phrase])


# ---- tokens --------------------------------------------------------------------------------


def test_pieces_know_where_they_come_from() -> None:
    pieces = pieces_of(TOKENIZER, "Ｘ  Goats黑山羊, goàt🐑\u200b")
    shown = [(p.text, p.start, p.end) for p in pieces]
    assert shown == [
        ("[UNK]", 0, 1), ("goat", 3, 7), ("##s", 7, 8), ("黑", 8, 9), ("山", 9, 10), ("羊", 10, 11),
        (",", 11, 12), ("[UNK]", 13, 18),
    ]  # fmt: skip
    assert [VOCAB[p.id] for p in pieces] == [p.text for p in pieces]


def test_spans_that_end_between_words() -> None:
    caption = "   sheep    goat"
    pieces = pieces_of(TOKENIZER, caption)
    for span, tokens in (((1, 10), [1]), ((0, 11), []), ((3, 11), []), ((3, 13), [1, 2])):
        (row,) = positive_map(Prompt(caption, ("x",), ((span,),)), pieces, 4)
        assert row.nonzero().flatten().tolist() == tokens, span


def test_pieces_are_those_of_the_tokenizer() -> None:
    for text in ("Two black goats, left!", "水槽左边的黑山羊", "xx" * 150, "İ ǅ é\u0301"):
        assert [p.text for p in pieces_of(TOKENIZER, text)] == TOKENIZER.pieces(text)


@pytest.mark.parametrize("phrase", ["🐑", "牛", "\u200b", "zebra"])
def test_a_phrase_that_the_vocabulary_cannot_spell(phrase: str) -> None:
    with pytest.raises(ValueError, match="no word of it is in the model's vocabulary"):
        chunks_of(class_prompt(["sheep", phrase]), TOKENIZER)


# ---- any length ------------------------------------------------------------------------------


def spoken(chunk: Chunk) -> list[str]:
    """The words of each phrase of a chunk."""
    return [" ".join(VOCAB[i] for i in chunk.token_ids[row]) for row in chunk.positive]


@pytest.mark.parametrize("max_tokens", [9, 256])
def test_a_list_of_three_thousand_tokens(max_tokens: int) -> None:
    names = [f"black {a} {b} {c}" for a in range(10) for b in range(10) for c in range(6)]
    prompt = class_prompt(names)
    assert len(pieces_of(TOKENIZER, prompt.caption)) == 2999
    chunks = chunks_of(prompt, TOKENIZER, max_tokens)
    assert max(len(chunk.token_ids) for chunk in chunks) <= max_tokens
    assert torch.cat([chunk.labels for chunk in chunks]).tolist() == list(range(600))
    assert [text for chunk in chunks for text in spoken(chunk)] == names
    if max_tokens == 256:  # as few as fit, cut after full stops
        assert len(chunks) == 12
        assert all(chunk.caption.endswith(".") for chunk in chunks[:-1])


def test_a_sentence_of_three_thousand_tokens() -> None:
    sentence = ", ".join(["the [black goat] left of the trough"] * 375) + " on [white sheep]"
    chunks = chunks_of(read_prompt(sentence), TOKENIZER)
    assert all(len(chunk.token_ids) <= 256 for chunk in chunks)
    assert [chunk.labels.tolist() for chunk in chunks[:-1]] == [[0]] * (len(chunks) - 1)
    assert chunks[-1].labels.tolist() == [0, 1]
    places = [row[0].sum().item() // 2 for row in (chunk.positive for chunk in chunks)]
    assert sum(places) == 375  # no span was lost or cut
    assert spoken(chunks[-1])[1] == "white sheep"


def test_parts_without_a_phrase_are_dropped() -> None:
    sentence = "[sheep] " + "left " * 30 + "[goat]"
    chunks = chunks_of(read_prompt(sentence), TOKENIZER, 10)
    assert [chunk.labels.tolist() for chunk in chunks] == [[0], [1]]


def test_a_phrase_too_long_for_the_model() -> None:
    prompt = class_prompt(["black " * 255 + "goat"])
    with pytest.raises(ValueError, match="no place to cut in the 254 tokens from 'black black"):
        chunks_of(prompt, TOKENIZER)
    assert len(chunks_of(class_prompt(["black " * 253 + "goat"]), TOKENIZER)) == 1


def test_words_are_not_cut() -> None:
    sentence = read_prompt("[sheep] left xxxx left [goat]")
    assert chunks_of(sentence, TOKENIZER, 6)[0].caption == "sheep left"
    chunks = chunks_of(class_prompt(["goats"] * 1 + [f"goats {i}" for i in range(5)]), TOKENIZER, 6)
    assert [text for chunk in chunks for text in spoken(chunk)][:2] == ["goat ##s", "goat ##s 0"]


def test_prompts_of_a_batch() -> None:
    chunks = [chunks_of(read_prompt(t), TOKENIZER)[0] for t in ("sheep", "sheep, black goat")]
    ids, mask, maps = batch_of(chunks)
    assert ids.shape == mask.shape == (2, 6)
    assert mask.sum(1).tolist() == [3, 6]
    assert ids[~mask].unique().tolist() == [0]
    assert [m.shape for m in maps] == [(1, 6), (2, 6)]
    assert maps[0].int().tolist() == [[0, 1, 0, 0, 0, 0]]
