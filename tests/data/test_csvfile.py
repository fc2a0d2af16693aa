"""Files of comma-separated values: what is read, and what is refused, with file and line, in at most three lines."""

import os

import numpy as np
import pytest

from localearn.data.csvfile import CsvFile
from localearn.errors import UserError
from tests.marks import posix

GOOD = "size,town,price\n50,Ulm,100\n60.5,Bonn,120\n"


@pytest.fixture
def file(tmp_path):
    def write(content, **options):
        path = tmp_path / "x.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return CsvFile(path, **options)

    return write


def lists(csv):
    """Return every column as plain values: numbers, or words with None where there is none."""
    found = {}
    for name, column in csv.columns(csv.names).items():
        if column.codes is None:
            found[name] = column.numbers.tolist()
        else:
            found[name] = [column.words[code] if code >= 0 else None for code in column.codes]
    return found


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (GOOD, {}),
        (GOOD.replace("\n", "\r\n"), {}),
        (GOOD.replace("\n", "\r"), {}),
        (GOOD.rstrip("\n"), {}),
        ("\ufeff" + GOOD, {}),
        (GOOD.encode("utf-16"), {"encoding": "utf-16"}),
        ("\n\n" + GOOD + "\n  \n\n", {}),
        (GOOD.replace(",", ";"), {}),
        (GOOD.replace(",", "\t"), {}),
        (GOOD.replace(",", "|"), {"separator": "pipe"}),
        (GOOD.replace(",", "~"), {"separator": "~"}),
        (GOOD.replace(",", " , "), {}),
        ('"size","town","price"\n"50","Ulm","100"\n60.5,"Bonn",120\n', {}),
        (GOOD.replace(",", ";").replace("60.5", "60,5"), {"decimal": "comma"}),
        (GOOD.replace("60.5", '"60,5"'), {"decimal": "comma"}),
        (GOOD.replace("60.5", "6.05e1").replace("100", "+100"), {}),
        (",size,town,price\n0,50,Ulm,100\n1,60.5,Bonn,120\n", {}),  # as pandas writes it
    ],
)
def test_the_same_table_is_read_however_it_is_written(file, content, options):
    csv = file(content, **options)
    assert lists(csv) == {"size": [50, 60.5], "town": ["Ulm", "Bonn"], "price": [100, 120]}
    assert csv.unnamed == str(content).startswith(",")


@pytest.mark.parametrize(
    ("number", "mark", "decimal"),
    [
        ('"1,234,567.5"', "comma", "point"), ("1 234 567.5", "space", "point"), ("1'234'567.5", "apostrophe", "point"),
        ('"1.234.567,5"', "point", "comma"),
    ],
)  # fmt: skip
def test_thousands_may_be_parted(file, number, mark, decimal):
    csv = file(f"a,b\n{number},x\n2,y\n", thousands=mark, decimal=decimal)
    assert lists(csv)["a"] == [1234567.5, 2]


def test_quotes_hold_separators_quotes_and_line_breaks_and_lines_are_those_of_the_file(file):
    csv = file('a,b\n1,"x, ""y""\nand z"\n\n2,w\n')
    assert lists(csv) == {"a": [1, 2], "b": ['x, "y"\nand z', "w"]}
    assert csv.where(0).endswith("x.csv, line 2") and csv.where(1).endswith("x.csv, line 5")


@pytest.mark.parametrize("word", ["", "NA", "n/a", "NaN", "nan", "null", "?", "  "])
def test_what_stands_for_a_missing_value_is_missing(file, word):
    csv = file(f"a,b\n1,x\n{word},{word}\n3,y\n")
    columns = csv.columns(["a", "b"])
    assert columns["a"].absent.tolist() == columns["b"].absent.tolist() == [1]
    assert np.isnan(columns["a"].numbers[1]) and columns["b"].words == ("x", "y")


def test_columns_of_numbers_can_be_taken_as_words_in_the_order_of_numbers(file):
    column = file("a,b\n10,1\n9,1\n,3\n10,2\n").columns(["a"], words=["a"])["a"]
    assert column.words == ("9", "10") and column.codes is not None and column.codes.tolist() == [1, 0, -1, 1]


def test_many_rows_are_read_in_parts_and_a_word_among_the_last_is_found(file):
    rows = "".join(f"{i},{i % 7}\n" for i in range(70_000))
    csv = file(f"a,b\n{rows}")
    assert csv.rows == 70_000
    columns = csv.columns(csv.names)
    assert np.array_equal(columns["a"].numbers, np.arange(70_000)) and columns["b"].numbers.sum() == sum(
        i % 7 for i in range(70_000)
    )
    with pytest.raises(UserError, match=r"x\.csv, line 70002: 'oops' in column 'a', where 70,000 of 70,001"):
        file(f"a,b\n{rows}oops,1\n").columns(["a"])


