"""Files of comma-separated values: read whole and strictly, every fault named with its file and line."""

import codecs
import csv
import io
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from localearn.data import files
from localearn.errors import UserError, suggestion
from localearn.files import is_text_encoding, kind_of_file
from localearn.printing import one_line

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
Decimal = Literal["point", "comma"]
Thousands = Literal["none", "comma", "point", "space", "apostrophe"]
# A field without a value, in lower case. "none" is not among them: many categories are called so.
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "null", "?"})

_GROUPED = {"comma": ",", "point": ".", "space": " ", "apostrophe": "'"}
_SNIFFED = ("comma", "semicolon", "tab", "pipe")
_SAMPLE = 2**16  # characters by which the separator is found
_CHUNK_ROWS = 2**15  # read at a time, so that few fields are Python's texts at once
_LARGEST = 1e30  # of a value: its square, and sums of them, are float64s, and it is a float32
_MEMORY_SHARE = 8  # of which a file may take one: it is held as bytes, as text and as numbers
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF32_LE: "utf-32"}
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+")
_GROUPED_NUMBER = re.compile(r"[+-]?\d{1,3}([,'. ]\d{3})+([.,]\d+)?")
_VALUE = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?|-\d+")  # what is a value and no column's name


@dataclass(frozen=True)
class Column:
    """Hold a column of a file, of numbers or of words.

    Attributes:
        name: the column's name in the header.
        numbers: (rows,) float64, NaN where there is no value; None where the column has words.
        codes: (rows,) int64, the index of each row's word, -1 where there is none; None where it has numbers.
        words: the words of the codes, in alphabetical order or, where all are numbers, in numerical order.

    """

    name: str
    numbers: np.ndarray | None = None
    codes: np.ndarray | None = None
    words: tuple[str, ...] = ()

    @property
    def absent(self) -> np.ndarray:
        """The rows without a value, ascending."""
        if self.numbers is not None:
            return np.flatnonzero(np.isnan(self.numbers))
        assert self.codes is not None
        return np.flatnonzero(self.codes < 0)


