# ruff: noqa: SIM905
"""Replies as models of many makers write them, each with what is to come of it. Written for these tests.

A case: its name, the reply as it comes from the server, the cells, and of the rest what is not usual: `final`
(kind and text), `thoughts` (a part of them), `labels` (of blocks that are not run), `invented`, `unclosed`,
`prose` (a part of it).
"""

from __future__ import annotations

from dataclasses import dataclass

C = "n = len(context)\nprint(n)"
ONE = "print(len(context))"


@dataclass(frozen=True)
class Case:
    name: str
    reply: str
    cells: tuple[str, ...] = ()
    final: tuple[str, str] | None = None
    thoughts: str = ""
    labels: tuple[str, ...] = ()
    invented: bool = False
    unclosed: bool = False
    prose: str = ""


def answer(text: str) -> tuple[str, str]:
    return "FINAL", text


def indented(code: str, by: str) -> str:
    return "\n".join(by + line for line in code.split("\n"))


_LABELS = """repl REPL Repl python Python PYTHON py Py python3 python2 python3.11 ipython ipython3 IPython jupyter jupyter-notebook jupyter_python
notebook tool_code tool-code code_interpreter main.py script.py path/to/solve.py python-repl python_repl pyrepl py3 pycon pyodide {python}
{.python} {python3} .python python:main.py python,linenums execute_python run_python sage""".split()
_OTHER = (
    "bash sh shell zsh powershell sql javascript js typescript java c cpp rust go ruby json yaml toml "
    "xml html css markdown diff r"
).split()
_OUTPUTS = (
    "text txt output Output stdout plaintext console tool_output tool_outputs result results "
    "execution_output observation"
).split()

LABELS = [
    *(Case(f"labelled {label}", f"I count.\n\n```{label}\n{C}\n```\nThen I "
                                "look.", (C,)) for label in _LABELS),
    *(Case(f"labelled {label} behind a space", f"``` {label}\n{C}\n"
                                               "```", (C,)) for label in ("python", "repl", "py")),
    *(
        Case(f"labelled with {more}", f"```{more}\n{C}\n```", (C,))
        for more in ('python title="count.py"', "python linenums=1", "{.python "
                                                                     ".numberLines}", "python copy", "repl title=a", '{python, echo=FALSE}',
                     "python main.py", "python   ", "python {1,3}")
    ),
    *(Case(f"labelled {label}, another language", f"So:\n```{label}\nprint(1)\n```\nThat is "
                                                  "it.", labels=(label,)) for label in _OTHER),
    *(Case(f"labelled {label}, an output", f"So:\n```{label}\nprint(1)\n```\nThat is "
                                           "it.") for label in _OUTPUTS),
    Case("an unknown label on code", f"```action\n{C}\n```", (C,)),
    Case("an unknown label on words", "```thinking\nI should count the lines.\n```"),
    Case("the label on a line of its own", f"```\npython\n{C}\n```", (C,)),
    Case("no label", f"I count.\n```\n{C}\n```", (C,)),
    Case("no label, words", "```\nThe lines are long.\n```"),
    Case("no label, a call of a shell", "```\nls -la /data | head\n```"),
    Case("bash beside Python", f"```bash\npip install x\n```\n```python\n{C}\n```", (C,), labels=("bash",)),
    Case("prompts", "```pycon\n>>> n = 3\n>>> for i in range(n):\n...     print(i)\n...\n0\n1\n>>> n\n3\n"
                    "```", ("n = 3\nfor i in range(n):\n    print(i)\n\nn",)),
    Case("prompts under python", "```python\n>>> print(1)\n1\n```", ("print(1)",)),
    Case("prompts without a label", "```\n>>> print(1)\n1\n```", ("print(1)",)),
    Case("prompts under console", "```console\n>>> print(1)\n1\n```", ("print(1)",)),
    Case("IPython's prompts", "```ipython\nIn [1]: x = 1\n\nIn [2]: for i in 'ab':\n   ...:     print(i)\n"
                              "Out[2]: 3\n```",
         ("x = 1\nfor i in 'ab':\n    print(i)",)),
    Case("magics", "```python\n%time n = len(context)\n!ls\nprint(n)\n```", ("%time n = len(context)\n!ls\n"
                                                                             "print(n)",)),
    Case("a cell magic", "```\n%%time\nn = 1\n```", ("%%time\nn = 1",)),
]  # fmt: skip

