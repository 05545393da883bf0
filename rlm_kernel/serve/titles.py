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
_TASK = re.compile(
    r"\A\s*(?:#{1,4}\s*)?Task:?\s*"
    r"(?:Generate|Suggest|Create|Analyze the chat history|You are an autocompletion)",
    re.IGNORECASE,
)
_SHORT_TITLE = re.compile(
    r"\b(?:generate|provide|write|create|reply with|respond with|give|produce)\b[^\n.?!]{0,80}"
    r"\b(?:concise|short|brief|\d-?(?:to |-)?\d*[ -]?words?)\b[^\n.?!]{0,60}\b(?:title|tags?)\b",
    re.IGNORECASE,
)
_OF_THE_CHAT = re.compile(
    # "reply with a title for the chat", "write a title summarizing our conversation"
    rf"{_ASK}[^\n.?!]{{0,60}}\b(?:title|topic)\s(?:for|of|summari[sz]ing|based on)\s{_THIS}(?!['’])"
    # "generate a short chat topic", "extract a concise thread title"
    rf"|{_ASK}\s(?:me\s)?{_A_SHORT}{_TALK}\s(?:title|topic)\b"
    # "summarize the user's conversation into a title", "give this conversation a name"
    rf"|{_ASK}\s(?:up\s)?{_THIS}\s(?:in(?:to)?\s)?an?\s(?:\w+\s){{0,2}}(?:title|name)\b"
    # "a concise description of this session in 4 words or less"
    rf"|{_ASK}\s{_A_SHORT}(?:description|name)\s(?:of|for)\s{_THIS}[^\n.?!]{{0,20}}\bwords\b"
    r"|(?:总结|總結|生成|概括)[^\n。？]{0,60}(?:标题|標題)",
    re.IGNORECASE,
)
_TITLER = re.compile(
    rf"\Ayou are an?\b[^\n.]{{0,40}}\b(?:title (?:generator|writer)|titling assistant|titles for {_TALK})",
    re.IGNORECASE,
)


def is_for_the_program(question: str, instructions: str, before: int, long: int) -> bool:
    """Whether a chat program asks for its own sake.

    `before`: characters of what was said before the question; `long`: of a message that counts as long.
    """
    head = " ".join(instructions[:_HEAD].split())
    if _TASK.match(question) or _TITLER.match(head) or _OF_THE_CHAT.search(head):
        return True
    if len(question) > long:
        return False
    asked = f"{question[:_ENDS]}\n{question[_ENDS:][-_ENDS:]}"
    if _OF_THE_CHAT.search(asked):
        return True
    return len(question) + before <= long and bool(
        _SHORT_TITLE.search(asked) or _SHORT_TITLE.search(instructions[-_ENDS:])
    )
