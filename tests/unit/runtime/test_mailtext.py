"""Mail: headers, text and attachments of a message as a reader of mail shows them; the messages of a mailbox, from
which `records` gives each; what is broken or sealed costs itself, and is told.
"""

from __future__ import annotations

import email
import email.message
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import forms, mailtext
from rlm_runtime.unpacking import Unreadable

from tests.support.filekinds import pdf, sheet_rows, workbook, zipped
from tests.support.growth import LIMIT, growth
from tests.support.reading import Reader

HEAD = b"From: a@x.org\nTo: b@x.org\nSubject: S\n"


def body(data: bytes) -> str:
    return mailtext.mail(HEAD + data).text.partition("\n\n")[2]


def test_the_name_of_an_attachment_that_is_not_encoded_is_read(read: Reader) -> None:
    head = "From: a@b.c\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nhello\n--x\nContent-Disposition: attachment;"
    for name in ("ciële.txt", '"Übersicht 1.txt"'):
        found = read("a.eml", f"{head}\n filename={name}\n\nHi\n--x--\n".encode())
        assert [label for label, _ in found.parts] == [name.strip('"')]


def test_a_message_is_its_headers_its_text_and_its_attachments(read: Reader) -> None:
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["From"] = "Zoë Müller <zoe@example.org>"
    message["To"] = "Ada <ada@example.org>, bo@example.org"
    message["Date"] = "Tue, 02 Jan 2024 03:04:05 +0100"
    message["Subject"] = "Größe der Pumpe: " + "sehr lang " * 12
    message["Message-ID"] = "<1@example.org>"
    message["Received"] = "from nobody"
    message.set_content("Plain: café\n")
    message.add_alternative("<p>HTML: café</p>", subtype="html")
    message.add_attachment(b"x,y\n1,2\n", maintype="text", subtype="csv", filename="Zahlen für Bo.csv")
    message.add_attachment(pdf("from pdf"), maintype="application", subtype="pdf", filename="a.pdf")
    book = workbook({"A": sheet_rows([["x"]]), "B": sheet_rows([["y"]])})
    message.add_attachment(book, maintype="application", subtype="octet-stream", filename="b.xlsx")
    message.add_attachment(b"\x89PNG\r\n\x1a\n", maintype="image", subtype="png", filename="logo.png")
    message.add_attachment(b"%PDF-1.4 broken", maintype="application", subtype="pdf", filename="bad.pdf")
    found = read("m.eml", bytes(message))
    texts = {label: str(part.text) for label, part in found.named("m.eml")}
    assert texts.pop("m.eml").split("\n") == [
        "From: Zoë Müller <zoe@example.org>",
        "To: Ada <ada@example.org>, bo@example.org",
        "Date: 2024-01-02T03:04:05+01:00",
        "Subject: Größe der Pumpe: " + ("sehr lang " * 12).strip(),
        "Message-ID: <1@example.org>",
        "Attachment: Zahlen für Bo.csv (text/csv, 8 bytes)",
        f"Attachment: a.pdf (application/pdf, {len(pdf('from pdf')):,} bytes)",
        f"Attachment: b.xlsx (application/octet-stream, {len(book):,} bytes)",
        "Attachment: logo.png (image/png, 8 bytes)",
        "Attachment: bad.pdf (application/pdf, 15 bytes)",
        "",
        "Plain: café",
    ]
    assert texts == {
        "m.eml/Zahlen für Bo.csv": "x,y\n1,2\n",
        "m.eml/a.pdf": "[page 1]\nfrom pdf",
        "m.eml/b.xlsx/A": "x\n",
        "m.eml/b.xlsx/B": "y\n",
    }
    assert "attachment bad.pdf left out" in found.note()
    assert "logo" not in found.note()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("Content-Type: text/plain; charset=utf-8\n\ncafé".encode("latin-1"), "café"),
        ("Content-Type: text/plain; charset=iso-8859-1\n\ncafé".encode(), "café"),
        (b"Content-Type: text/plain; charset=iso-8859-1\n\n\x93quoted\x94 \x80", "“quoted” €"),
        (b"Content-Type: text/plain; charset=no-such\n\nplain", "plain"),
        (b"Content-Type: text/plain; charset=\"\"\n\nplain", "plain"),
        ("Content-Type: text/plain; charset=gb2312\n\n镕基".encode("gb18030"), "镕基"),
        ("Content-Type: text/plain; charset=iso-2022-jp\n\n日本".encode("iso-2022-jp"), "日本"),
        (b"Content-Transfer-Encoding: quoted-printable\n\na=3Db=\nc =ZZ =C3=A9", "a=bc =ZZ é"),
        (b"Content-Transfer-Encoding: base64\n\naGVs\nbG8*=", "hello"),
        (b"Content-Transfer-Encoding: x-unknown\n\nas it is", "as it is"),
        (b"Content-Type: text/html\n\n<p>one</p><p>two</p>", "one\ntwo"),
        (b"Content-Type: nonsense\n\ntext", "text"),
        (b"Content-Type: multipart/alternative\n\nno boundary", "no boundary"),
        (b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\none\n--x\n\ntwo", "one\n\ntwo"),
        (b"Content-Type: multipart/mixed; boundary=x\n\n--x--\n", ""),
        (
            b"Content-Type: multipart/alternative; boundary=x\n\n--x\n\nThis is HTML.\n--x\nContent-Type: text/html\n\n<p>"
            + b"The whole text. " * 40 + b"</p>\n--x--\n",
            ("The whole text. " * 40).strip(),
        ),
        (
            b"Content-Type: message/rfc822\n\nFrom: inner@x.org\nSubject: In\n\ndeep",
            "[attached message]\nFrom: inner@x.org\nSubject: In\n\ndeep\n[end of the attached message]",
        ),
    ],
)  # fmt: skip
def test_text_is_read_whatever_a_message_says_of_it(data: bytes, shown: str) -> None:
    assert body(data) == shown


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (b"=?utf-8?q?caf=C3=A9?= =?utf-8?b?w6k=?=", "caféé"),
        (b"=?utf-8?b?w?= broken", "=?utf-8?b?w?= broken"),
        (b"=?no-such?q?caf=E9?=", "café"),
        ("roh é".encode(), "roh é"),
        ("roh é".encode("latin-1"), "roh é"),
        (b"folded\r\n\t line\x07", "folded line"),
    ],
)  # fmt: skip
def test_headers_are_decoded_as_far_as_they_can_be(header: bytes, shown: str) -> None:
    assert f"Subject: {shown}\n" in mailtext.mail(b"From: a\nSubject: " + header + b"\nDate: bad\n\nx").text


