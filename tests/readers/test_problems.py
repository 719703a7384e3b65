"""What is wrong with a data set, as it is said: a line for each kind, and how many more there are."""

import pytest

from textdiff.errors import UserError
from textdiff.readers.datasets import Problem, report


def test_a_problem_is_one_line_whatever_the_file_is_called():
    assert str(Problem("error", "img/a\nb.png", "is  odd", "mend\tit")) == "img/a b.png: is odd; mend it"
    assert str(Problem("note", "a.png", "grey", "")) == "a.png: grey"


def test_alike_notes_are_one_warning_and_nothing_is_raised(capsys):
    report([Problem("note", f"img/{n}.png", f"{n} pages (only the first is read)", "") for n in range(2, 9000)])
    assert capsys.readouterr().err == "warning: img/2.png: 2 pages (only the first is read) (and 8997 others like it)\n"


def test_many_errors_are_cut_short_and_counted(capsys):
    with pytest.raises(UserError, match="500 errors in the data set"):
        report([Problem("error", f"img/{n}.png", f"is {'damaged ' * n}", "replace it") for n in range(500)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 480 more kinds"


def test_errors_of_one_kind_are_one_line(capsys):
    """Whatever numbers and names they hold."""
    what = ("is 16x16 pixels, but its image img/{}.png is 32x32", "line {} has 3 cells and the header 2")
    with pytest.raises(UserError, match="40 errors in the data set"):
        report([Problem("error", f"{n}.png", what[n % 2].format(n), "mend it") for n in range(40)])
    assert capsys.readouterr().err.splitlines() == [
        "error: 0.png: is 16x16 pixels, but its image img/0.png is 32x32; mend it (and 19 others like it)",
        "error: 1.png: line 1 has 3 cells and the header 2; mend it (and 19 others like it)",
    ]


def test_nothing_is_said_of_a_whole_data_set(capsys):
    report([])
    assert capsys.readouterr().err == ""
