"""How likely a text is that a code page has made of bytes: by the letters of languages, the places of signs,
and frequent words.

Only characters beyond ASCII are judged, as all code pages agree about the others. A score is a natural
logarithm of a likelihood, so the scores of two readings of the same bytes can be compared, also where one of
them takes two bytes for a character.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from functools import cache, lru_cache

_LETTERS = {
    # Each group of letters is half as frequent as the one before it.
    "de": "ü äö ß",
    "fr": "é è àê ç ôûîùâ ïœë",
    "es": "óíá éñ úü ºª",
    "pt": "ã çáé íóê õâ úàôºª",
    "it": "è àù òì é",
    "nl": "ë éï öüè",
    "sv": "äå ö é",
    "da": "øå æ é",
    "fi": "ä ö å",
    "is": "íáð öþó æé ýú",
    "ca": "é àí óèç òúï ·",
    "en": "é ïöü èçñáíó øåäêàæãôëðîâûúýœ",
    "et": "äü õö šž",
    "pl": "ę łąó żść ńź",
    "cs": "íáé ěřý čšžů úň ťďó",
    "sk": "áíé ýčšž ľúť ôňďä óŕĺ",
    "hu": "éá őöó íü űú",
    "ro": "ă ţşîâ",
    "hr": "čš žć đ",
    "sq": "ë ç",
    "lt": "ė ųžš įū čąę",
    "lv": "āī šē žļņū čķģ",
    "tr": "ı üşç ğö İ âîû",
    "az": "ə ıüş çğö İ",
    "vi": "đàáư ơôêâă ̣̀́ ̉̃ìíòóùúéèýãõũ",
    "ru": "оеаинтсрвл кмдпуяы ьгзбчйхж юшцщэ фъё",
    "uk": "оанитвієерсклу дмпзяьбг йчхжї цшюєщ фґ",
    "bg": "аиоетнрсвлкд пмзгуъя бчщйхж цшюьф",
    "sr": "аиоенрсјту двкмплз љњћчшжбг џђцхф",
    "el": "αοιετσνηυρ πκμλςίόάέ ωήθγδύχ φβώζξψ ϊϋΐΰ",
    "he": "יולאה רתבמשנד חקפע כםצסטגזן ךףץ",
    "ar": "الينمو تربدعه سكفقحةأج شصطخىذضزثغئإءآظؤ",
    "fa": "اینرد هموتبش سکزلخفگ قحعپجآصچط ذضغظثژئيك",
    "th": "านรกเองมยลว ดทสต ะปบคหแพจ็ชขใไโ ิีัุู่้์ผซฟภณศษธญถฉฐำืึๆฯ",
}
_WORDS = {
    "de": "der die das und ist nicht mit von auf ein eine den zu im für als auch bei nach",
    "fr": "le la les des une est et dans pour que qui sur pas avec par du au ce sont",
    "es": "el los las del una que por con para es en como pero este fue se al",
    "pt": "os as dos das uma que por com para em no na como mais foi se ao",
    "it": "il gli della che di per con una non sono del nel alla dei come",
    "nl": "het een van en niet met voor zijn dat op te aan ook bij",
    "sv": "och att det som en av den med inte har om ett var",
    "da": "og det at en den til er som af med ikke der har et jeg",
    "fi": "ja on ei se oli ett kun mutta hän joka ovat",
    "is": "og er að það sem var ekki um til frá",
    "ca": "els les una que per amb del dels es va com en",
    "en": "the and of to in is for that with was from not on are this by at be error failed user",
    "et": "ja on ei see kui oma ning aga ka",
    "pl": "nie na jest do to z w i o od po jak ale dla przez",
    "cs": "je se na v to s z do jako ale pro od by jsem po",
    "sk": "je sa na v to s z do ako ale pre od by som po",
    "hu": "a az egy nem is hogy meg van volt csak ez de",
    "ro": "de la un cu nu pe este din care o mai pentru",
    "hr": "je se na u i da su od za ne kao bi ali iz",
    "sq": "dhe e i me se nga ka per nuk",
    "lt": "ir kad yra buvo su bet kaip tai iš",
    "lv": "un ir no ar ka uz par bet tas",
    "tr": "bir ve bu da de ile olarak olan daha var",
    "az": "bir bu da olan ilə",
    "vi": "trong cho khi theo con hai sau ra",
}
SCRIPTS = dict.fromkeys(("ru", "uk", "bg", "sr"), "CYRILLIC") | dict.fromkeys(("ar", "fa"), "ARABIC")
SCRIPTS |= {"el": "GREEK", "he": "HEBREW", "th": "THAI"}
"""Languages that are not written in Latin letters."""
_KNOWN = frozenset({"LATIN", "COMBINING", *SCRIPTS.values()})
_SIMPLIFIED = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动"
    "面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头"
    "文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更"
    "别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难"
    "且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笔录错误系统请求用户登录失败成功文件数据服务器连接"
    "姓名城市金额京伟芳李娜广州刘陈杨黄赵周吴徐孙朱何林郭罗梁宋郑谢韩唐冯董萧上海深圳价格日期地址电话号码订单客户产品数量合计备注元部门职务年龄性别"
)
_TRADITIONAL = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用道行所然家種事成方多經麼去法學如都同現當沒動"
    "面起看定天分還進好小部其些主樣理心她本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最重並物手應戰向頭"
    "文體政美相見被利什二等產或新己制身果加西斯月話合回特代內信表化老給世位次度門任常先海通教兒原東聲提立及比員解水名真論處走義各入幾口認條平系氣題活爾更"
    "別打女變四神總何電數安少報才結反受目太量再感建務做接必場件計管期市直德資命山金指克許統區保至隊形社便空決治展馬科司五基眼書非則聽白卻界達光放強即像難"
    "且權思王象完設式色路記南品住告類求據程北邊死張該交規萬取拉格望覺術領共確傳師觀清今切院讓識候帶導爭運錄錯誤統請用戶登失敗功檔案資料服務器連線"
    "姓名城市金額京偉芳李娜廣州劉陳楊黃趙周吳徐孫朱林郭羅梁宋鄭謝韓唐馮董蕭臺灣台價期址號碼訂單客量計備註元職齡"
)
_KANJI = (
    "日一国人年大十二本中長出三時行見月後前生五間上東四今金九入学高円子外八六下来気小七山話女北午百書先名川千水半男西電校語土木聞食車何南万毎白天母火右読"
    "友左休父雨会同事自社発者地業方新場員立開手力問代明動京目通言理体田主題意不作用度強公持野以思家世多正安院心界教文元重近考画海売知道集別物使品計死特私"
    "始朝運終台広住無真有口少町料工建空急止送切転研足究楽起着店病質待試族銀早映親験英医仕去味写字答夜音注帰古歌買悪図週室歩風紙黒花春赤青館屋色走秋夏習"
    "駅洋旅服夕借曜飲肉貸堂鳥飯勉冬昼茶弟牛魚兄犬妹姉漢都府県市区村太郎鈴花佐藤鈴木高橋伊藤渡辺中村小林加藤吉田山本阪失敗成功接続処理完了設定対象確認情報部"
)
_HANGUL = (
    "이다의는에을가한고지로하사기인은자리어를대시아나정도들일수부제해전서그보라여조상원과구주장관스생성있었였것적만면세동유경국공안비서신오화문미연소중실"
    "음않내물입개계용치발방선러마위습니까합결재등분반현진당모간체회분명단통학교없각더말게데영우영년월일행행특별산거름금최본요청처양민법트드르크프그바차외점직"
    "류파후무업저식야박김남북불루래심알활속품건권목형두번령때같된될할받된출력버튼록값색검류오류서버연결성공실패사용자로그인파일저장완료시작종료확인오늘내일"
)
_RARE, _STRANGE = -8.0, -14.0
"""Of a letter that the language does not have; of a character of another kind of text, or of none."""
_SIGN = {"after_digit": "°º%‰²³½¼¾ª€£¥¢₽₴¹", "before_digit": "€£¥¢§±№×µ÷≈≤≥¤₽₴", "letter": "’‘´"}
_OPENING, _CLOSING = "“„«‘‹‚»¿¡", "”“»’›…«‘™®²³"
_DASHES, _FREE = "–—•·×±÷→■●§©®™№¤≈≤≥¬¦†‡¶", "\xa0\xad"
_LONE = "àèéóòåöáíæüêôùâïеияовскуіаєїόηο"
_TOKEN = re.compile(r"[a-z]+")
_BEYOND = re.compile("[^\x00-\x7f]")


@cache
def _weights(language: str) -> dict[str, float]:
    groups = _LETTERS[language].split()
    raw = {letter: 0.5**number for number, group in enumerate(groups) for letter in group}
    whole = sum(raw.values())
    return {letter: math.log(0.9 * weight / whole) for letter, weight in raw.items()}


@cache
def _words() -> dict[str, list[str]]:
    """ASCII words to their languages."""
    found: dict[str, list[str]] = {}
    for language, words in _WORDS.items():
        for word in words.split():
            found.setdefault(word, []).append(language)
    return found


@cache
def common() -> dict[str, float]:
    """Characters of East Asia: of each by its own list the frequent ones."""
    lists = {
        char: math.log(0.6 / len(set(chars)))
        for chars in (_SIMPLIFIED, _TRADITIONAL, _KANJI)
        for char in chars
    }
    return lists | dict.fromkeys(_HANGUL, math.log(0.75 / len(set(_HANGUL))))


@cache
def _usual(encoding: str) -> frozenset[str]:
    """The ideographs that the encoding's standard calls the usual ones."""
    lead, codec = {
        "cp932": (range(0xB0, 0xD0), "euc_jp"),
        "euc_jp": (range(0xB0, 0xD0), "euc_jp"),
        "big5": (range(0xA4, 0xC7), "big5"),
    }.get(encoding, (range(0xB0, 0xD8), "gb2312"))
    pairs = (bytes((high, low)) for high in lead for low in range(0x40 if codec == "big5" else 0xA1, 0xFF))
    return frozenset("".join(pair.decode(codec, "ignore") for pair in pairs))