HOSTILE = {
    "empty": ("", {}, "x.csv is empty"),
    "blank": (" \n\n", {}, "x.csv is empty"),
    "header alone": ("a,b\n", {}, "has a header and no rows"),
    "broken row": ("a,b\n1,2\n3\n4,5\n", {}, r"line 3 has 1 fields and the header 2; correct it"),
    "long row": ("a,b\n1,2\n3,4,5\n", {}, r"line 3 has 3 fields and the header 2"),
    "duplicate headers": ("a,b,a\n1,2,3\n", {}, r"line 1: 'a' is the name of columns 1 and 3; give each its own"),
    "no header": ("5.1,3.5,setosa\n4.9,3.0,setosa\n", {}, r"has no header: line 1 holds '5.1', a value; write the"),
    "no header, integers": ("1,2\n3,4\n", {}, r"has no header: line 1 holds '1'"),
    "one column": ("a\n1\n2\n", {}, r"has one column, 'a', where its header is separated by comma; give separator="),
    "wrong separator": (GOOD.replace(",", ";"), {"separator": "comma"}, r"one column.*separator=semicolon finds more"),
    "unknown separator": (GOOD, {"separator": "comm"}, r"unknown separator 'comm'; did you mean 'comma'\?"),
    "wrong encoding": ("a,b\n1,Köln\n".encode("latin-1"), {}, r"line 2 is not utf-8: .*give encoding=latin-1"),
    "ascii asked": ("a,b\n1,Köln\n", {"encoding": "ascii"}, r"line 2 is not ascii"),
    "unknown encoding": (GOOD, {"encoding": "utf-9"}, r"unknown encoding 'utf-9'; did you mean 'utf-8'\?"),
    "utf-16": (GOOD.encode("utf-16"), {}, r"is not utf-8: it begins with the mark of utf-16; give encoding=utf-16"),
    "zero byte": (b"a,b\n1,2\n\0,3\n", {}, "line 3 holds a zero byte, so it is no text"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), {}, "line 1 is not utf-8"),
    "text among numbers": (
        "a,b\n1,2\n2,3\nten,4\n",
        {},
        r"line 4: 'ten' in column 'a', where 2 of 3 rows have numbers",
    ),
    "underscore": ("a,b\n1,2\n2,3\n1_0,4\n", {}, r"line 4: '1_0' in column 'a'"),
    "decimal comma": ("a;b\n1,5;2\n2,5;3\n", {}, r"line 2: '1,5' in column 'a' looks like .* give decimal=comma"),
    "thousands": (
        'a,b\n"1,234",2\n5,3\n',
        {},
        r"line 2: '1,234' in column 'a' looks.*decimal=comma or thousands=comma",
    ),
    "millions": (
        'a,b\n"1,234,567",2\n5,3\n',
        {},
        r"line 2: '1,234,567' in column 'a' looks like.*give thousands=comma",
    ),
    "spaced": ("a,b\n1 234,2\n5,3\n", {}, r"line 2: '1 234' in column 'a' looks like.*give thousands=space"),
    "same marks": (GOOD, {"decimal": "comma", "thousands": "comma"}, "decimal and thousands are both comma"),
    "unknown decimal": (GOOD, {"decimal": "coma"}, r"unknown decimal 'coma'; did you mean 'comma'\?"),
    "no text encoding": (GOOD, {"encoding": "zlib"}, r"unknown encoding 'zlib'"),
    "infinite": ("a,b\n1,2\ninf,3\n", {}, r"line 3: column 'a' holds inf, and values are at most 1e\+30"),
    "overflow": ("a,b\n1,2\n1e999,3\n", {}, r"line 3: column 'a' holds inf"),
    "too large": ("a,b\n1,2\n-1e200,3\n", {}, r"line 3: column 'a' holds -1e\+200"),
    "open quote": ('a,b\n1,"x\n2,y\n3,z\n', {}, r"line 2: a quote is opened there and not closed before the end"),
    "quote inside": ('a,b\n1,"x" y\n2,z\n', {}, r"line 2: .* double the quotes inside of a quoted field"),
    "huge field": ("a,b\n1," + "x" * 200_000 + "\n", {}, r"line 2: a field has more than 131,072 characters"),
    "swallowing quote": ('a,b\n1,"' + "2\n1," * 60_000, {}, r"line 2: a field has more than 131,072 characters"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_fault_is_named_with_its_file_and_line(file, case):
    content, options, message = HOSTILE[case]
    with pytest.raises(UserError, match=message) as caught:
        csv = file(content, **options)
        csv.columns(csv.names)
    assert str(caught.value).count("\n") < 3 and len(str(caught.value)) < 500


def test_a_name_that_is_not_there_is_told_with_the_nearest_and_the_header(file):
    with pytest.raises(UserError, match=r"no column 'prize', which target names; did you mean 'price'") as caught:
        file(GOOD).check_names("target", ["prize"])
    assert "size, town, price" in str(caught.value)


@posix
def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path, message in (
        (tmp_path / "pipe.csv", "not a regular file"), (tmp_path, "not a regular file"),
        (tmp_path / "no.csv", "does not exist"), ("/dev/zero", "not a regular file"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            CsvFile(type(tmp_path)(path))


def test_a_header_of_years_is_a_header(file):
    assert lists(file("place,2019,2020\nx,1,2\ny,3,4\n"))["2020"] == [2, 4]
