"""Requests that a chat program makes for its own sake, as for a chat's title, told from a user's questions.

They have no form of their own: what tells them is the words in which programs ask.
"""

from __future__ import annotations

import re

_HEAD = 300
"""Characters of instructions, within which one that is all about titles says so."""
_ENDS = 1_000
"""Characters of a question, at each end, where it may ask for a title."""
_TALK = r"(?:conversation|chat(?:bot)?|thread|discussion|dialog(?:ue)?|session)s?"
_THIS = rf"(?:this|the|our|that|above|given|user'?s)\s+(?:[\w'’]+\s+){{0,2}}{_TALK}\b"
_ASK = (
    r"\b(?:generate|provide|write|create|reply with|respond with|give|suggest|summari[sz]e|produce|propose|"
    r"extract|craft|output|make|name)\b"
)
_A_SHORT = (
    r"(?:an?|the|only an?)\s(?:(?:very|short|brief|concise|succinct|good|clear|simple|descriptive|meaningful|"
    r"suitable|relevant|catchy|and|\d+-\d+ word),?\s){0,4}"
)
_CHINESE_ASK = "(?:总结|總結|生成|概括)"
_CHINESE_TALK = "(?:会话|會話|对话|對話|聊天)"
_TASK = re.compile(
    r"\A\s*(?:#{1,4}\s*)?Task:?\s*(?:"
    r"(?:Generate|Suggest|Create)\b[^\n]{0,200}\b"
    r"(?:titles?|tags?|follow-?ups?|chat|conversation|image generation)\b"
    r"|Analyze the chat history|You are an autocompletion)",
    re.IGNORECASE,
)
_SHORT_TITLE = re.compile(
    r"\b(?:generate|provide|write|create|reply with|respond with|give|produce)\b[^\n.?!]{0,80}"
    r"\b(?:concise|short|brief|\d-?(?:to |-)?\d*[ -]?words?)\b"
    # not "a short summary with a title", "a brief list of tags", "a short answer that has the title"
    r"(?:(?!\b(?:with|which|that|from|of|each|every|all)\b|(?<!as )(?<!for )\bthe\b)[^\n.?!]){0,60}"
    r"\b(?:title|tags?)\b(?!\s(?:to|before|at|above|on|for (?:each|every|all)|and then|followed)\b)",
    re.IGNORECASE,
)
_OF_THE_CHAT = re.compile(
    # "reply with a title for the chat", "write a title summarizing our conversation"
    rf"{_ASK}[^\n.?!]{{0,60}}\b(?:title|(?<!\bthe )topic)\s(?:for|of|summari[sz]ing|based on)\s{_THIS}"
    r"(?!['’]|\s(?:of|on|at)\s(?:the|an?)\b)"
    # "generate a short chat topic", "extract a concise thread title"
    rf"|{_ASK}\s(?:me\s)?{_A_SHORT}{_TALK}\s(?:title|topic)\b(?!\s(?:from|for|of|in)\s(?:each|every|all)\b)"
    # "summarize the user's conversation into a title", "give this conversation a name"
    rf"|{_ASK}\s(?:up\s)?{_THIS}\s(?:in(?:to)?\s)?an?\s(?:\w+\s){{0,2}}(?:title|name)\b"
    # "a concise description of this session in 4 words or less"
    rf"|{_ASK}\s{_A_SHORT}(?:description|name)\s(?:of|for)\s{_THIS}[^\n.?!]{{0,20}}\bwords\b"
    rf"|{_CHINESE_TALK}[^\n。？]{{0,60}}{_CHINESE_ASK}[^\n。？]{{0,60}}(?:标题|標題)"
    rf"|{_CHINESE_ASK}[^\n。？]{{0,60}}{_CHINESE_TALK}[^\n。？]{{0,60}}(?:标题|標題)",
    re.IGNORECASE,
)
_BESIDE = re.compile(
    r"\b(?:when(?:ever)?|if|once|always|also|after (?:your|each|every)|at the (?:end|start|beginning|top)|"
    r"(?:start|begin|end) (?:with|each|every|your))\b[^\n.?!]*\Z",
    re.IGNORECASE,
)
"""Before the words that ask for a title: it is wanted beside answers, as by the instructions of a user."""
_TITLER = re.compile(
    rf"\Ayou are an?\b[^\n.]{{0,40}}\b(?:title (?:generator|writer)|titling assistant|titles for {_TALK})",
    re.IGNORECASE,
)


def is_for_the_program(
    question: str, instructions: str, before: int, long: int, *, files: bool = False
) -> bool:
    """Whether a chat program asks for its own sake.

    `before`: characters of what was said before the question; `long`: of a message that counts as long;
    `files`: the chat has some, so a title may be wanted for one of them.
    """
    head = " ".join(instructions[:_HEAD].split())
    if _TASK.match(question) or _TITLER.match(head) or _is_told(_OF_THE_CHAT, head):
        return True
    if len(question) > long:
        return False
    asked = f"{question[:_ENDS]}\n{question[_ENDS:][-_ENDS:]}"
    if _OF_THE_CHAT.search(asked):
        return True
    if files or len(question) + before > long:
        return False
    return bool(_SHORT_TITLE.search(asked)) or _is_told(_SHORT_TITLE, instructions[-_ENDS:])


def _is_told(wanted: re.Pattern[str], instructions: str) -> bool:
    """Whether instructions ask for a title, and not beside answers."""
    found = wanted.search(instructions)
    return found is not None and not _BESIDE.search(instructions[: found.start()])