@cache
def script(char: str) -> str:
    """LATIN, CYRILLIC, CJK …; of what is no letter SIGN, of box drawing BOX, of what is no text "" ."""
    kind = unicodedata.category(char)
    if kind in ("Cc", "Cn", "Co", "Cs") or char == "\N{REPLACEMENT CHARACTER}":
        return ""
    name = unicodedata.name(char, "")
    if name.startswith(("BOX DRAWINGS", "LIGHT SHADE", "MEDIUM SHADE", "DARK SHADE", "FULL BLOCK")):
        return "BOX"
    first = name.split(" ", 1)[0]
    if kind[0] not in "LM" or char in "ºªµ":
        return "WIDE" if first in ("IDEOGRAPHIC", "FULLWIDTH") or "\u3000" <= char <= "\u303f" else "SIGN"
    return "LATIN" if first == "FEMININE" else first


def score(text: str, encoding: str) -> tuple[float, str, int]:
    """How likely the text is, its language, and how many characters were judged.

    `encoding`: what it was read as.
    """
    fixed = 0.0
    letters: Counter[str] = Counter()
    count = 0
    for found in _BEYOND.finditer(text):
        at = found.start()
        value, letter = _judged(
            found.group(), text[at - 1 : at] or "\n", text[at + 1 : at + 2] or "\n", encoding
        )
        count += 1
        fixed += value
        if letter:
            letters[letter] += 1
    by_letters, language = _by_language(letters, text)
    return fixed + by_letters, language, count


