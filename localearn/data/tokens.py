"""Codecs between text and token ids: characters, bytes, or byte pairs that were learned from a text."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import numpy as np

from localearn.errors import UserError

Unit = Literal["characters", "bytes", "bpe"]
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
LARGEST = 2**20  # tokens of a vocabulary that is read from a file


class Codec(ABC):
    """Map text to token ids and back.

    A codec is compared by its description, and is stored with a net that was trained by it.

    Attributes:
        unit: the kind of token: characters, bytes or bpe.
        size: the number V of tokens; ids run from 0 to V - 1.

    """

    unit: Unit
    size: int

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text, (T,) int64; raise UserError for a character that has none."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are no UTF-8 become the replacement character."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return plain values from which `read_codec` builds it again."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codec) and other.describe() == self.describe()

    def __hash__(self) -> int:
        return hash(json.dumps(self.describe(), sort_keys=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"


@final
class Characters(Codec):
    """Encode each character as a token, in Unicode's order.

    Args:
        characters: all of them; `UNKNOWN`, where it is among them, stands for any other.

    """

    unit = "characters"

    def __init__(self, characters: str):
        if not characters or sorted(set(characters)) != list(characters):
            raise UserError("a vocabulary of characters has each of them once, in order, and one at least")
        self.characters, self.size = characters, len(characters)
        self._codes = _codes(characters)

    def encode(self, text: str) -> np.ndarray:
        """Return the index of each character among the known ones."""
        codes = _codes(text)
        ids = np.minimum(np.searchsorted(self._codes, codes), self.size - 1)
        unknown = self._codes[ids] != codes
        if unknown.any():
            if UNKNOWN not in self.characters:
                named = ", ".join(repr(chr(code)) for code in np.unique(codes[unknown])[:5])
                raise UserError(
                    f"the vocabulary has no {named}; it has {self.size} characters: {self.characters!r:.200}"
                )
            ids[unknown] = self.characters.index(UNKNOWN)
        return ids.astype(np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the characters of ids."""
        return "".join(self.characters[i] for i in ids)

    def describe(self) -> dict[str, Any]:
        """Return the characters."""
        return {"unit": self.unit, "characters": self.characters}


@final
class Bytes(Codec):
    """Encode each byte of the text in UTF-8 as a token: 256 of them, and every text has ids."""

    unit = "bytes"
    size = 256

    def encode(self, text: str) -> np.ndarray:
        """Return the bytes of the text."""
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of these bytes."""
        return bytes(ids).decode(errors="replace")

    def describe(self) -> dict[str, Any]:
        """Return the unit."""
        return {"unit": self.unit}


@final
class BytePairs(Codec):
    """Encode byte pairs by the `tokenizers` library: tokens are strings of bytes that are frequent in a text.

    Args:
        tokenizer: its state, a JSON text as that library writes it. Every byte is a token, so that every text has ids.

    """

    unit = "bpe"

    def __init__(self, tokenizer: str):
        library = _tokenizers()
        try:
            self._tokenizer = library.Tokenizer.from_str(tokenizer)
        except Exception as error:  # the library has no one type for a text that is none of its own
            raise UserError(f"this is no state of a tokenizer: {str(error).splitlines()[0]}") from error
        self.size = self._tokenizer.get_vocab_size()
        if self.size and max(self._tokenizer.get_vocab().values()) >= self.size:
            raise UserError(f"this is no state of a tokenizer: its {self.size} tokens are not numbered one by one")

    @classmethod
    def learned(cls, text: str, size: int) -> "BytePairs":
        """Learn the byte pairs that are most frequent in a text.

        Args:
            text: the text.
            size: the number of tokens; a short text has fewer.

        """
        library = _tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        # In lines, which words never cross, for one string would be one unit of its parallel work.
        tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(tokenizer.to_str())

    @staticmethod
    def library_version() -> str:
        """Return the version of the `tokenizers` library."""
        return _tokenizers().__version__

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of the text's byte pairs."""
        return np.array(self._tokenizer.encode(text).ids, dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        return self._tokenizer.decode(list(ids))

    def state(self) -> str:
        """Return the tokenizer's state, a JSON text."""
        return self._tokenizer.to_str()

    def describe(self) -> dict[str, Any]:
        """Return the tokenizer's state."""
        return {"unit": self.unit, "tokenizer": self.state()}


def read_codec(where: object, described: Any) -> Codec:
    """Return the codec that `Codec.describe` described.

    Args:
        where: the file that the description comes from, for error messages.
        described: the description, as a file gives it back.

    Raises:
        UserError: for one that is not valid.

    """
    unit = described.get("unit") if isinstance(described, Mapping) else None
    known = {"characters": (Characters, "characters"), "bytes": (Bytes, None), "bpe": (BytePairs, "tokenizer")}
    if not isinstance(unit, str) or unit not in known:
        raise UserError(f"{where}: its tokens are {unit!r}; there are {', '.join(known)}")
    kind, name = known[unit]
    value = described.get(name) if name else ""
    if not isinstance(value, str) or len(value) > 64 * LARGEST:
        raise UserError(f"{where}: the vocabulary of its {unit} is none")
    if unit == "bpe" and _has_expression(value):
        raise UserError(
            f"{where}: its tokenizer brings a regular expression of its own, and a file runs none; build the codec, "
            "and give it by codec="
        )
    try:
        return kind(value) if name else kind()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _has_expression(state: str) -> bool:
    """Return whether a tokenizer's state has a regular expression, of which a short one can take time without end."""
    try:
        parts = list(json.loads(state).items())
    except (ValueError, AttributeError, RecursionError):
        return False  # which the library raises
    while parts:
        name, value = parts.pop()
        if name == "Regex":
            return True
        if name != "vocab":
            parts += value.items() if isinstance(value, dict) else ()
            parts += ((None, element) for element in value) if isinstance(value, list) else ()
    return False


def _codes(text: str) -> np.ndarray:
    """Return the code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except Exception as error:  # whatever a broken installation does
        first = str(error).partition("\n")[0]
        missing = isinstance(error, ModuleNotFoundError)
        failed = "" if missing else f", whose import failed ({type(error).__name__}: {first})"
        raise UserError(
            f"unit=bpe needs the tokenizers library{failed}; pip install tokenizers, or use unit=bytes"
        ) from error
    return tokenizers
