import pytest

from vitlib.source import show_source


class Holder:
    def method(self):
        return "indented"


def function():
    return "body"


def test_source_is_markdown_python_as_written():
    bundle = show_source(function)._repr_mimebundle_()
    assert bundle["text/markdown"] == '```python\ndef function():\n    return "body"\n```'
    assert bundle["text/plain"] == 'def function():\n    return "body"'


def test_method_is_dedented():
    assert show_source(Holder.method).code.startswith("def method(self):\n    return")


def test_several_stand_apart_in_the_order_given():
    code = show_source(Holder, function).code
    assert code.index("class Holder") < code.index("\n\n\ndef function")


def test_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match="nothing to show"):
        show_source()


@pytest.mark.parametrize("item", [len, int])
def test_what_has_no_python_source_is_refused(item):
    with pytest.raises(TypeError, match="has no Python source"):
        show_source(item)