@lru_cache(1 << 15)
def _judged(char: str, before: str, after: str, encoding: str) -> tuple[float, str]:
    """What a character counts where it stands, and which letter it is, if its language tells more."""
    kind = script(char)
    if kind in _JUDGES:
        return _JUDGES[kind](char, before, after, encoding), ""
    if kind in ("", "SIGN", "BOX"):
        return _sign(char, before, after, kind), ""
    if kind not in _KNOWN:
        return _STRANGE, ""
    return _place(char, before, after, kind), char.lower() if char != "İ" else char


def _by_language(letters: Counter[str], text: str) -> tuple[float, str]:
    scripts = Counter(script(letter) for letter in letters.elements())
    main = scripts.most_common(1)[0][0] if scripts else "LATIN"
    hits: Counter[str] = Counter()
    if main == "LATIN":
        known = _words()
        for token in _TOKEN.findall(text[:20_000].lower()):
            for language in known.get(token, ()):
                hits[language] += 1
    best = (-math.inf, "")
    for language in _LETTERS:
        if SCRIPTS.get(language, "LATIN") != main:
            continue
        weights = _weights(language)
        value = sum(number * weights.get(letter, _RARE) for letter, number in letters.items())
        best = max(best, (value + min(6.0, float(hits[language])), language))
    return best if best[1] else (sum(letters.values()) * _RARE, "")


