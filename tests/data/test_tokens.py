"""Text becomes token ids and comes back, and a vocabulary travels as plain values."""

import json

import numpy as np
import pytest

from localearn.data.tokens import UNKNOWN, BytePairs, Bytes, Characters, read_codec
from localearn.errors import UserError

TEXT = "the cat sat on the mat\nthe dog sat on the log\n" * 20
TOLD = "a tale of 12 naïve 猫 👍\n"


@pytest.fixture(scope="module")
def byte_pairs():
    return BytePairs.learned(TEXT, 270)


def test_characters_are_numbered_in_order():
    codec = Characters("".join(sorted(set(TEXT))))
    ids = codec.encode("cat\n")
    assert ids.dtype == np.int64
    assert [codec.characters[i] for i in ids] == ["c", "a", "t", "\n"]
    assert codec.decode(codec.encode(TEXT).tolist()) == TEXT


def test_characters_beyond_the_basic_plane_are_one_token_each():
    codec = Characters("".join(sorted(set(TOLD))))
    assert len(codec.encode(TOLD)) == len(TOLD)
    assert codec.decode(codec.encode(TOLD).tolist()) == TOLD


def test_an_unknown_character_is_named_or_becomes_the_unknown_token():
    with pytest.raises(UserError, match=r"the vocabulary has no '!', 'x'; it has 3 characters: 'abc'"):
        Characters("abc").encode("ax!")
    codec = Characters("".join(sorted("abc" + UNKNOWN)))
    assert codec.decode(codec.encode("ax!").tolist()) == f"a{UNKNOWN}{UNKNOWN}"


def test_bytes_are_those_of_utf_8():
    assert Bytes().encode(TOLD).tolist() == list(TOLD.encode())
    assert Bytes().decode(list(TOLD.encode())) == TOLD
    assert Bytes().decode([0xFF, ord("a")]) == UNKNOWN + "a"


def test_byte_pairs_are_fewer_and_lose_nothing(byte_pairs):
    assert byte_pairs.size == 270
    assert len(byte_pairs.encode(TEXT)) < 0.6 * len(TEXT)
    for text in (TEXT, TOLD):
        ids = byte_pairs.encode(text)
        assert ids.min() >= 0 and ids.max() < byte_pairs.size
        assert byte_pairs.decode(ids.tolist()) == text


def test_byte_pairs_are_the_same_whenever_they_are_learned(byte_pairs):
    assert BytePairs.learned(TEXT, 270) == byte_pairs != BytePairs.learned(TEXT, 265)


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_a_vocabulary_is_read_from_what_describes_it(kind, byte_pairs):
    codec = {"characters": Characters("abc"), "bytes": Bytes(), "bpe": byte_pairs}[kind]
    again = read_codec("file", json.loads(json.dumps(codec.describe())))
    assert again == codec and hash(again) == hash(codec) and again.size == codec.size
    assert again.encode("abcab").tolist() == codec.encode("abcab").tolist()


def _state(vocab=None, pre=None):
    """Return the description of byte pairs with such tokens and such a part of them that cuts a text into words."""
    model = {"type": "BPE", "vocab": vocab or {"a": 0, "b": 1}, "merges": []}
    return {"unit": "bpe", "tokenizer": json.dumps({"version": "1.0", "pre_tokenizer": pre, "model": model})}


def test_such_a_description_without_a_fault_is_read():
    assert read_codec("file", _state()).encode("abba").tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (None, "file: its tokens are None"),
        ({"unit": "words"}, "file: its tokens are 'words'; there are characters, bytes, bpe"),
        ({"unit": "characters"}, "file: the vocabulary of its characters is none"),
        ({"unit": "characters", "characters": "aa"}, "file: a vocabulary of characters has each of them once"),
        ({"unit": "bpe", "tokenizer": "{"}, "file: this is no state of a tokenizer"),
        (_state(vocab={"a": 0, "b": 7}), "file: this is no state of a tokenizer: its 2 tokens are not numbered one by"),
        (
            _state(pre={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}),
            "file: its tokenizer brings a regular expression of its own, and a file runs none",
        ),
    ],
)
def test_what_describes_none_is_refused(described, message):
    with pytest.raises(UserError, match=message):
        read_codec("file", described)