PLACES = [
    Case(
        "in a numbered list",
        f"1. I count:\n   ```python\n{indented(C, '   ')}\n   ```\n2. Then I look.",
        (C,),
    ),
    Case("on the line of a number", f"1. ```python\n{indented(C, '   ')}\n   ```\n2. Then I look.", (C,)),
    Case("on the line of a number, code at the margin", f"1. ```python\n{C}\n```\n2. Then I look.", (C,)),
    Case("on the line of a dash", f"- ```python\n{indented(C, '  ')}\n  ```", (C,)),
    Case("on the line of a star", f"* ```repl\n{indented(C, '  ')}\n  ```", (C,)),
    Case("in a list in a list", f"- a\n  - b\n    ```repl\n{indented(C, '    ')}\n    ```\n- c", (C,)),
    Case("further in than its list", f"1. First\n      ```repl\n{indented(C, '      ')}\n      ```", (C,)),
    Case(
        "two steps of a list",
        "1. ```python\n   x = 1\n   ```\n2. ```python\n   print(x)\n   ```",
        ("x = 1", "print(x)"),
    ),
    Case("in a quote", f"> I count:\n> ```python\n{indented(C, '> ')}\n> ```", (C,)),
    Case("in a quote in a quote", f">> ```python\n{indented(C, '>> ')}\n>> ```", (C,)),
    Case("in a quote without spaces", f">```python\n{indented(C, '>')}\n>```", (C,)),
    Case("in a list in a quote", f"> 1. ```python\n{indented(C, '>    ')}\n>    ```", (C,)),
    Case("indented by four", f"Code:\n\n    ```python\n{indented(C, '    ')}\n    ```", (C,)),
    Case("indented by a tab", f"Code:\n\t```python\n{indented(C, chr(9))}\n\t```", (C,)),
    Case("fence indented, code at the margin", f"  ```python\n{C}\n  ```", (C,)),
    Case(
        "after words",
        f"Here is the code: ```python\n{C}\n```\nThat is all.",
        (C,),
        prose="Here is the code:\nThat is all.",
    ),
    Case("after words with inline code", f"I call `len` so: ```python\n{C}\n```", (C,)),
    Case("after words without a label", f"The code: ```\n{C}\n```\n", (C,)),
    Case("in bold", f"**Code:** ```python\n{C}\n```", (C,)),
    Case("closed on the code's line", f"```python\n{C}```\nThat prints it.", (C,), prose="That prints it."),
    Case(
        "closed on the code's line, and more", f"```python\nx = 1```\nThen:\n```python\n{C}```", ("x = 1", C)
    ),
    Case(
        "closed, then words",
        f"```python\n{C}\n``` That prints the length.\nThen I look on.",
        (C,),
        prose="That prints the length.",
    ),
    Case(
        "closed on the code's line, then words",
        f"```python\n{C}``` That prints it.",
        (C,),
        prose="That prints it.",
    ),
    Case("code on the fence's line", f"```python {ONE}\n```", (ONE,)),
    Case("code from the fence's line on", "```python n = 1\nprint(n)\n```", ("n = 1\nprint(n)",)),
    Case("all on one line", f"```python {ONE}```", (ONE,)),
    Case("an assignment on the fence's line", "```python x=1\n```", ("x=1",)),
    Case("inline code is prose", "I use ```x``` and `y`, then ``z``."),
    Case("three backticks in a sentence", "Fences are written ``` by people."),
    Case("tildes", f"~~~python\n{C}\n~~~", (C,)),
    Case("tildes around backticks", '~~~repl\ntext = """\n```\n"""\n~~~', ('text = """\n```\n"""',)),
    Case(
        "a longer fence",
        '````python\np = """\n```json\n{}\n```\n"""\n````',
        ('p = """\n```json\n{}\n```\n"""',),
    ),
    Case("a longer closer", f"```python\n{C}\n`````\nafter", (C,), prose="after"),
    Case("never closed", f"Now:\n```python\n{C}", (C,), unclosed=True),
    Case("never closed, and the next opened", f"```python\nx = 1\n\n```python\n{C}\n```", ("x = 1\n", C)),
    Case("empty", "```python\n\n```"),
    Case("Windows line ends", "I count.\r\n```python\r\nn = len(context)\r\nprint(n)\r\n```\r\nDone.", (C,)),
    Case("two blocks", f"a\n```python\nx = 1\n```\nb\n```python\n{C}\n```\nc", ("x = 1", C), prose="a\nb\nc"),
    Case("no blank lines at all", f"a\n```python\n{C}\n```\n```python\n{C}\n```", (C, C)),
    Case("no fence, all code", C, (C,)),
    Case("no fence, prompts", ">>> n = 3\n>>> print(n)\n3", ("n = 3\nprint(n)",)),
    Case("a heading before it", f"### Step 1\n```python\n{C}\n```\n---\nnext", (C,)),
    Case("a table before it", f"| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\n{C}\n```", (C,)),
    Case("HTML around it", f"<details>\n<summary>Code</summary>\n\n```python\n{C}\n```\n</details>", (C,)),
    Case("emoji and accents", "Voilà 🎉\n```python\nprint('é 🎉')\n```", ("print('é 🎉')",)),
]

