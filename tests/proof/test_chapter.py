import pytest

from vitlib import proof
from vitlib.proof.chapter import Equation

CHAPTER = r"""---
jupytext:
  formats: "$$"
---

# Title

```{math}
:label: eq-one
a = b
```

Text with `$$` and $a$ and ``a ` $$ b``.

::::{admonition} A box
:class: note
:::{math}
:label: eq-two

\begin{aligned}
a &= b
\end{aligned}
:::
::::

````{exercise}
:label: exercise-a
```{math}
:label: eq-three
:class: definition
a \in b
```
````

- in a list:
  ```{math}
  a = c
  ```

```{code-cell} ipython3
:tags: [ledger]
print("$$ a = b $$")
r'''
:::{math}
:label: eq-not
:::
'''
```

```python
x = "$$"
```
"""


@pytest.fixture
def chapter(tmp_path):
    def write(text):
        path = tmp_path / "chapter.md"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def evidence(label, latex):
    return proof.Evidence(label, latex, ("PyTorch",), 5, 1e-12, (), ())


def test_displays_are_found_in_whatever_they_stand(chapter):
    found = proof.equations(chapter(CHAPTER))
    assert [(e.label, e.latex, e.definition) for e in found] == [
        ("eq-one", "a = b", False),
        ("eq-two", "\\begin{aligned}\na &= b\n\\end{aligned}", False),
        ("eq-three", r"a \in b", True),
        (None, "a = c", False),
    ]
    assert [e.line for e in found] == [8, 17, 28, 36]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("---\ntitle: $$a$$\n---\n$$b$$\n", [4]),
        ("$$a$$\n\n---\n\n$$b$$\n", [1, 5]),  # a line across the page, and no header
        ("---\n\n$$a$$\n", [3]),
    ],
)
def test_a_header_is_what_stands_between_two_rules_at_the_very_top(chapter, text, lines):
    assert [e.line for e in proof.equations(chapter(text))] == lines


@pytest.mark.parametrize(
    "display",
    [
        "$$a = b$$",
        "$$\na = b\n$$",
        "Text $$a = b$$ text",
        r"\[a = b\]",
        "\\begin{align}\na\n\\end{align}",
    ],
)
def test_other_ways_to_display_are_found_once_and_flagged(chapter, display):
    found = proof.equations(chapter(f"# T\n\n{display}\n\ntext\n"))
    assert [(e.directive, e.line) for e in found] == [(False, 3)]
    first = display.splitlines()[0]
    assert proof.audit(found, []) == [f"line 3: a display outside a {{math}} directive: {first}"]


def test_each_of_several_other_displays_is_flagged(chapter):
    found = proof.equations(chapter("\\[a\\]\n\n\\[b\\]\n\n$$c$$ $$d$$\n"))
    assert [e.line for e in found] == [1, 3, 5, 5]


def test_displays_may_follow_each_other_line_by_line_and_be_empty(chapter):
    displays = "```{math}\na = b\n```\n```{math}\n:label: eq-a\n```\n"
    found = proof.equations(chapter(f":::\n```\n```\n{displays}"))  # the first ::: closes nothing
    assert [(e.label, e.latex, e.line) for e in found] == [(None, "a = b", 4), ("eq-a", "", 7)]


@pytest.mark.parametrize("fence", ["```", "~~~", ":::{code} latex"])
def test_what_is_quoted_is_no_display(chapter, fence):
    assert proof.equations(chapter(f"{fence}\n$$ a = b $$\n{fence[:3]}\n")) == []


def test_dollars_beside_code_are_no_display(chapter):
    assert proof.equations(chapter("$`a`$\n")) == []


def test_a_chapter_with_all_its_evidence_has_no_problems():
    page = [
        Equation("eq-a", "a\n  = b", 1),
        Equation("eq-b", r"x \in y", 5, definition=True),
    ]
    assert proof.audit(page, [evidence("eq-a", "a = b")]) == []


@pytest.mark.parametrize(
    ("page", "proofs", "problem"),
    [
        ([Equation("eq-a", "a = b", 3)], [], "eq-a: printed on line 3, but nothing checks it"),
        ([Equation(None, "a = b", 3)], [], "line 3: a display without a label: a = b"),
        ([], [("eq-a", "a = b")], "eq-a: checked, but there is no such display"),
        (
            [Equation("eq-a", "a = c", 3)],
            [("eq-a", "a = b")],
            "eq-a: what was checked is not what is printed",
        ),
        (
            [Equation("eq-a", "a = b", 3), Equation("eq-a", "a = b", 9)],
            [("eq-a", "a = b")],
            "line 9: the label eq-a is taken by another display",
        ),
        ([Equation("eq-a", "a = b", 3)], [("eq-a", "a = b")] * 2, "eq-a: checked twice"),
        (
            [Equation("eq-a", "a = b", 3, definition=True)],
            [("eq-a", "a = b")],
            "eq-a: checked, so it is not a mere definition",
        ),
    ],
)
def test_each_problem_is_named(page, proofs, problem):
    assert proof.audit(page, [evidence(*p) for p in proofs]) == [problem]


@pytest.mark.parametrize("info", ["{math}", "python"])
def test_a_fence_that_is_not_closed(chapter, info):
    with pytest.raises(ValueError, match=r"chapter.md, line 3: this ``` is not closed"):
        proof.equations(chapter(f"# T\n\n```{info}\na = b\n"))


def test_a_chapter_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the path of a chapter"):
        proof.equations(tmp_path / "nothing.md")
