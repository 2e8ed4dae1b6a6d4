"""The count of mutants behind `make mutants`, on what mutmut could have found."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("counting", Path(__file__).with_name("mutants.py"))
counting = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(counting)

SAME = counting.Survivor("vitlib.nn.a.f", "return x", "return +x")
OTHER = counting.Survivor("vitlib.nn.a.g", "return x", "return -x")
KILLED = ("vitlib.nn.a.x_f__mutmut_1", "killed", None)
HANGS = ("vitlib.nn.a.x_f__mutmut_2", "timeout", None)
LIVES = ("vitlib.nn.a.x_g__mutmut_1", "survived", OTHER)
UNTESTED = ("vitlib.nn.a.x_g__mutmut_2", "no tests", OTHER)
EQUIVALENT = ("vitlib.nn.a.x_f__mutmut_3", "survived", SAME)


def test_names_of_mutants_are_read():
    names = {
        "vitlib.nn.softmax.x_softmax_forward__mutmut_12": "vitlib.nn.softmax.softmax_forward",
        "vitlib.nn.mlp.xǁMLPǁ__init____mutmut_3": "vitlib.nn.mlp.MLP.__init__",
    }
    assert {name: counting.function_of(name) for name in names} == names


def test_a_diff_is_read():
    diff = (
        "--- a\n+++ a\n@@ -1,4 +1,3 @@\n def f(x):\n-    y = g(\n-        x,\n+    y = g(x\n     )"
    )
    assert counting.changed(diff) == ("y = g( x,", "y = g(x")


def test_the_share_is_that_of_mutants_that_behave_in_another_way():
    table, survivors, problems = counting.summary(
        [KILLED] * 18 + [HANGS, LIVES, EQUIVALENT], {SAME}
    )
    assert table.splitlines()[1].split() == ["vitlib.nn", "21", "18", "1", "2", "1", "95.0%"]
    assert survivors == [OTHER]
    assert problems == []


@pytest.mark.parametrize("alive", [LIVES, UNTESTED])
def test_less_than_95_in_100_is_a_problem_of_its_package(alive):
    other = ("vitlib.proof.a.x_f__mutmut_1", "killed", None)
    _, _, problems = counting.summary([KILLED] * 18 + [alive, other], set())
    assert problems == ["vitlib.nn: 94.7% are killed, 95% are wanted"]


def test_mutants_that_were_not_tried_are_a_problem():
    waiting = ("vitlib.nn.a.x_f__mutmut_4", "not checked", None)
    _, _, problems = counting.summary([KILLED, waiting], set())
    assert problems == ["vitlib.nn: 1 were not tried to the end: run it again"]


def test_a_reviewed_mutant_that_is_gone_is_a_problem():
    _, _, problems = counting.summary([KILLED], {SAME})
    assert problems == ["tests/mutants.toml: vitlib.nn.a.f: return +x: no such survivor"]


def test_survivors_are_listed_in_the_form_in_which_reasons_are_given(tmp_path):
    twice = counting.Survivor(SAME.function, SAME.line, "return x + 0")
    text = counting.listed([SAME, OTHER, twice])
    assert text.count("[[equivalent]]") == 2
    file = tmp_path / "mutants.toml"
    file.write_text(text.replace('why = ""', 'why = "x is a number"'))
    assert counting.reviewed(file) == {SAME, OTHER, twice}


@pytest.mark.parametrize(("old", "new"), [("the reason", " "), ("line", "lines")])
def test_a_list_without_reasons_is_refused(tmp_path, old, new):
    text = counting.listed([SAME]).replace('""', '"the reason"')
    file = tmp_path / "mutants.toml"
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match="give function, line, mutants and why"):
        counting.reviewed(file)


def test_the_library_s_list_can_be_read():
    assert all(survivor.function for survivor in counting.reviewed(counting.REVIEWED))