_PROMPT = 'p = f"""Sum up:\n```\n{part}\n```\nOne line."""\nprint(llm_query(p))'
_LABELLED = "p = '''Write JSON as\n```json\n{\"a\": 1}\n```\nand no more'''\nprint(p)"
STRINGS = [
    Case("a fence in a string", f"```repl\n{_PROMPT}\n```\nThen I go on.", (_PROMPT,), prose="Then I go on."),
    Case("a labelled fence in a string", f"```repl\n{_LABELLED}\n```\nThen I go on.", (_LABELLED,)),
    Case("an odd fence in a string", '```repl\np = """\n```\n"""\nprint(p)\n```\ndone', ('p = """\n```\n'
                                                                                         '"""\nprint(p)',)),
    Case("a block in a block's string", '```repl\np = """\n```python\nx = 1\n```\n"""\nprint(p)\n'
                                        '```', ('p = """\n```python\nx = 1\n```\n"""\nprint(p)',)),
    Case("two such blocks", f"```repl\n{_PROMPT}\n```\nand\n```repl\n{_LABELLED}\n```", (_PROMPT, _LABELLED)),
    Case("such a block without a label", f"```\n{_PROMPT}\n```", (_PROMPT,)),
    Case("such a block in a list", f"- ```repl\n{indented(_PROMPT, '  ')}\n  ```", (_PROMPT,)),
    Case("such a block in a quote", f"> ```repl\n{indented(_PROMPT, '> ')}\n> ```", (_PROMPT,)),
    Case("such a block that is not closed", f"```repl\n{_PROMPT}", (_PROMPT,), unclosed=True),
    Case("backticks in a short string", "```repl\nparts = text.split('```')\nprint(parts)\n```", ("parts = "
                                                                                                  "text.split('```')\n"
                                                                                                  "print(parts)",)),
    Case("backticks that end a line in a string", "```repl\na = ['```',\n'x']\nprint(a)\n"
                                                  "```", ("a = ['```',\n"
                                                                                                "'x']\nprint(a)",)),
    Case("backticks in a comment", "```repl\n# takes ```\nprint(1)\n```", ("# takes ```\nprint(1)",)),
    Case("a fence in a regular expression", "```repl\nre.findall(r'```(\\w+)', context)\n"
                                            "```", ("re.findall(r'```(\\w+)', "
                                                                                                "context)",)),
    Case("a string that has no end", '```repl\nx = """abc\n```\nand\n```repl\nprint(1)\n'
                                     '```', ('x = """abc', "print(1)")),
    Case("code that does not parse", "```repl\nprint(1\n```\nand\n```repl\nx = 2\n```", ("print(1", "x = 2")),
    Case("a tag for thoughts in a string", "```repl\nx = re.sub(r'<think>.*?</think>', '', x)\nprint(x)\n```",
         ("x = re.sub(r'<think>.*?</think>', '', x)\nprint(x)",)),
    Case("such a tag in a string of several lines", '```repl\np = """\n<think>\nno\n</think>\n"""\n'
                                                    'print(p)\n```',
         ('p = """\n<think>\nno\n</think>\n"""\nprint(p)',)),
    Case("an end of thoughts in a string", '```repl\nx = x.split("</think>")[-1]\nprint(x)\n'
                                           '```', ('x = x.split("</think>")[-1]\n'
                                                                                                   'print(x)',)),
    Case("a mark of the end in a string", "```repl\nx = x.replace('<|im_end|>', '')\n"
                                          "```", ("x = x.replace('<|im_end|>', "
                                                                                            "'')",)),
    Case("a channel in a string", "```repl\nx = x.split('<|channel|>final<|message|>')\n"
                                  "```", ("x = x.split('<|channel|>final<|message|>')",)),
    Case("tags in inline code", f"I take `<think>` off with `</think>`.\n```repl\n{C}\n"
                                "```", (C,), prose="I take `<think>` off"),
]  # fmt: skip

