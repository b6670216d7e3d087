"""The error tree: one line, an exit status, and a way across processes."""

import pickle

import pytest

from raypath.components.core import errors


def test_an_error_is_one_line_with_step_and_advice() -> None:
    error = errors.DataError("no column 'body'\nin a.csv", fix="set\n -s read.text=NAME", step="read")
    assert str(error) == "step read: no column 'body' in a.csv; set -s read.text=NAME"


@pytest.mark.parametrize("name", sorted(errors.kinds()))
def test_every_error_keeps_its_kind_and_words_across_processes(name: str) -> None:
    error = errors.kinds()[name]("what", fix="do", step="s")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_the_users_fault_is_2_ours_is_1() -> None:
    assert errors.ParamsError("x").exit_status == 2
    assert errors.DataError("x").exit_status == 2
    assert errors.Unavailable("x").exit_status == 1


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in errors.kinds())
