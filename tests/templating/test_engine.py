"""Templates: what they can say, what they are refused, and what the errors tell."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter
from typing import Any

import pytest
from stationmaster_server.templating import engine, templates
from stationmaster_server.templating.engine import Faulty, fill, outline
from stationmaster_server.templating.templates import Ready

ORDER = {"items": [{"name": "tea", "price": 2}, {"name": "salt", "price": 1.5}], "paid": True, "note": None}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("nothing to do {here}", "nothing to do {here}"),
        ("{{name}}", "Ada"),
        ("  Dear {{ name }},\n", "  Dear Ada,\n"),
        ("{{ name | upper }}{{ missing | default('!') }}", "ADA!"),
        ("{% if missing is defined %}{{ missing }}{% else %}none{% endif %}", "none"),
        ("{{ order.items[0].name }} {{ order['items'][1]['price'] }}", "tea 1.5"),
        ("{{ order.paid }} {{ order.note }}|{{ [1, 'a'] }}", 'true |[1, "a"]'),
        ("{{ order.items | first }}", '{"name": "tea", "price": 2}'),
        ("{% for item in order.items %}{{ loop.index }}. {{ item.name }}\n{% endfor %}", "1. tea\n2. salt\n"),
        ("{{ order.items | map(attribute='name') | join(', ') }}", "tea, salt"),
        ("{{ order.items | map(attribute='name') }}", '["tea", "salt"]'),
        ("{{ {'a': 1}.keys() }}{{ {'a': 1}.items() }}{{ range(2) }}", '["a"][["a", 1]][0, 1]'),
        ("{{ order.items | sum(attribute='price') }}", "3.5"),
        ("{{ order.items | selectattr('price', 'gt', 1.6) | map(attribute='name') | first }}", "tea"),
        ("{% for key, all in order.items | groupby('price') %}{{ key }}={{ all | length }};{% endfor %}", "1.5=1;2=1;"),
        ("{% for key, value in {'a': 1}.items() %}{{ key }}{{ value }}{% endfor %}", "a1"),
        ("{% set n = namespace(x=0) %}{% for i in range(4) %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}", "6"),
        ("{% macro bold(x) %}**{{ x }}**{% endmacro %}{{ bold(name) }}", "**Ada**"),
        ("{% for n in [[1, []], [2, []]] recursive %}{{ n[0] }}{{ loop(n[1]) }}{% endfor %}", "12"),
        ("{{ '%05.2f' | format(3.14159) }} {{ '%s' % name }} {{ 'a-b'.split('-') | last }}", "03.14 Ada b"),
        ("{{ 7 // 2 }} {{ 2 ** 10 }} {{ 'ab' * 2 }} {{ 7 % 4 }}", "3 1024 abab 3"),
        ("{{ order.items | length }}{{ order | tojson | length > 10 }}", "2true"),
        ("{{ {'umlaut': 'ü'} | tojson(indent=1) }}", '{\n "umlaut": "ü"\n}'),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{# nobody sees this #}{% raw %}{{ name }}{% endraw %}", "{{ name }}"),
        ("<b>{{ '<' }}{{ '<' | e }}</b>", "<b><&lt;</b>"),
    ],
)  # fmt: skip
def test_templates_say_what_everybody_expects(text: str, filled: str) -> None:
    assert fill(text, {"name": "Ada", "order": ORDER}) == filled


def test_all_missing_variables_are_named_at_once() -> None:
    with pytest.raises(Faulty) as refused:
        fill("{{ b }} {% if c %}{{ d | upper }}{% endif %} {{ a.x }} {{ name }} {{ e | default(1) }}", {"name": 1})
    assert "variables without a value: a, b, c, d;" in str(refused.value.fault)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\n{{ order.itms }}", "line 2: there is no value for order.itms"),
        ("{{ order.items[7].name }}", "line 1: there is no value for order.items[7]"),
        ("{% if maybe is defined %}{% endif %}{{ maybe }}", "line 1: 'maybe' is undefined"),
        ("{{ 1 / 0 }}", "line 1: it cannot be filled in: division by zero"),
        ("{{ name + 1 }}", "line 1: it cannot be filled in: can only concatenate str"),
        ("{% if order.gone is defined %}{% endif %}{{ order.itms }}", "line 1: there is no value for order.itms"),
        ("{{ order.note.x }}", "line 1: there is no value for order.note.x"),
        ("{{ {'x': missing | default(order.gone)} | tojson }}", "line 1: "),
    ],
)
def test_what_goes_wrong_while_filling_in_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(Faulty) as refused:
        fill(text, {"name": "Ada", "order": ORDER})
    assert said in str(refused.value.fault)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ name", "line 1: unexpected end of template"),
        ("a\nb {% if x %}\n", "line 2: Unexpected end of template"),
        ("{% wrong %}", "line 1: Encountered unknown tag 'wrong'"),
        ("\n{{ a b }}", "line 2: expected token 'end of print statement'"),
        ("{{ x | nofilter }}", "there is no filter named 'nofilter'"),
        ("{% if x is notest %}{% endif %}", "line 1: there is no test named 'notest'"),
        ("{% include 'other' %}", "line 1: 'include' is not available here"),
        ("\n{% import 'other' as o %}", "line 2: 'import' is not available here"),
        ("{% from 'other' import o %}", "line 1: 'from' is not available here"),
        ("{% extends 'other' %}", "line 1: 'extends' is not available here"),
        ("{% if a %}{% block b %}{% endblock %}{% endif %}", "line 1: 'block' is not available here"),
        ("{{ " + "(" * 800 + "1" + ")" * 800 + " }}", "it is nested too deeply"),
        ("{{ " + "-" * 3000 + "1 }}", "it is nested too deeply"),
        ("{% if a %}" * 150 + "{% endif %}" * 150, "it is nested too deeply"),
        ("x" * (engine.MOST_TEXT + 1), "it is longer than 262144 characters"),
        ("{{ x | attr('upper') }}", "there is no filter named 'attr'"),
        ("{{ x | center(10) }}", "there is no filter named 'center'"),
        ("{{ x | pprint }}", "there is no filter named 'pprint'"),
        ("{{ x | random }}", "there is no filter named 'random'"),
        ("{{ x | xmlattr }}", "there is no filter named 'xmlattr'"),
    ],
)
def test_what_is_no_template_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(Faulty) as refused:
        outline(text)
    assert said in str(refused.value.fault)


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ name.__class__ }}",
    "{{ order.__init__.__globals__ }}",
    "{{ order.items.append }}{{ order.items.append(1) }}",
    "{{ order.update(a=1) }}",
    "{{ order.pop('paid') }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ cycler('a').__init__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(a=1)._Namespace__attrs }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ dict.fromkeys('ab') }}",
    "{{ dict.__subclasses__() }}",
    "{{ range.__class__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ loop.__class__ }}{% for x in [1] %}{{ loop.__init__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterable }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__call__ }}",
    "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(name) }}",
    "{{ '{a.__class__}'.format_map({'a': name}) }}",
    "{{ ''.format.__self__ }}",
    "{{ [name] | map(attribute='__class__') | list }}",
    "{{ [name] | map('attr', '__class__') | list }}",
    "{{ [name] | groupby('__class__') | list }}",
    "{{ [name, 'b'] | sort(attribute='__class__') }}",
    "{{ ([1] | map('upper')).gi_frame }}",
    "{{ (1).real }}{{ (1).to_bytes(9) }}",
    "{{ order.items.sort() }}",
    "{{ name.encode() }}",
    "{{ name.translate({}) }}",
    "{{ name.ljust(9) }}",
    "{{ name() }}",
    "{{ lipsum }}",
    "{{ range }}",
    "{{ name.upper }}",
    "{{ cycler('a') }}",
    "{{ self }}",
    "{{ (name | e).unescape() }}",
    "{{ (name | e)._escape_args }}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_templates_have_no_way_out(text: str) -> None:
    order: dict[str, Any] = {"items": [], "paid": True}
    with pytest.raises(Faulty):
        fill(text, {"name": "Ada", "order": order})
    assert order == {"items": [], "paid": True}


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [1] * 10**9 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 2 ** -100000 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%.999999999f' | format(1.0) }}",
        "{{ 'a\nb' | indent(10**9) }}",
        "{{ [1] | batch(10**9, 'x') | list }}",
        "{{ [1] | slice(10**9) | list }}",
        "{{ 1.5 | round(10**9, 'ceil') }}",
        "{% for i in range(99999) %}{{ '%0999d' % i }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set n = namespace(x='ab') %}{% for i in range(50) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(50) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=9) %}{% for i in range(50) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ '%(n)99999999d' | format(n=1) }}",
        "{{ '%(n).99999999f' | format(n=1) }}",
        "{{ '%(n)*d' | format(n=1) }}",
    ],
)
def test_what_asks_for_too_much_is_refused_at_once(text: str) -> None:
    with pytest.raises(Faulty) as refused:
        fill(text, {})
    assert "too much" in str(refused.value.fault) or "too often" in str(refused.value.fault)


@pytest.mark.parametrize(
    ("text", "required", "optional", "linear"),
    [
        ("{{ a }}{{ b.c | upper }}", {"a", "b"}, set(), True),
        ("{{ a | default('x') }}{% if b.c is defined %}{{ b }}{% endif %}", set(), {"a", "b"}, True),
        ("{{ a if a > 3 and 'x' in b else c ~ 'd' }}", {"a", "b", "c"}, set(), True),
        ("{% for x in xs %}{{ x }}{% endfor %}", {"xs"}, set(), False),
        ("{% set x = 1 %}{{ x + y }}", {"y"}, set(), False),
        ("{{ a * 2 }}", {"a"}, set(), False),
        ("{{ a.upper() }}", {"a"}, set(), False),
        ("{{ a | map('upper') }}", {"a"}, set(), False),
        ("{{ a | title }}", {"a"}, set(), False),  # ten times as slow as others
        ("{{ a | tojson }}{{ b | tojson }}", {"a", "b"}, set(), True),
        ("{{ (a | tojson ~ b) | upper | tojson }}", {"a", "b"}, set(), False),  # backslashes double each time
        ("{{ range(3) }}{{ namespace(x=1) }}", set(), set(), False),
    ],
)
def test_an_outline_tells_what_a_template_uses(text: str, required: set[str], optional: set[str], linear: bool) -> None:
    found = outline(text)
    assert (set(found.required), set(found.optional), found.linear) == (required, optional, linear)


def test_constants_are_not_computed_when_a_template_is_compiled() -> None:
    outline("{{ 'a'.join(['b'] * 10) }}{{ 'x' * 10**9 }}{{ 'abc' | replace('', 'x' * 99999) | length }}")


def test_several_templates_are_filled_in_together() -> None:
    filled = engine.fill_all({"a": "{{ x }}", "b": "{{ y }}", "c": "{{"}, {"x": 1})
    assert filled["a"] == "1"
    assert "without a value: y" in str(filled["b"])
    assert "unexpected 'end" in str(filled["c"])


@pytest.mark.parametrize("character", ["-a", "é", "<", " ", "\\"])
def test_each_filter_of_templates_that_are_filled_in_at_once_takes_some_milliseconds(character: str) -> None:
    value = character * (80_000 // len(character))
    for name in sorted(engine._LINEAR_FILTERS):
        text = f"{{{{ a|{'|'.join([name] * 5)} }}}}"
        ready = Ready.of(text)
        if ready.weight is None or ready.weight * (1 + len(value)) > templates._LITTLE_WORK:
            continue
        took = []
        for _ in range(3):
            began = perf_counter()
            with suppress(Faulty):
                fill(text, {"a": value})
            took.append(perf_counter() - began)
        assert min(took) < 0.2, name  # a few milliseconds on a quiet machine; `title` took 350