_DRAFT = "Perhaps\n```python\nprint('draft')\n```\nNo. It may be\nFINAL(7)\nbut I must count."
_REST = f"I count.\n```repl\n{C}\n```"
DRAFTS = [
    *(
        Case(f"thoughts in {opener}", f"{opener}\n{_DRAFT}\n{closer}\n\n{_REST}", (C,), thoughts="draft")
        for opener, closer in (
            ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>"),
            ("<THINK>", "</THINK>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"), ("<mm:think>", "</mm:think>"),
            ("<seed:think>", "</seed:think>"), ("<antThinking>", "</antThinking>"), ("<|begin_of_thought|>", "<|end_of_thought|>"),
            ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|channel>thought", "<channel|>"), ("<unused94>thought", "<unused95>"),
            ('<think time="3">', "</think>"), ("<scratchpad>", "</scratchpad>"), ("<reflection>", "</reflection>"),
        )
    ),
    Case("the opener is missing", f"{_DRAFT}\n</think>\n\n{_REST}", (C,), thoughts="draft"),
    Case("the opener is missing, a short thought", "I should "
                                                   f"count.</think>{_REST}", (C,), thoughts="I should count."),
    Case("the opener is missing, a fence in the thought is open", "Say\n```python\nprint('draft')\n"
                                                                  f"</think>\n{_REST}", (C,), thoughts="draft"),
    Case("an empty thought", f"<think>\n\n</think>\n\n{_REST}", (C,)),
    Case("an empty thought without an opener", f"\n</think>\n\n{_REST}", (C,)),
    Case("a thought without an end", f"<think>\n{_DRAFT}", thoughts="draft"),
    Case("a thought in the middle", f"I begin.\n<think>\n{_DRAFT}\n</think>\n"
                                    f"{_REST}", (C,), thoughts="draft", prose="I begin."),
    Case("two thoughts", f"<think>a</think>\nNow.\n<think>{_DRAFT}</think>\n{_REST}", (C,), thoughts="draft"),
    Case("a thought about the tag", "<think>I split at '</think>' and so on.\n```python\nprint('draft')\n"
                                    f"```\n</think>\n{_REST}", (C,), thoughts="draft"),
    Case("a thought with a regular expression", "<think>r'<think>.*?</think>' it is</think>\n"
                                                f"{_REST}", (C,), thoughts="it is"),
    Case("a thought that ends in code", "<think>\n```python\nprint('draft')\n```</think>\n"
                                        f"{_REST}", (C,), thoughts="draft"),
    Case("a word about the tag", "The <think> tag is not in the text.\n"
                                 f"{_REST}", (C,), prose="The <think> tag"),
    Case("thoughts, then an answer", f"<think>\n{_DRAFT}\n</think>\n"
                                     "FINAL(3)", final=answer("3"), thoughts="draft"),
    Case("thoughts, then words", f"<think>\n{_DRAFT}\n</think>\nIt has three "
                                 "lines.", thoughts="draft", prose="It has three lines."),
    Case("channels", f"<|channel|>analysis<|message|>{_DRAFT}"
                     f"<|end|><|start|>assistant<|channel|>final<|message|>{_REST}"
                     "<|return|>", (C,), thoughts="draft"),
    Case("channels, the beginning is missing", f"{_DRAFT}"
                                               f"<|end|><|start|>assistant<|channel|>final<|message|>{_REST}", (C,), thoughts="draft"),
    Case("channels, thoughts alone", f"<|channel|>analysis<|message|>{_DRAFT}", thoughts="draft"),
    Case("channels, several thoughts", f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>{_DRAFT}"
                                       "<|end|>"
         f"<|start|>assistant<|channel|>final<|message|>FINAL(3)", final=answer("3"), thoughts="draft"),
    Case("channels, a call of python", f"<|channel|>analysis to=python<|message|>{C}<|call|>", (C,)),
    Case("channels, a call with JSON", '<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary '
                                       'to=functions.python '
         '<|constrain|>json<|message|>{"code": "n = '
         '1\\nprint(n)"}<|call|>', ("n = 1\nprint(n)",), thoughts="hm"),
    Case("channels whose marks were dropped", "analysisWe need to count.\n"
                                              f"{_DRAFT}assistantfinal{_REST}", (C,), thoughts="draft"),
    Case("a mark of the end", f"{_REST}<|im_end|>", (C,)),
    Case("marks of the end of other makers", f"{_REST}\n<|eot_id|>", (C,)),
    Case("the end of a sentence", "FINAL(3)<｜end▁of▁sentence｜>", final=answer("3")),
    Case("a conversation that is made up", f"{_REST}\n<|im_end|>\n<|im_start|>user\nOutput: 5<|im_end|>\n"
                                           "<|im_start|>assistant\nFINAL(5)", (C,), thoughts="FINAL(5)"),
    Case("a mark of the end behind an answer", "FINAL(3)</s>", final=answer("3")),
    Case("a solution in marks", f"<|begin_of_thought|>{_DRAFT}<|end_of_thought|>\n<|begin_of_solution|>\n"
                                f"{_REST}\n<|end_of_solution|>", (C,), thoughts="draft"),
    Case("an answer in tags", "<think>a</think>\n<answer>FINAL(3)</answer>", final=answer("3")),
    Case("an answer between lines of tags", "<answer>\nFINAL(3)\n</answer>", final=answer("3")),
]  # fmt: skip