class CsvFile:
    """Read a file with a header and rows of as many fields, whose columns are numbers or words.

    Fields may be quoted, with line breaks and doubled quotes inside; lines end as on any system, and blank ones are
    left out.

    Attributes:
        names: the columns' names.
        rows: the number of rows.
        unnamed: the number of columns without a name, which are left out, as the row numbers that pandas writes.

    """

    def __init__(
        self,
        path: Path,
        *,
        separator: str = "auto",
        encoding: str = "utf-8",
        decimal: Decimal = "point",
        thousands: Thousands = "none",
    ) -> None:
        """Read and check all of the file.

        Args:
            path: the file.
            separator: the character between fields: "auto" to find it, comma, semicolon, tab, pipe, space, or any one
                character.
            encoding: of its text; the byte-order mark that some programs begin UTF-8 with is accepted.
            decimal: whether numbers have a point or a comma before their decimals.
            thousands: the mark between the thousands of numbers: "none", comma, point, space or apostrophe.

        Raises:
            UserError: which names the file and the line, for one that cannot be read, is empty or not of that
                encoding, has no header, one column or a name twice, and for a row of another number of fields.

        """
        self.path = path
        for option, value, known in (
            ("decimal", decimal, get_args(Decimal)),
            ("thousands", thousands, get_args(Thousands)),
        ):
            if value not in known:
                raise UserError(f"unknown {option} {value!r}{suggestion(value, known)} (known: {', '.join(known)})")
        if decimal == thousands:
            raise UserError(f"decimal and thousands are both {decimal}; numbers have two different marks")
        self._decimal, self._thousands = decimal, thousands
        self._text = _decoded(path, encoding)
        self._delimiter = self._checked_separator(separator)
        self._lines = array("q")
        self._numbers: dict[str, np.ndarray] = {}
        self.names: tuple[str, ...] = ()
        self.unnamed = 0
        self._places: dict[str, int] = {}
        self._read()
        self.rows = len(self._lines)

    def where(self, row: int) -> str:
        """Return a row's file and line, the one that it begins in, for error messages."""
        return f"{self.path}, line {self._lines[row]}"

    def lines(self, rows: Sequence[int] | np.ndarray) -> str:
        """Return the first of some rows' line numbers in words, for error messages."""
        shown = ", ".join(str(self._lines[row]) for row in rows[:5])
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        return f"line{'s' if len(rows) > 1 else ''} {shown}{more}"

    def check_names(self, option: str, names: Sequence[str]) -> None:
        """Check that all names are columns.

        Args:
            option: the option that names them, for the error message.
            names: the names.

        Raises:
            UserError: for an unknown name, with the nearest one.

        """
        for name in names:
            if name not in self._places:
                shown = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
                raise UserError(
                    one_line(
                        f"{self.path} has no column {name!r}, which {option} names{suggestion(name, self.names)};"
                    ),
                    one_line(f"its header, line 1, has {shown}"),
                )

    def columns(self, names: Sequence[str], words: Sequence[str] = ()) -> dict[str, Column]:
        """Return the columns of those names, numbers where they hold some, words elsewhere.

        Args:
            names: the columns to return.
            words: those of them that are read as words in any case.

        Raises:
            UserError: for a column of numbers with a text in it, or with one that is infinite or too large, and for
                numbers of another notation than `decimal` and `thousands` say.

        """
        texts = self._texts([name for name in names if name in words or name not in self._numbers])
        found = {}
        for name in names:
            if name in texts:
                found[name] = self._of_texts(name, *texts[name], as_words=name in words)
            else:
                found[name] = Column(name, numbers=self._numbers[name])
            numbers = found[name].numbers
            if numbers is not None:
                self._check_size(name, numbers)
        return found

    def _check_size(self, name: str, numbers: np.ndarray) -> None:
        with np.errstate(invalid="ignore"):
            large = np.flatnonzero(np.abs(numbers) > _LARGEST)
        if len(large):
            raise UserError(
                f"{self.where(int(large[0]))}: column {name!r} holds {numbers[large[0]]:g}, and values are at most "
                f"{_LARGEST:g}; correct it, leave it empty, or drop=[{name}]"
            )

    def _of_texts(self, name: str, codes: np.ndarray, texts: Sequence[str], *, as_words: bool) -> Column:
        """Return a column from the index of each row's text and the texts."""
        counts = np.bincount(codes, minlength=len(texts))
        absent = np.array([text.lower() in MISSING for text in texts], dtype=bool)
        parsed = np.array([self._number(text) for text in texts])
        is_number = ~np.isnan(parsed)
        numbers, others = counts[is_number].sum(), counts[~is_number & ~absent].sum()
        if not as_words and not others:
            return Column(name, numbers=parsed[codes])
        if not as_words:
            self._check_words(name, codes, texts, is_number | absent, int(numbers), int(others))
        by_value = bool(is_number[~absent].all())
        order = sorted(np.flatnonzero(~absent).tolist(), key=lambda i: (parsed[i] if by_value else 0.0, texts[i]))
        renumbered = np.full(len(texts), -1)
        renumbered[order] = np.arange(len(order))
        return Column(name, codes=renumbered[codes], words=tuple(texts[i] for i in order))

    def _check_words(
        self, name: str, codes: np.ndarray, texts: Sequence[str], fine: np.ndarray, numbers: int, others: int
    ) -> None:
        """Raise UserError where the texts in a column of numbers look like a fault, or numbers of another notation."""
        row = int(np.flatnonzero(~fine[codes])[0])
        text = texts[int(codes[row])]
        shown = f"{self.where(row)}: {_short(text)} in column {name!r}"
        wrong = [other for ok, other in zip(fine, texts, strict=True) if not ok]
        if all(_COMMA_NUMBER.fullmatch(other) or _GROUPED_NUMBER.fullmatch(other) for other in wrong):
            ways = []
            if self._decimal == "point" and all(map(_COMMA_NUMBER.fullmatch, wrong)):
                ways.append("decimal=comma")
            grouped = _GROUPED_NUMBER.fullmatch(text)
            mark = next((name for name, mark in _GROUPED.items() if grouped and grouped[1][0] == mark), None)
            if mark and mark != self._decimal:
                ways.append(f"thousands={mark}")
            give = f"give {' or '.join(ways)}" if ways else "write it with a decimal point alone"
            raise UserError(f"{shown} looks like a number of another notation; {give}")
        if numbers > others:
            raise UserError(
                f"{shown}, where {numbers:,} of {numbers + others:,} rows have numbers; correct it, leave it empty "
                f"where it is missing, or give categorical=[{name}] or drop=[{name}]"
            )

    def _number(self, text: str) -> float:
        """Return a number, NaN where a text is none or marks a missing one."""
        if "_" in text or text.lower() in MISSING:
            return np.nan
        try:
            return float(self._plain(text))
        except ValueError:
            return np.nan

    def _plain(self, text: str) -> str:
        if self._thousands != "none":
            text = text.replace(_GROUPED[self._thousands], "")
        return text.replace(",", ".") if self._decimal == "comma" else text

    def _texts(self, names: Sequence[str]) -> dict[str, tuple[np.ndarray, list[str]]]:
        """Return for each column the index of each row's text, (rows,) int64, and the distinct texts."""
        if not names:
            return {}
        known: dict[str, dict[str, int]] = {name: {} for name in names}
        codes = {name: array("q") for name in names}
        places = [(self._places[name], known[name], codes[name]) for name in names]
        for _, record in islice(self._records(self._delimiter), 1, None):
            for place, numbers, column in places:
                text = record[place].strip()
                column.append(numbers.setdefault(text, len(numbers)))
        return {name: (np.array(codes[name], dtype=np.int64), list(known[name])) for name in names}

    def _read(self) -> None:
        """Check every row, and cache the columns that hold numbers alone."""
        records = self._records(self._delimiter)
        _, header = next(records, (0, []))
        self._read_header(header)
        chunks: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        while rows := list(islice(records, _CHUNK_ROWS)):
            for line, record in rows:
                if len(record) != len(header):
                    raise UserError(
                        f"{self.path}, line {line} has {len(record)} fields and the header {len(header)}; correct it, "
                        "or put what holds the separator in quotes"
                    )
                self._lines.append(line)
            fields = list(zip(*(record for _, record in rows), strict=True))
            for name in list(chunks):
                numbers = self._as_numbers(fields[self._places[name]])
                if numbers is None:
                    del chunks[name]  # `columns` reads it again
                else:
                    chunks[name].append(numbers)
        if not self._lines:
            raise UserError(f"{self.path} has a header and no rows")
        self._numbers = {name: np.concatenate(parts) for name, parts in chunks.items()}

    def _as_numbers(self, fields: Sequence[str]) -> np.ndarray | None:
        if self._decimal == "comma" or self._thousands != "none":
            fields = [self._plain(field.strip()) for field in fields]
        try:
            numbers = np.array(fields, dtype=np.float64)
        except ValueError:
            return None
        return None if any("_" in field for field in fields) else numbers  # which Python takes in a number

    def _read_header(self, header: Sequence[str]) -> None:
        names = [name.strip() for name in header]
        if not any(names):
            raise UserError(f"{self.path} is empty")
        numbers = [name for name in names if not np.isnan(self._number(name))]
        values = [name for name in names if _VALUE.fullmatch(name)] or (numbers if len(numbers) == len(names) else [])
        if values and len(names) > 1:
            raise UserError(
                f"{self.path} has no header: line 1 holds {_short(values[0])}, a value; write the columns' names there"
            )
        named = [name for name in names if name]
        for name in named:
            if named.count(name) > 1:
                places = [str(place + 1) for place, other in enumerate(names) if other == name]
                twice = f"{name!r} is the name of columns {' and '.join(places)}"
                raise UserError(f"{self.path}, line 1: {twice}; give each its own")
        if len(names) == 1:
            found = self._sniffed()
            other = f"; separator={found} finds more" if found and SEPARATORS[found] != self._delimiter else ""
            raise UserError(
                f"{self.path} has one column, {_short(names[0])}, where its header is separated by "
                f"{_separator_name(self._delimiter)}{other or '; give separator=semicolon, tab, pipe or space'}"
            )
        self.names, self.unnamed = tuple(named), len(names) - len(named)
        self._places = {name: place for place, name in enumerate(names) if name}

    def _checked_separator(self, separator: str) -> str:
        if separator == "auto":
            return SEPARATORS[self._sniffed() or "comma"]
        delimiter = SEPARATORS.get(separator, separator)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            known = ("auto", *SEPARATORS)
            near = suggestion(separator, known)
            raise UserError(f"unknown separator {separator!r}{near} (known: {', '.join(known)}, or one character)")
        return delimiter

    def _sniffed(self) -> str | None:
        """Return the separator that splits the first lines into the most fields, as many in each, or None."""
        widths = {}
        for name in _SNIFFED:
            try:
                found = [len(record) for _, record in islice(self._records(SEPARATORS[name], sample=True), 30)]
            except UserError:  # a fault of the file's, if it is one, is reported when it is read
                continue
            if found and found[0] > 1:
                widths[name] = (found.count(found[0]) / len(found), found[0])
        return max(widths, key=lambda name: widths[name]) if widths else None

    def _records(self, delimiter: str, *, sample: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Yield the header and each row, with the line that it begins in; those of a sample's whole lines alone."""
        text = self._text
        if sample and len(text) > _SAMPLE:
            text = text[: max(text.rfind("\n", 0, _SAMPLE), text.rfind("\r", 0, _SAMPLE)) + 1] or text[:_SAMPLE]
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=delimiter != "\t"
        )
        line = 1
        while True:
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(_broken(self.path, line, reader.line_num, str(error))) from error
            if len(record) > 1 or (record and record[0].strip()):
                yield line, record
            line = reader.line_num + 1


