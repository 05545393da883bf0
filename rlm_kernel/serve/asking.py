"""Lines of a message: which ask something, which are a person's words, and which say that a text begins."""

from __future__ import annotations

import re

LINE = 600
"""Characters of a line that may ask something."""
MARKER = re.compile(
    r"(?:#{1,6}|\*\*|\[|<)?\s*(?:the |my |your |user'?s?[ _-]?)*"
    r"(?:questions?|query|task|instructions?|request|q|frage|aufgabe|pregunta|tarea|domanda|pergunta|вопрос|问题|質問)"
    r"(?: \d{1,3})?\s*(?:(?:\*\*|\]|>)\s*)?(?:[:：]|$)"
    r"|<(?:user_)?(?:question|query|task|instructions?|request)>",
    re.IGNORECASE,
)
_LEAD = r"(?:(?:please|now|then|and|so|ok|okay|hi|hello|hey|also|finally|bitte|por favor)\b[,.:!]?\s+){0,3}"
_VERBS = (
    "analy[sz]e answer based check classify compare compute convert count create describe determine do draft "
    "evaluate explain extract fasse find finde fix generate give identify judge label let list locate look "
    "name nenne outline paraphrase pick point proofread provide quote rank read reply respond resume return "
    "review rewrite say search show sort suggest summari[sz]e summary tell tl;?dr translate try use using "
    "verify write zähle zeige résume riassumi enumera traduis"
)
_ASKERS = (
    "am are can could did do does has have how if is should was were what when where which who whom "
    "whose why will would combien comment cuántos cuántas quién qué quel quelle welche wer wie wann wo warum"
)
_VERB = re.compile(rf"{_LEAD}(?:{'|'.join(_VERBS.split())})\b(?!\s+of\b)(?:[:,]?\s+\S|\s*$)", re.IGNORECASE)
_WISH = re.compile(
    r"\b(?:please|i want|i need|i'd like|can you|could you|tell me|give me|show me|bitte|por favor|"
    r"s'il (?:vous|te) pla[iî]t|пожалуйста)\b|请|請|总结|總結|要約|まとめ|教えて|ください|요약|알려",
    re.IGNORECASE,
)
_ASKER = re.compile(rf"{_LEAD}(?:{'|'.join(_ASKERS.split())})\s+\w", re.IGNORECASE)
_QUESTION = re.compile(r"[?？؟][\"'”’)\]*_]*(?:\s|$)")
_SENTENCES = re.compile(r"(?<=[.!?])\s+")
_SPEAKER = re.compile(r"[\[(]?[\w.'-]{1,30}(?: [\w.'-]{1,30}){0,2}[\])]?\s?: ")
_DATA = re.compile(r"[\[(<]?\d|[{}\[\]|<>#@$\\/]|\"")
_CODE = re.compile(r"\w\(|[-=]>|==| = |\w_\w|[;{}]$|(?:import|def|class|function|const|var)\s")
_MARK = re.compile(r"(?:[-*•]|\(?\d{1,3}[.)]|\*\*)\s*")
LABEL = re.compile(
    r"(?:#{1,6}\s*|\*\*|\[|-{3,} ?|={3,} ?)?(?:begin|end|the|my|relevant|retrieved|provided)?[ _]?"
    r"(?:context|document|text|data|log|input|content|transcript|article|source|code|passage|file)s?"
    r"(?: \d{1,3}| start| end| begin| information is below\.?)?(?:\*\*|\])?:?(?:\*\*| ?-{3,}| ?={3,})?",
    re.IGNORECASE,
)
"""A line that says that a text begins or ends."""
CAPITALS = re.compile(r"\W*[A-Z][A-Z _]{2,40}\W*")
INTRO = re.compile(
    r"(?:here|below|above|attached|this|these|the|following|i|we|my|our|see|hi|hello|hey|dear|context|text|"
    r"document|data|log|logs|code|article|transcript|input|content|email|source|hallo|hola|bonjour|ciao)\b",
    re.IGNORECASE,
)
THANKS = re.compile(
    r"\W*(?:many )?(?:thanks|thank you|thx|cheers|danke|merci|gracias)\b.{0,60}", re.IGNORECASE
)


def asks(line: str) -> bool:
    """Whether a line is a request of a person's, as far as it can be seen."""
    asked = _MARK.sub("", line.strip(), count=1)
    if MARKER.match(line.strip()) and len(line) <= LINE:
        return True
    if not _is_wordy(line) or line.startswith(("    ", "\t")) or _SPEAKER.match(asked):
        return False
    if _QUESTION.search(asked):
        return True
    if _CODE.search(asked):
        return False
    sentences = _SENTENCES.split(asked)
    return bool(any(map(_VERB.match, sentences)) or _ASKER.match(asked) or _WISH.search(asked))


def is_prose(line: str) -> bool:
    """Whether a line is of words, and neither data nor code."""
    return _is_wordy(line) and not _CODE.search(line.strip())


def _is_wordy(line: str) -> bool:
    line = _MARK.sub("", line.strip(), count=1)
    if not line or len(line) > LINE or "\t" in line or _DATA.match(line):
        return False
    return sum(one.isalpha() or one in " ,.?!'’" for one in line) >= 0.75 * len(line)


def is_marked(text: str) -> bool:
    """Whether a line of a text says that a request follows."""
    return any(MARKER.match(line.strip()) for line in text.splitlines())


def is_label(line: str) -> bool:
    """Whether a line says that something begins or ends: `Context:`, `## Log`, `[SYSTEM INSTRUCTION]`."""
    line = line.strip()
    if len(line) > LINE:
        return not line.strip("-=*_~")
    named = LABEL.fullmatch(line) and (line[-1] in ":*-=].#" or line[0] in "#*-=[" or line.isupper())
    return bool(named or CAPITALS.fullmatch(line) or not line.strip("-=*_~"))