_JSON = '{"name": "python", "arguments": {"code": "n = len(context)\\nprint(n)"}}'
CALLS = [
    *(
        Case(f"code in <{tag}>", f"I count.\n<{tag}>\n{C}\n</{tag}>\nDone.", (C,), prose="Done.")
        for tag in ("code", "python", "py", "execute", "execute_python", "execute_ipython", "tool_code", "repl", "ipython", "code_interpreter", "run", "script",
                    "python_code")
    ),
    Case("code in tags on one line", f"<code>{ONE}</code>", (ONE,)),
    Case("code in a fence in tags", f"<code>\n```python\n{C}\n```\n</code>", (C,)),
    Case("a tag with attributes", f'<execute lang="python">\n{C}\n</execute>', (C,)),
    Case("a tag without an end", f"<execute_ipython>\n{C}", (C,), unclosed=True),
    Case("a word in tags", "The <code>n</code> is three.\n<code>n</code> it is."),
    Case("CodeLlama", f"[PYTHON]\n{C}\n[/PYTHON]", (C,)),
    Case("Llama", f"<|python_tag|>{C}<|eom_id|>", (C,), unclosed=True),
    Case("Llama without an end", f"<|python_tag|>{C}", (C,), unclosed=True),
    Case("Hermes and Qwen", f"<tool_call>\n{_JSON}\n</tool_call>", (C,)),
    Case("Hermes without an end", f"I count.\n<tool_call>\n{_JSON}", (C,), unclosed=True),
    Case("Qwen coder", f"<tool_call>\n<function=python>\n<parameter=code>\n{C}\n</parameter>\n</function>\n"
                       "</tool_call>", (C,)),
    Case("GLM", f"<tool_call>python\n<arg_key>code</arg_key>\n<arg_value>{C}</arg_value>\n"
                "</tool_call>", (C,)),
    Case("Claude", f'<function_calls>\n<invoke name="python">\n<parameter name="code">{C}</parameter>\n'
                   '</invoke>\n</function_calls>', (C,)),
    Case("Kimi", '<|tool_calls_section_begin|><|tool_call_begin|>functions.python:0<|tool_call_argument_begin|>{"code": '
                 '"n = 1\\nprint(n)"}'
         "<|tool_call_end|><|tool_calls_section_end|>", ("n = 1\nprint(n)",)),
    Case("DeepSeek", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>python\n```json\n{"code": '
                     '"n = 1\\nprint(n)"}\n```'
         "<｜tool▁call▁end｜><｜tool▁calls▁end｜>", ("n = 1\nprint(n)",)),
    Case("Mistral", '[TOOL_CALLS][{"name": "python", "arguments": {"code": "n = '
                    '1\\nprint(n)"}}]', ("n = 1\nprint(n)",)),
    Case("Mistral, newer", '[TOOL_CALLS]python{"code": "n = 1\\nprint(n)"}', ("n = 1\nprint(n)",)),
    Case("JSON alone", '{"code": "n = 1\\nprint(n)"}', ("n = 1\nprint(n)",)),
    Case("JSON in a fence", '```json\n{"thought": "I count", "code": "n = 1\\nprint(n)"}\n'
                            '```', ("n = 1\nprint(n)",), labels=("json",)),
    Case("an action in JSON", '{"action": "python", "action_input": "print(1)"}', ("print(1)",)),
    Case("JSON with JSON in it", '{"tool": "python", "arguments": "{\\"code\\": '
                                 '\\"print(1)\\"}"}', ("print(1)",)),
    Case("JSON that is data", '```json\n{"code": "A12", "lines": 3}\n```', labels=("json",)),
]  # fmt: skip

