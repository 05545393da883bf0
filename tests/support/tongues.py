"""Texts of many languages, and the encodings that they are written in, for tests of how encodings are told
apart.
"""

TONGUES: dict[str, tuple[tuple[str, ...], str]] = {
    "German": (
        ("cp1252", "cp850", "mac_roman", "utf-16-le"),
        "Die Prüfung der Geräte läuft über Nacht. Bitte schließen Sie alle Türen, und öffnen Sie das große "
        "Fenster nicht, weil es für die "
        "Messung zu kühl würde. Größere Störungen hört man früh; kleine fallen erst später auf. Müller und "
        "Bäcker grüßen.\n",
    ),
    "French": (
        ("cp1252", "cp850", "mac_roman", "utf-16-be"),
        "Le relevé a été vérifié après la fermeture. Les élèves ont déjà reçu leurs résultats, mais l’école "
        "n’a pas encore répondu à la "
        "lettre que nous avions envoyée à Noël. Ça ne me gêne guère : où que tu sois, le même problème se "
        "répète là-bas.\n",
    ),
    "Spanish": (
        ("cp1252", "cp850", "mac_roman"),
        "La sesión terminó mañana por la tarde según el informe. ¿Cuándo llegará el camión? El niño pidió "
        "más información sobre el "
        "próximo año, y su corazón latía rápido. Aquí está la dirección: calle Núñez, número tres, también "
        "conocida.\n",
    ),
    "Portuguese": (
        ("cp1252", "cp850"),
        "A reunião não começou à hora prevista, e a decisão será tomada amanhã. Há três opções: a primeira "
        "é difícil, a segunda já está "
        "em execução, e ninguém conhece a última. O coração da questão são as informações que você não lê.\n",
    ),
    "Italian": (
        ("cp1252", "cp850"),
        "Perché la città è così bella? È già tardi, e più tardi sarà impossibile. Il caffè è pronto, però "
        "nessuno può berlo: la qualità "
        "non è quella di lunedì. La società pagherà la metà del debito e ciò che resta si vedrà.\n",
    ),
    "Swedish": (
        ("cp1252", "cp850"),
        "Hela natten blåste det från sjön, och på morgonen låg båtarna långt uppåt land. Någon måste räkna "
        "skadorna. Är det möjligt att "
        "få hjälp före lördag? Vi behöver åtta män för att flytta de största stenarna åt höger.\n",
    ),
    "Danish": (
        ("cp1252", "cp850"),
        "På den anden side af gården står der en gammel møllebygning. Børnene løber op ad stien, når det er "
        "tørt, og ser ud over søen. "
        "Ærlig talt ved jeg ikke, hvornår døren blev låst første gang, men nøglen hænger i køkkenet.\n",
    ),
    "Finnish": (
        ("cp1252",),
        "Järven jäällä käveli eilen illalla kaksi miestä. He eivät nähneet mitään, mutta kuulivat äänen "
        "metsän reunasta. Tämä päivä on "
        "lämmin, ja työ jää tekemättä, jos kukaan ei lähde hyvissä ajoin. Hyvää yötä, sanoi äiti.\n",
    ),
    "Icelandic": (
        ("cp1252",),
        "Það var gott veður þegar þau fóru út á fjörðinn. Enginn vissi hvað þeir ætluðu að gera við bátinn, "
        "því að hann var orðinn "
        "gamall. Við sáum ljósið í húsinu og heyrðum að einhver söng. Ég á þessa bók, sagði hún.\n",
    ),
    "Polish": (
        ("cp1250", "iso8859_2", "cp852"),
        "Wczoraj wieczorem pociąg spóźnił się o godzinę, więc wróciliśmy do domu pieszo. Ktoś zostawił pod "
        "drzwiami książkę, której nikt "
        "nie zamówił. Może być, że należała do sąsiada; on zawsze coś gubi. Żółty parasol też już nie "
        "wróci. Łódź płynie.\n",
    ),
    "Czech": (
        ("cp1250", "iso8859_2", "cp852"),
        "Včera večer jsme šli domů pěšky, protože poslední vlak už odjel. Někdo nechal přede dveřmi knihu, "
        "kterou nikdo nečekal. Možná "
        "patřila sousedovi, který vždycky něco ztratí. Říkal, že se příště vrátí dřív. Žádný strach, účet "
        "je zaplacený.\n",
    ),
    "Slovak": (
        ("cp1250", "iso8859_2"),
        "Včera večer sme išli domov peši, pretože posledný vlak už odišiel. Niekto nechal pred dverami "
        "knihu, ktorú nikto nečakal. Ľudia "
        "hovoria, že patrila susedovi, ktorý vždy niečo stratí. Ďalší deň prišiel účet, a bol väčší než "
        "predtým.\n",
    ),
    "Hungarian": (
        ("cp1250", "iso8859_2", "cp852"),
        "Tegnap este gyalog mentünk haza, mert az utolsó vonat már elindult. Valaki egy könyvet hagyott az "
        "ajtó előtt, amelyet senki sem "
        "várt. Lehet, hogy a szomszédé volt, aki mindig elveszít valamit. Később ő is eljött, és újra "
        "kérte. Fűtés nélkül hűvös.\n",
    ),
    "Romanian": (
        ("cp1250", "iso8859_2"),
        "Aseară am mers acasă pe jos, pentru că ultimul tren plecase deja. Cineva a lăsat în faţa uşii o "
        "carte pe care nimeni nu o "
        "aştepta. Poate că era a vecinului, care pierde mereu câte ceva. Şi în oraş s-a întâmplat acelaşi "
        "lucru: toată lumea căuta.\n",
    ),
    "Turkish": (
        ("cp1254",),
        "Dün akşam eve yürüyerek döndük, çünkü son tren çoktan kalkmıştı. Birisi kapının önüne kimsenin "
        "beklemediği bir kitap bırakmış. "
        "Belki komşunundu; o hep bir şey kaybeder. Işığı söndürdüğümüzde dışarıda yağmur başlamıştı. İyi "
        "geceler, dedi ağabeyim.\n",
    ),
    "Lithuanian": (
        ("cp1257",),
        "Vakar vakare grįžome namo pėsčiomis, nes paskutinis traukinys jau buvo išvažiavęs. Kažkas prie "
        "durų paliko knygą, kurios niekas "
        "nelaukė. Gal ji buvo kaimyno, kuris visada ką nors pameta. Šiandien žmonės ieško jos visur, tačiau "
        "dar nerado.\n",
    ),
    "Russian": (
        ("cp1251", "koi8_r", "cp866", "iso8859_5", "utf-16-le"),
        "Вчера вечером мы шли домой пешком, потому что последний поезд уже ушёл. Кто-то оставил у двери "
        "книгу, которую никто не ждал. "
        "Может быть, она принадлежала соседу: он всегда что-нибудь теряет. Ошибка: файл не найден, "
        "проверьте имя и права доступа.\n",
    ),
    "Ukrainian": (
        ("cp1251", "koi8_u"),
        "Учора ввечері ми йшли додому пішки, бо останній потяг уже поїхав. Хтось залишив біля дверей "
        "книжку, якої ніхто не чекав. Може, "
        "вона належала сусідові, що завжди щось губить. Її знайшли аж наступного дня, і є надія, що "
        "господар повернеться.\n",
    ),
    "Bulgarian": (
        ("cp1251",),
        "Снощи вървяхме пеша към къщи, защото последният влак вече беше заминал. Някой беше оставил пред "
        "вратата книга, която никой не "
        "очакваше. Може би беше на съседа, който винаги губи нещо. Днес търсят човека навсякъде, но още не "
        "са го открили.\n",
    ),
    "Greek": (
        ("cp1253", "iso8859_7", "cp737"),
        "Χθες το βράδυ γυρίσαμε στο σπίτι με τα πόδια, γιατί το τελευταίο τρένο είχε ήδη φύγει. Κάποιος "
        "άφησε μπροστά στην πόρτα ένα "
        "βιβλίο που δεν το περίμενε κανείς. Ίσως ήταν του γείτονα, που πάντα χάνει κάτι. Ώρα να "
        "κοιμηθούμε.\n",
    ),
    "Hebrew": (
        ("cp1255", "cp862"),
        "אתמול בערב הלכנו הביתה ברגל, כי הרכבת האחרונה כבר יצאה. מישהו השאיר ליד הדלת ספר שאף אחד לא חיכה "
        "לו. אולי הוא היה של השכן, "
        "שתמיד מאבד משהו. היום מחפשים אותו בכל מקום, ועדיין לא מצאו.\n",
    ),
    "Arabic": (
        ("cp1256",),
        "مشينا إلى البيت مساء أمس لأن القطار الأخير كان قد غادر. ترك أحدهم أمام الباب كتابا لم ينتظره أحد. "
        "ربما كان للجار الذي يضيع شيئا "
        "كل يوم. بحثوا عنه اليوم في كل مكان ولم يجدوه بعد.\n",
    ),
    "Thai": (
        ("cp874",),
        "เมื่อคืนนี้เราเดินกลับบ้านเพราะรถไฟขบวนสุดท้ายออกไปแล้ว "
        "มีคนวางหนังสือไว้หน้าประตูโดยที่ไม่มีใครรออยู่ บางทีอาจเป็นของเพื่อนบ้านที่ทำของหายเสมอ\n",
    ),
    "Chinese": (
        ("gb18030", "utf-16-le", "utf-16-be"),
        "昨天晚上我们走路回家，因为最后一班火车已经开走了。有人在门口放了一本没有人等的书。也许是邻居的，他总是丢东西。今天大家到处找，还没有找到。\n",
    ),
    "Chinese, traditional": (
        ("big5",),
        "昨天晚上我們走路回家，因為最後一班火車已經開走了。有人在門口放了一本沒有人等的書。也許是鄰居的，他總是丟東西。今天大家到處找，還沒有找到。\n",
    ),
    "Japanese": (
        ("cp932", "euc_jp", "iso2022_jp", "utf-16-le"),
        "昨日の夜は最後の電車がもう出てしまったので、歩いて家に帰りました。だれかがドアの前に本を置いていきました。いつも何かをなくす隣の人のものかもしれません。"
        "エラー：ファイルが見つかりません。\n",
    ),
    "Korean": (
        ("cp949", "utf-16-le"),
        "어제 저녁에 마지막 기차가 이미 떠났기 때문에 우리는 걸어서 집으로 돌아왔습니다. 누군가 문 앞에 아무도 기다리지 않은 책을 두고 "
        "갔습니다. 아마 늘 무엇인가를 잃어버리는 이웃의 것일지도 모릅니다.\n",
    ),
}


def writable(text: str, encoding: str) -> str:
    """The text with what the encoding lacks replaced: typewriters' quotation marks, and letters without their
    marks.
    """
    plain = text.translate({0x2019: "'", 0x2014: "-"})
    for candidate in (text, plain):
        try:
            candidate.encode(encoding)
        except UnicodeEncodeError:
            continue
        return candidate
    return plain.encode(encoding, "ignore").decode(encoding)