def _place(char: str, before: str, after: str, kind: str) -> float:
    """Whether a letter can stand there."""
    value = -2.7 if char.isupper() else -0.1
    left, right = before.isalpha(), after.isalpha()
    for near, there in ((before, left), (after, right)):
        if there and script(near) not in (kind, "SIGN"):
            value -= 6.0
    if char.isupper() and before.islower():
        value -= 4.0
    if char.islower() and left and before.isupper() and after.isupper():
        value -= 3.0
    if kind == "LATIN" and right and after > "\x7f":
        value -= 2.0
    if not left and not right and kind == "LATIN" and char.lower() not in _LONE:
        value -= 3.0
    if right and char in "ךםןףץς":  # they end a word
        value -= 4.0
    if before.isdigit() or (after.isdigit() and not left):
        value -= 2.0
    return value


def _sign(char: str, before: str, after: str, kind: str) -> float:
    """Whether a sign can stand there."""
    if not kind:
        return _STRANGE
    left, right = before.isalpha(), after.isalpha()
    if kind == "BOX":
        return -12.0 if left or right else -1.0 if char in (before, after) else -4.5
    number = after.isdigit() or before.isdigit()
    if char in "’'´`‘" and left and right:
        return -2.0 if char == "’" else -5.0
    if char in _FREE:
        return -4.0 if char == "\xad" and not (left and right) else -2.5
    if (char in _SIGN["after_digit"] and (before.isdigit() or (before in " \n\xa0" and not right))) or (
        char in _SIGN["before_digit"] and (after.isdigit() or (after in " \n\xa0" and not left))
    ):
        return -2.5
    if char == "µ" and right and not left:
        return -2.5
    if char in _OPENING and not left and not before.isdigit() and (right or number or after > "\x7f"):
        return -2.5
    if (
        char in _CLOSING
        and not right
        and not after.isdigit()
        and (left or before in ".,!?)…%" or number or before > "\x7f")
    ):
        return -2.5
    if char in _DASHES and left == right and not left:
        return -2.5 if char in "–—" else -4.0
    if char in "–—·" and left and right:
        return -5.0
    if char in "²³¹" and left and not right:
        return -3.0
    return -5.5 if not left and not right else -8.0


def _ideograph(char: str, before: str, after: str, encoding: str) -> float:
    known = common().get(char) if encoding != "cp949" else -11.0  # Korean has few of them any more
    value = known if known is not None else -9.5 if char in _usual(encoding) else -12.5
    if char > "\u9fff" or char < "\u4e00":
        value -= 4.0
    return value - _in_word(before, after)


def _in_word(before: str, after: str) -> float:
    """What it costs to stand in a word of Latin letters."""
    return 4.0 * (before.isascii() and before.islower()) + 4.0 * (after.isascii() and after.islower())


def _kana(char: str, before: str, after: str, encoding: str) -> float:
    return (
        -4.0 - _in_word(before, after) - (3.0 if encoding not in ("cp932", "euc_jp", "iso2022_jp") else 0.0)
    )


def _halfwidth(char: str, before: str, after: str, encoding: str) -> float:
    alone = sum(
        not ("\uff61" <= side <= "\uff9f" or (side.isascii() and not side.isalpha()))
        for side in (before, after)
    )
    return -4.0 - 4.0 * alone - _in_word(before, after)


def _hangul(char: str, before: str, after: str, encoding: str) -> float:
    return common().get(char, -9.0) - _in_word(before, after)


def _wide(char: str, before: str, after: str, encoding: str) -> float:
    return -4.5 - _in_word(before, after)


_JUDGES = {
    "CJK": _ideograph,
    "HIRAGANA": _kana,
    "KATAKANA": _kana,
    "KATAKANA-HIRAGANA": _kana,
    "HALFWIDTH": _halfwidth,
}
_JUDGES |= {"HANGUL": _hangul, "WIDE": _wide}