_RUN = f"```repl\n{C}\n```"
OUTPUTS = [
    Case("a number", f"{_RUN}\n\nOutput:\n```\n98765\n```\nSo it is.", (C,), invented=True),
    Case("a list", f"{_RUN}\nThis prints:\n```\n[1, 2, 3]\n```", (C,), invented=True),
    Case(
        "what looks like assignments",
        f"{_RUN}\nThe output is:\n```\nalpha = 1\nbeta = 2\n```",
        (C,),
        invented=True,
    ),
    Case("what looks like a call", f"{_RUN}\n```\nCounter({{'a': 3}})\n```", (C,)),
    Case("a table", f"{_RUN}\n**Output**:\n```\n| a | b |\n| 1 | 2 |\n```", (C,), invented=True),
    Case("under output", f"{_RUN}\n```output\n98765\n```\nI go on.", (C,), invented=True),
    Case("under tool_outputs", f"```tool_code\n{C}\n```\n```tool_outputs\n98765\n```", (C,), invented=True),
    Case(
        "with code that builds on it",
        f"{_RUN}\n```output\n98765\n```\n```repl\nx = 98765\n```",
        (C,),
        invented=True,
    ),
    Case(
        "with an answer that builds on it",
        f"{_RUN}\nOutput:\n```\n98765\n```\nFINAL(98765)",
        (C,),
        invented=True,
        final=answer("98765"),
    ),
    Case(
        "in prose, in our own words",
        f"{_RUN}\nOutput of the cell:\n98765\n\n```repl\nFINAL(98765)\n```",
        (C,),
        invented=True,
    ),
    Case("as an observation", f"{_RUN}\nObservation: 98765\n{_RUN}", (C,), invented=True),
    Case("as Out[1]", f"{_RUN}\nOut[1]: 98765", (C,), invented=True),
    Case(
        "without a word before it", f"{_RUN}\n```\n98765\n```\nand\n```repl\nprint(2)\n```", (C, "print(2)")
    ),
    Case("two blocks without labels", "```\nx = 1\n```\nand\n```\nprint(x)\n```", ("x = 1", "print(x)")),
    Case("data of before, then code", f"The file begins with\n```\nalpha 1\nbeta 2\n```\nso\n{_RUN}", (C,)),
    Case("a bare number alone", "```\n42\n```"),
    Case("a bare list alone", "```\n['a', 'b']\n```"),
    Case("a bare text alone", '```\n"done"\n```'),
    Case("a look at a variable", "```\nrows[0]\n```", ("rows[0]",)),
    Case(
        "the word output in a sentence",
        f"{_RUN}\nI print the output for you to see.\n```repl\nprint(2)\n```",
        (C, "print(2)"),
    ),
]

