import pytest

from vlm_crash.data.csv_table import read_table
from vlm_crash.data.problems import InputProblems


def table_of(tmp_path, content: bytes):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    return read_table(path)


def test_bom_crlf_quotes_and_blank_lines(tmp_path):
    table, problems = table_of(tmp_path, b'\xef\xbb\xbfA,B\r\n"x,\r\ny",1\r\n\r\n"say ""hi""",2\r\n')
    assert table.header == ("A", "B")
    assert table.rows == {1: ("x,\r\ny", "1"), 2: ('say "hi"', "2")}  # the blank line is no row
    assert problems == []


def test_rows_of_another_length_are_left_out_and_named(tmp_path):
    table, problems = table_of(tmp_path, b"A,B\n1,2\n1,2,3\n1\n4,5,,\n")
    assert table.rows == {1: ("1", "2"), 4: ("4", "5")}
    assert [(p.row, p.problem) for p in problems] == [
        (2, "3 cells where the header has 2"),
        (3, "1 cells where the header has 2"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header"),
        (b"A,B\n", "no rows"),
        (b"A;B\n1;2\n", "separated by semicolons"),
        (b"A\tB\n1\t2\n", "separated by tabs"),
        (b"A|B\n1|2\n", "separated by bars"),
        (b"A,A\n1,2\n", "there twice: A"),
        (b"A,B\n1,2\n3,\xff\n", "line 3 is not UTF-8"),
        (b'A,B\n1,2\n"2,x\n3,y\n4,z\n', "lines 3 to 5: unexpected end of data.*; close the quote"),
        (b'A,B\n1,"rain\n2,x\n3,"fog"\n', "lines 2 to 4: .*; close the quote"),
        (b'A,B\n1,x\n2,"fog', "line 3: unexpected end"),
        (b'A,B,"C\n1,x,y"\n2,x,y\n', "its header seems to have rows in a cell: a quote in it"),
        (b'A,B,"C,D\n1,x,y,z\n2,x,y"\n2,x,y\n', "its header seems to have rows in a cell: a quote in it"),
    ],
)
def test_what_spoils_the_whole_file(tmp_path, content, message):
    with pytest.raises(InputProblems, match=message) as caught:
        table_of(tmp_path, content)
    assert "a.csv" in str(caught.value)


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"b\.csv: it does not exist"):
        read_table(tmp_path / "b.csv")
    with pytest.raises(ValueError, match="it is a folder"):
        read_table(tmp_path)


def test_columns_are_found_up_to_case_and_blanks_but_as_spelt_first(tmp_path):
    table, _ = table_of(tmp_path, b"crash WITH,Crash_with,Note\n1,2,3\n")
    assert table.column(["Crash with"]) == 0
    assert table.column(["Crash_with", "Crash with"]) == 1
    assert table.column(["Weather"]) is None


def test_a_cell_that_has_swallowed_rows_is_named_and_one_of_several_lines_is_none(tmp_path):
    table, problems = table_of(
        tmp_path, b'A,B,C\n1,x,"rain\n2,x,clear\n3,x,fog"\n4,5" wide,"a car, stops\nand, then, goes, on"\n5,"b" ,c\n'
    )
    assert [(p.row, p.problem) for p in problems] == [
        (1, "a cell of it holds 2 lines that look like rows: a quote before them is not closed")
    ]
    assert table.rows == {2: ("4", '5" wide', "a car, stops\nand, then, goes, on"), 3: ("5", "b ", "c")}
    assert list(table.unsure) == [1, 2]  # where rows go by number, as many commas are doubt enough


@pytest.mark.parametrize(
    ("content", "left_out", "unsure"),
    [
        (b'video_id,caption,label\n1,"Rain.\nCar A, car B, and a bus",crash\n2,ok,crash\n', [], [1]),  # text
        (b'caption,video_id,label\n"Rain.\nCar A, car B, and a bus",1,crash\nok so,2,crash\n', [], [1]),
        (b'id,caption,label\n1,"Rain,x\n2,fog",y\n3,ok,x\n', [1], [1]),  # one row, its rest behind the quote
        (b'id,caption,label\n1,"Rain,x\n2,fog,y\n\n3,dry",z\n4,ok,x\n', [1], [1]),
        (b'caption,id\n"Rain,1\nfog",2\nok,3\n', [1], [1]),
        (b'id,caption\n1,"Rain.\nThen, a bus"\n2,ok\n', [], [1]),  # text, but of row numbers nobody knows
        (b'id,caption,label\n1,"Rain,x\n2,fog,q",y\n3,ok,x\n', [1], [1]),  # a row too wide: the line is as wide
        (b'id,caption,label\n1,"Rain\nfog",y,z\n3,a,b,c\n', [1, 2], [1]),
        (b'id,caption,label\n1,"Rain\nfog",y\n3,a,b\n', [], []),
        (b"id,caption,label\n1,Rain\nfog,y\n2,a,b\n3,a,b,c\n", [1, 2, 4], [1, 2]),  # the break without quotes
        (b'id,caption,label\n"1,a,b\n",a,b\n3,a,b\n', [], [1]),  # a row without its first cell
        (b'id,caption,label\n1,a,"b\n2,c",\n3,a,b\n', [], [1]),  # an empty cell too many
    ],
)
def test_rows_within_a_cell_and_text_of_several_lines(tmp_path, content, left_out, unsure):
    table, problems = table_of(tmp_path, content)
    assert ([p.row for p in problems], list(table.unsure)) == (left_out, unsure)