def test_what_is_sealed_is_told() -> None:
    pgp = b"Content-Type: multipart/encrypted; boundary=x\n\n--x\n\nVersion: 1\n--x\n\n-----BEGIN PGP MESSAGE-----\n--x--\n"
    mime = (
        b'Content-Type: application/pkcs7-mime; name="smime.p7m"\nContent-Transfer-Encoding: base64\n\nAAAA'
    )
    for data, kind in ((pgp, "PGP"), (mime, "S/MIME"), (b"\n-----BEGIN PGP MESSAGE-----\nx", "PGP")):
        (note,) = mailtext.mail(HEAD + data).notes
        assert kind in note


def test_odd_files_of_mail_are_read_or_told(read: Reader) -> None:
    apple = b"40        \n" + HEAD[:39] + b"\n" + b"<?xml?><plist/>"
    assert "plist" not in str(read("a.emlx", apple).text)
    found = read("a.eml", b"just a text")
    assert (str(found.text), found.note()) == (
        "just a text",
        "no mail, so it is read as it stands (it does not begin with headers)",
    )
    with pytest.raises(Unreadable, match=r"a\.msg: .* Save it as \.eml"):
        read("a.msg", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    deep = HEAD
    for number in range(60):
        deep += b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (number, number)
    assert "parts deep" in mailtext.mail(deep + b"\nx").notes[0]


BOX = (
    b"From a@x.org Mon Jan  1 00:00:00 2024\n"
    b"From: a@x.org\nTo: b@x.org\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nSubject: one\nMessage-ID: <1>\nContent-Length: 9999\n\n"
    b">From the start\n>>From deeper\n=== message 2 ===\n\nFrom here on it is prose.\n\nFrom there 10:00 2024 no header follows\n\n"
    b"From b@x.org Mon Jan  1 00:00:01 2024\nFrom: b@x.org\nIn-Reply-To: <1>\nSubject: two\n"
    b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\nhello\n--x\nContent-Disposition: attachment; filename=a.bin\n\n"
    b"1234\n--x--\n\nFrom - Mon Jan  1 00:00:02 2024\nSubject: three\n\nbye\n"
)  # fmt: skip


def test_messages_of_a_mailbox_are_records(read: Reader) -> None:
    for name in ("all.mbox", "Inbox"):
        text = str(read(name, BOX).text)
        rows = forms.records(text)
        assert [row["subject"] for row in rows] == ["one", "two", "three"]
        first = "From the start\n>From deeper\n=== message 2 ===\n\nFrom here on it is prose.\n\nFrom there 10:00 2024 no"
        assert rows[0]["text"].startswith(first)
        assert rows[0] == {
            "message": 1, "from": "a@x.org", "to": "b@x.org", "cc": "", "bcc": "", "reply_to": "",
            "date": "2024-01-01T00:00:00+00:00", "subject": "one", "message_id": "<1>", "in_reply_to": "", "references": "",
            "attachments": [], "text": rows[0]["text"],
        }  # fmt: skip
        assert (rows[1]["in_reply_to"], rows[1]["attachments"], rows[1]["text"]) == (
            "<1>",
            ["a.bin (text/plain, 4 bytes)"],
            "hello",
        )
    assert forms.form(text).startswith('mail with "message", "from", "to"')
    assert "=== message 3 ===" in str(read("a.zip", zipped({"all.mbox": BOX})).text)


def test_a_mailbox_that_is_one_message_or_too_large_is_told(read: Reader) -> None:
    assert forms.records(str(read("a.mbox", HEAD + b"\nhi").text))[0]["text"] == "hi"
    found = read("b.mbox", BOX * 50, 4000)
    assert "only its first" in found.note()
    assert len(found.text) <= 4000
    with pytest.raises(Unreadable, match="there is no message in it"):
        read("c.mbox", b"\n\n\n")


def test_a_message_that_breaks_its_reader_costs_itself(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = email.message_from_bytes

    def broken(data: bytes) -> object:
        if b"two" in data:
            raise AttributeError("odd")
        return parse(data)

    monkeypatch.setattr(email, "message_from_bytes", broken)
    found = read("a.mbox", BOX)
    assert [row["subject"] for row in forms.records(str(found.text))] == ["one", "[left out: odd]", "three"]
    assert "1 messages left out (message 2: odd)" in found.note()


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30)


@given(
    st.lists(
        st.tuples(
            LINES,
            st.lists(
                LINES | st.sampled_from(["=== message 2 ===", " === message 1 ===", "From x", ">From y", ""]),
                max_size=5,
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_into_a_mailbox_is_read_back(mails: list[tuple[str, list[str]]]) -> None:
    import io

    box = b""
    for subject, lines in mails:
        message = email.message.EmailMessage()
        message["Subject"] = subject
        message.set_content("\n".join(lines) + "\n", cte="8bit")
        quoted = b"\n".join(
            b">" + line if line.lstrip(b">").startswith(b"From ") else line
            for line in bytes(message).split(b"\n")
        )
        box += b"From a@x.org Mon Jan  1 00:00:00 2024\n" + quoted + b"\n\n"
    text, notes = mailtext.mailbox(io.BytesIO(box), 1 << 30)
    rows = list(
        mailtext.records(
            text.splitlines(keepends=True) if text.isascii() else [f"{line}\n" for line in text.split("\n")]
        )
    )
    assert [(row["subject"], row["text"]) for row in rows] == [
        (" ".join(subject.split()), "\n".join(lines).strip("\n")) for subject, lines in mails
    ]
    assert not notes


@given(st.binary(max_size=300))
def test_no_bytes_make_a_reader_of_mail_fail(data: bytes) -> None:
    mailtext.mail(b"Subject: x\n" + data)


def test_the_time_of_a_mailbox_grows_with_its_size() -> None:
    import io

    def make(size: int) -> io.BytesIO:
        return io.BytesIO(BOX * (size // len(BOX)))

    assert growth(make, lambda box: mailtext.mailbox(box, 1 << 30), 100_000) < LIMIT
