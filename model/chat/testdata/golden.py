#!/usr/bin/env python3
"""Writes golden.json: templates with what transformers' apply_chat_template makes of conversations under them.

    python3 model/chat/testdata/golden.py DIR        # the directory that model/tokenizer/testdata/fetch.py fills

Needs transformers (5.24.0) and jinja2 (3.1.6). The templates are those of SmolLM2 and Qwen3 (Apache-2.0), and small ones
written here, each for something in which template engines differ.
"""
import json, os, sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../tokenizer/testdata"))
import conversations

SMALL = {
    "whitespace": "  {% if true %}\n  a {{ 1 }} {%- if true %} b {% endif %}\n\n{% endif %}\n x \n{% if true -%}  \n y {%- endif %}  \nz\n",
    "trim beside an expression": "a \n{{ 'x' }}{%- if true %}b{% endif -%}{{ 'y' }} \n c",
    "lstrip at the start": "\t {% if true %}x{% endif %}  {% if true %}\n\n  y{% endif %}\n   {{ 1 }}\n   {# c #}\n z",
    "plus": "\n  {%+ if true +%}\n  a{% endif %}\n  {#+ c +#}\n b",
    "comments": "a {# {{ x }} '  #} b {#- c -#}  d\n {# e #}\n f",
    "raw": "a {% raw %}\n {{ x }} {% y %} {# z #} {%- endraw -%}  b{%- raw -%} c {% endraw %}\nd",
    "newlines": "a\r\nb\rc{% if true %}\r\nd{% endif %}\r\n\r\n",
    "two newlines at the end": "a\n\n",
    "a newline after an expression": "{{ 'a' }}\n",
    "set in a loop": "{% for m in messages %}{% if loop.first %}{% set a = m.role %}{% endif %}[{{ a }} {{ a is defined }}]{% endfor %}{{ a is defined }}",
    "set in a loop over an outer one": "{% set a = 'x' %}{% for m in messages %}{{ a }}{% set a = m.role %}{{ a }};{% endfor %}{{ a }}",
    "set in nested loops": "{% for i in range(2) %}{% set a = i %}{% for j in range(2) %}{{ a }}{% set a = a + 10 %}{{ a }},{% endfor %}{{ a }};{% endfor %}",
    "set the loop's own": "{% for m in messages %}{% set m = m.role %}{{ m }}{% set b %}<{{ m }}>{% endset %}{{ b }}{% endfor %}",
    "set a block in a loop": "{% for i in range(3) %}{{ b is defined }}{% set b %}x{{ i }}{% endset %}{{ b }}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0, s='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.s = ns.s ~ m.role[0] %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "escapes": r"""{{ 'a\tb\r\x41\u2581\U0001F600\a\0\q\\n\'\"' }}{{ "\'x" ~ '%}' ~ "}}" }}""",
    "braces": "{{ {'a': {'b': {'c': 1}}}['a']['b'] | tojson }}{{ [[1], (2, 3)] | tojson }}",
    "json": "{{ tools | tojson }}|{{ tools | tojson(indent=2) }}|{{ [1, 1.0, 1e20, 0.00001, -0.5, 123456789.25, none, true, '\\u2028</é\\x01\\x7f', {}, []] | tojson }}|{{ {'b': 1, 'a': [1, {}]} | tojson(indent=0) }}",
    "json arguments": "{{ {'b': 'é😀', 'a': 2} | tojson(ensure_ascii=true, sort_keys=true) }}{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}{{ [] | tojson(indent=4) }}{{ 'x' | tojson(false, 2) }}",
    "strip": "[{{ '\\x1c\\u3000 a \\x85\\xa0' | trim }}{{ ' a ' | trim ~ '.' }}{{ 'xaxx'.strip('x') }}{{ '\\v a \\v'.lstrip() }}|{{ '\\v a \\x1f'.rstrip() }}{{ '--a'.lstrip('-') }}{{ 'abcba' | trim('ab') }}]",
    "split": "{{ 'a  b\\x1cc '.split() | tojson }}{{ 'a,b,,c'.split(',') | tojson }}{{ 'a,b,c'.split(',', 1) | tojson }}{{ ' a  b  c '.split(none, 1) | tojson }}{{ 'a</think>b'.split('</think>')[-1] }}",
    "printing": "{{ none }}{{ true }}{{ 1.0 }}{{ 1e16 }}{{ 12345.5 }}{{ nothing }}{{ 7 // 2 }}{{ 7 / 2 }}{{ 7 % 4 }}{{ 'a' ~ 1 ~ true ~ x }}{{ [1, 'a', none] }}",
    "map and select": "{{ messages | map(attribute='role') | join(',') }}{{ ['a', 'B'] | map('upper') | list | tojson }}{{ [1, 0, 2] | select | list }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | selectattr('tool_calls') | list | length }}{{ messages | selectattr('tool_calls', 'defined') | list | length }}{{ messages | rejectattr('role', 'in', ['user', 'system']) | list | length }}{{ ['a', '', none] | reject('none') | list | length }}{{ messages | map(attribute='x', default='-') | join }}",
    "filters": "{{ 'x' | default('y') }}{{ nothing | default('y') }}{{ '' | default('z', boolean=true) }}{{ [3, 1, 2] | sort | tojson }}{{ [1, 2] | first }}{{ [1, 2] | last }}{{ 'abc' | length }}{{ 'aXb' | lower | upper }}{{ 'ab' | replace('a', 'c') }}{{ '3' | int + 1 }}{{ (-3) | abs }}{{ 'hello world' | capitalize }}{{ [1, 2, 1] | unique | list | tojson }}{{ {'b': 1, 'a': 2} | dictsort | tojson }}{{ {'a': 1} | items | list | tojson }}{{ [1, 2] | reverse | list | tojson }}{{ [1, 2] | sum }}",
    "indent": "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(width=1, blank=true) }}",
    "loops": "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem.role if loop.nextitem is defined }}{{ loop.cycle('a', 'b') }};{% endfor %}",
    "loop controls": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{% else %}none{% endfor %}{% for x in [] %}x{% else %}empty{% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}",
    "macros": "{% macro m(a, b='x') %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{{ m('q') | upper }}{% macro r(n) %}{% if n > 0 %}{{ n }}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(5) }}",
    "slices": "{{ 'abcdef'[1:3] }}{{ 'abc'[::-1] }}{{ 'abc'[-1] }}{{ messages[1:] | length }}{{ messages[::-1][0].role }}{{ messages[-1]['role'] }}{{ 'é世x'[1] }}",
    "tests": "{{ 'a' is string }}{{ 'a' is sequence }}{{ {} is sequence }}{{ {} is mapping }}{{ 'a' is iterable }}{{ 1 is number }}{{ none is none }}{{ x is not defined }}{{ not x is defined }}{{ 'a' in 'cab' }}{{ 'z' not in ['a'] }}{{ 'role' in messages[0] }}{{ 1 == 1.0 }}{{ 'a' == none }}{{ [] is sequence }}{{ tools is not none }}{{ true is boolean }}",
    "strftime": "{{ strftime_now('%d %b %Y|%-d %B %y|%H:%M:%S|%A %a|%I %p|%j|%%|2 January') }}",
    "raise": "{% if messages | length > 3 %}{{ raise_exception('too\nmany: ' ~ messages | length) }}{% endif %}ok",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.role }}{% endif %}{% endfor %}",
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ messages[0].content }}",
    "append": "{% set l = [] %}{% set _ = l.append(1) %}{{ l }}",
    "get": "{{ messages[0].get('role') }}{{ messages[0].get('x', 'y') }}{{ messages[0]['content'] }}{{ 'abc'.startswith('a') }}{{ 'abc'.endswith('x') }}{{ 'a-b'.replace('-', '+') }}{{ 'aXb'.upper() }}{{ messages[0].keys() | list | tojson }}",
}


def main():
    directory = sys.argv[1]
    chats = [c for c in conversations.conversations() if c["add_generation_prompt"]]
    some = [chats[i] for i in (1, 3, 14, 16)] + [c for c in chats if c["tools"]][:1]
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    out = []
    for name, template in SMALL.items():
        cases = [dict(c, **conversations.render(template, c, special)) for c in (some[:3] if "messages" in template or "tools" in template else some[:1])]
        if "tools" in template:
            cases.append(dict(some[-1], **conversations.render(template, some[-1], special)))
        if name == "map and select":
            cases.append(dict(some[3], **conversations.render(template, some[3], special)))
        out.append({"name": name, "template": template, "special": special, "now": conversations.DATE.isoformat() + "Z", "cases": cases})
    for family in ("smollm2", "qwen3"):
        with open(f"{directory}/{family}/tokenizer_config.json") as f:
            r = conversations.rendered(json.load(f))
        r["cases"] = [c for c in r["cases"] if len(json.dumps(c)) < 1500 and c["add_generation_prompt"]]
        out.append(dict(r, name=family))
    with open(os.path.join(HERE, "golden.json"), "w") as w:
        json.dump(out, w, indent=0)
        w.write("\n")


if __name__ == "__main__":
    main()