_WITH_CODE = "Use this:\n```python\nprint('run')\n```\nIt is short."
FINALS = [
    Case("a number", "FINAL(42)", final=answer("42")),
    Case("after words", "So it is clear.\n\nFINAL(42)", final=answer("42")),
    Case("words", "FINAL(There are three lines.)", final=answer("There are three lines.")),
    Case(
        "numbered reasons",
        "FINAL(The reasons are 1) heat, 2) age and 3) dust.)",
        final=answer("The reasons are 1) heat, 2) age and 3) dust."),
    ),
    Case(
        "a numbered list",
        "FINAL(Parts:\n1) alpha\n2) beta (old)\nThat is all.)",
        final=answer("Parts:\n1) alpha\n2) beta (old)\nThat is all."),
    ),
    Case("a list with letters", "FINAL(a) heat\nb) age)", final=answer("a) heat\nb) age")),
    Case(
        "paragraphs",
        "FINAL(One.\n\nTwo (of 3).\n\nThree.)\n\nThat is what I found (in all).",
        final=answer("One.\n\nTwo (of 3).\n\nThree."),
    ),
    Case("a smiley", "FINAL(Sure :) it is 3)", final=answer("Sure :) it is 3")),
    Case("a smiley at the end of a line", "FINAL(Thanks :)\nIt is 3)", final=answer("Thanks :)\nIt is 3")),
    Case(
        "parentheses", "FINAL(It's the dog's bone (isn't it))", final=answer("It's the dog's bone (isn't it)")
    ),
    Case("an open one", "FINAL(see (below\nand so on)", final=answer("see (below\nand so on)")),
    Case("one too many", "FINAL(a closing ) in it, and more)", final=answer("a closing ) in it, and more")),
    Case("code in it", f"FINAL({_WITH_CODE})", final=answer(_WITH_CODE)),
    Case(
        "code at its end",
        "FINAL(Use this:\n```python\nprint(1)\n```\n)",
        final=answer("Use this:\n```python\nprint(1)\n```"),
    ),
    Case(
        "code with an odd parenthesis in it",
        "FINAL(Use\n```python\nx = ')'\ny = '('\n)\n```\nso)",
        final=answer("Use\n```python\nx = ')'\ny = '('\n)\n```\nso"),
    ),
    Case("JSON in it", 'FINAL({"a": [1, 2], "b": ")"})', final=answer('{"a": [1, 2], "b": ")"}')),
    Case(
        "a fence with JSON in it", 'FINAL(\n```json\n{"a": 1}\n```\n)', final=answer('```json\n{"a": 1}\n```')
    ),
    Case("a string with a parenthesis", 'FINAL("1) one, 2) two")', final=answer('"1) one, 2) two"')),
    Case("a long string", 'FINAL("""1) one\n2) two""")', final=answer('"""1) one\n2) two"""')),
    Case("an expression over lines", "FINAL(\n    len(rows),\n)", final=answer("len(rows),")),
    Case("a variable", "FINAL_VAR(report)", final=("FINAL_VAR", "report")),
    Case("in bold", "**FINAL(42)**", final=answer("42")),
    Case("in inline code", "`FINAL(42)`", final=answer("42")),
    Case("as a heading", "### FINAL(42)", final=answer("42")),
    Case("in a quote", "> FINAL(42)", final=answer("42")),
    Case("with a full stop", "FINAL(42).", final=answer("42")),
    Case(
        "in a block without a label",
        "```\nFINAL(The answer is three)\n```",
        final=answer("The answer is three"),
    ),
    Case(
        "in a block of text", "```text\nFINAL(The answer is three)\n```", final=answer("The answer is three")
    ),
    Case(
        "in a block of Python, words",
        "```python\nFINAL(The answer is three)\n```",
        final=answer("The answer is three"),
    ),
    Case("in a block of Python, code", "```python\nFINAL(42)\n```", ("FINAL(42)",)),
    Case("behind code", "```python\nx = 2\nFINAL(x)\n```", ("x = 2\nFINAL(x)",)),
    Case("code without a fence", "x = 2\nFINAL(x)", ("x = 2\nFINAL(x)",)),
    Case("beside code", f"{_RUN}\nFINAL(1)", (C,), final=answer("1")),
    Case("the second counts", "FINAL(first)\nNo:\nFINAL(second)", final=answer("second")),
    Case("never closed", "FINAL(never closed", final=answer("never closed")),
    Case("empty", "FINAL()", final=answer("")),
    Case("a plan", "I will then call FINAL(answer) with it."),
    Case("a plan that begins a line", "FINAL(answer) is what I shall call then."),
    Case("a plan in a list", "1. Count the lines.\n2. FINAL(count)"),
    Case("with a colon", "FINAL: 42"),
    Case("in other words", "Final answer: 42"),
    Case("boxed", "\\boxed{42}"),
    Case("a longer word", "So:\nFINALLY(1)"),
    Case("small letters", "So:\nfinal(1)"),
]

CASES = [
    Case(f"{part}: {case.name}", case.reply, case.cells, case.final, case.thoughts, case.labels, case.invented, case.unclosed, case.prose)
    for part, cases in {
        "label": LABELS, "place": PLACES, "string": STRINGS, "draft": DRAFTS, "call": CALLS, "output": OUTPUTS, "final": FINALS
    }.items()
    for case in cases
]  # fmt: skip