def _broken(path: Path, line: int, end: int, error: str) -> str:
    if "field larger" in error:
        return (
            f"{path}, line {line}: a field has more than {csv.field_size_limit():,} characters; it may be a quote that "
            "is opened there and not closed"
        )
    if "unexpected end" in error:
        return f"{path}, line {line}: a quote is opened there and not closed before the end of the file"
    return f"{path}, line {end}: {error}; double the quotes inside of a quoted field"


def _decoded(path: Path, encoding: str) -> str:
    """Return the text of a regular file; raise UserError where it cannot be read."""
    there = kind_of_file(path)
    if not there:
        raise UserError(f"{path} does not exist")
    if there != "file":
        raise UserError(f"{path} is not a regular file; a file of comma-separated values is expected there")
    if not is_text_encoding(encoding):
        known = ("utf-8", "latin-1", "cp1252", "utf-16", "ascii")
        raise UserError(f"unknown encoding {encoding!r}{suggestion(encoding, known)} (say {', '.join(known)})")
    try:
        size, memory = path.stat().st_size, files.machine_memory_bytes()
        if size * _MEMORY_SHARE > memory:
            raise UserError(
                f"{path} has {size / 2**30:,.1f} GiB, and is held in memory, of which there are "
                f"{memory / 2**30:,.1f} GiB; stream it by localearn.data.from_loader"
            )
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
        marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
        if marked:
            raise UserError(f"{path} is not utf-8: it begins with the mark of {marked}; give encoding={marked}")
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = content.count(b"\n", 0, start) + 1
        raise UserError(
            f"{path}, line {line} is not {encoding.removesuffix('-sig')}: {getattr(error, 'reason', error)}; give "
            f"encoding=latin-1, or that which it has"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{path}, line {line} holds a zero byte, so it is no text, or of another encoding; give encoding="
        )
    if not text.strip():
        raise UserError(f"{path} is empty")
    return text


def _separator_name(delimiter: str) -> str:
    return next((name for name, mark in SEPARATORS.items() if mark == delimiter), repr(delimiter))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
