"""Who a mail says that it is from, read so that nobody can read it in another way.

Mail programs differ in what they make of a header that is not quite right, and
some show nothing of an author but the name. So this reads less than RFC 5322 3.4
allows, and what it does not read it refuses (`Unclear`): obsolete forms, groups,
routes, quotes and blanks within an address, address literals, and letters that only
look like an ``@``. What it does read has one meaning in every program.

A name, quoted, encoded (RFC 2047) or in a comment, is the person's own words and may
be any, also one that lies: but the only addresses in it may be those of the field.
Otherwise a program that shows the name alone, or that decodes it before it takes the
field apart, would show an address that nobody has judged.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from drain.filters.mime import words_of
from drain.header import LIMIT, Header
from drain.places import domain_key
from drain.text import clean

# RFC 5322 3.6.2 and 3.6.6.
FIELDS = ("From", "Sender", "Resent-From", "Resent-Sender")
_ONE_FIELD = frozenset({"From", "Sender"})
_ONE_MAILBOX = frozenset({"Sender", "Resent-Sender"})
# In bytes with its folding: what `words_of` decodes, and more than any name and address need.
_LONGEST = 1000
_MOST_FIELDS = 20

# RFC 5322 3.2.3, RFC 6532 3.2.
_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-"
_LOCAL = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_DOTTED = re.compile(rf"[{_ATEXT}.]+")
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\x80-\U0010ffff-]{0,61}[A-Za-z0-9_\x80-\U0010ffff])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# RFC 5321 4.5.3.1.
_LOCAL_OCTETS = 64
_ADDRESS_OCTETS = 254
# A mail server may follow them to somewhere else; see `drain.routing`.
_ROUTES = re.compile(r'[@%!"\\:]')

# Fields and nothing else: no blank before the colon, no folded line that is blank (RFC 5322 4.2, 4.5).
# And nothing that a program may take for the end of a line: Python's str.splitlines() does.
_NO_TEXT = rb"\r\n\0\x0b\x0c\x1c-\x1e"
_FOLDED = rb"[ \t]+[^ \t" + _NO_TEXT + rb"]"
# A line at a time: a possessive group within another loses its way before Python 3.11.5
# (https://github.com/python/cpython/issues/106052), and Debian 12 has 3.11.2.
_LINE = re.compile(rb"(?:[!-9;-~]+:|" + _FOLDED + rb")[^" + _NO_TEXT + rb"]*\r\n")
_BLANK = r"(?:[ \t]|\r\n[ \t])"
_TOKEN = re.compile(
    rf"(?P<blank>{_BLANK}++)"
    rf'|(?P<quoted>"(?:[^"\\\r\n]|\\["\\]|\r\n[ \t])*+")'
    rf"|(?P<word>[{_ATEXT}.@]++)"
    r"|(?P<special>[<>,])"
)
_IN_COMMENT = re.compile(rf"[^()\\\r\n]|\\[()\\]|{_BLANK}")
# In others, such as UTF-16, UTF-7 or EBCDIC, programs find different letters.
_CHARSETS = re.compile(
    r"utf-8|us-ascii|iso-8859-\d{1,2}|windows-125\d|cp125\d|koi8-[ru]|iso-2022-jp|shift_jis|euc-(?:jp|kr)"
    r"|gb2312|gbk|gb18030|big5|ks_c_5601-1987|tis-620|windows-874",
    re.IGNORECASE,
)
_ENCODED = re.compile(r"=\?([^?*\s]*)[^?\s]*\?")
_BETWEEN_WORDS = re.compile(r"[\s\"'(),;:\[\]]+")
# Unicode's embeddings, overrides and isolates turn round what stands behind them, an address too.
_TURNS_ROUND = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SHOWN_NOWHERE = frozenset({"Cc", "Zl", "Zp", "Cs"})
_NOT_IN_AN_ADDRESS = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})


class Unclear(Exception):
    """It cannot be read for certain; the message is a clause that says why."""


@dataclass(frozen=True)
class Mailbox:
    """One address of a field, and where it stands in the field's value (bytes from its begin).

    ``address`` is without a domain where the field has none.
    """

    address: str
    start: int
    end: int


def read(header: Header) -> dict[str, tuple[Mailbox, ...]]:
    """Those who are named in the fields of `FIELDS` that there are.

    Raises:
        Unclear: a line of the header is no field, the header is cut off, a field that
            may be there once is there twice, or one cannot be read.
    """
    check(header)
    found: dict[str, tuple[Mailbox, ...]] = {}
    for name in FIELDS:
        for number, field in enumerate(header.all(name)):
            if number and name in _ONE_FIELD:
                raise Unclear(f"there are several {name} fields")
            if number >= _MOST_FIELDS:
                raise Unclear(f"there are more than {_MOST_FIELDS} {name} fields")
            try:
                mailboxes = tuple(mailboxes_of(field.value))
            except Unclear as error:
                raise Unclear(f"its {name} field cannot be read for certain: {error}") from error
            if name in _ONE_MAILBOX and len(mailboxes) > 1:
                raise Unclear(f"its {name} field has several addresses")
            found[name] = (*found.get(name, ()), *mailboxes)
    return found


def check(header: Header) -> None:
    """Whether all programs see the same fields in it.

    Raises:
        Unclear: a line is no field and continues none, or there is a megabyte of it or more.
    """
    block = header.block
    if len(block) >= LIMIT:
        raise Unclear("its header is a megabyte long, or more")
    good = 0
    while (found := _LINE.match(block, good)) and (good or not block.startswith((b" ", b"\t"))):
        good = found.end()
    if good < len(block):
        line = block[good:].split(b"\r\n", 1)[0][:100].decode("utf-8", "replace")
        raise Unclear(f"the line {clean(line, 60)!a} in its header is no header field (an empty line ends the header)")


def mailboxes_of(value: bytes) -> list[Mailbox]:
    """The addresses in a field's value, at least one: ``a@b``, ``Name <a@b>``, with commas between.

    Raises:
        Unclear: it is not in that form, or a name in it has another address.
    """
    if len(value) > _LONGEST:
        raise Unclear(f"it is longer than {_LONGEST} bytes")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise Unclear("it has bytes that are no UTF-8; names want RFC 2047's encoding") from None
    found = []
    for tokens in _between_commas(_tokens(text)):
        start, address = _address_in(tokens)
        parts(address)
        begin = len(text[:start].encode())
        found.append(Mailbox(address, begin, begin + len(address.encode())))
    names = value
    for mailbox in reversed(found):
        angle = names[mailbox.start - 1 : mailbox.start] == b"<"
        names = names[: mailbox.start - angle] + b" " + names[mailbox.end + angle :]
    _check_names(names.decode(), {mailbox.address.casefold() for mailbox in found})
    return found


def parts(address: str, *, dots_anywhere: bool = False) -> tuple[str, str]:
    """Local part and domain of an address (RFC 5321 4.1.2, RFC 6531), the domain "" if it has none.

    *dots_anywhere*: as in ``a..b.@docomo.ne.jp``, which some carriers gave out.

    Raises:
        Unclear: it is none, or can be taken for another one or for a route.
    """
    local, at, domain = address.rpartition("@") if "@" in address else (address, "", "")
    name = shown(address)
    if _ROUTES.search(local):
        raise Unclear(f"<{name}> can be read as a route to somewhere else")
    if domain.startswith("["):
        raise Unclear(f"<{name}> names a machine by its number, not a domain")
    if (
        len(address.encode("utf-8", "replace")) > _ADDRESS_OCTETS
        or len(local.encode("utf-8", "replace")) > _LOCAL_OCTETS
    ):
        raise Unclear(f"<{name}> is longer than an address can be")
    if not (_DOTTED if dots_anywhere else _LOCAL).fullmatch(local) or (at and not _DOMAIN.fullmatch(domain)):
        raise Unclear(f"<{name}> is not a mail address")
    if domain.rpartition(".")[2].isdecimal():
        raise Unclear(f"<{name}> names a machine by its number, not a domain")
    # An encoded word, and compatibility forms such as a wide @: decoded or normalised it would be another address.
    odd = "=?" in address or not unicodedata.is_normalized("NFKC", address)
    if odd or any(unicodedata.category(letter) in _NOT_IN_AN_ADDRESS for letter in address):
        raise Unclear(f"<{name}> has letters in it that can be taken for others")
    # Where IDNA 2003 and 2008 differ, two programs would find two domains.
    if not domain.isascii() and not _is_idna(domain):
        raise Unclear(f"the domain of <{name}> wants to be written in its xn-- form")
    return local, domain


def _is_idna(domain: str) -> bool:
    """Whether a domain that is not ASCII is there and back again the same."""
    try:
        return domain_key(domain).encode("ascii").decode("idna") == domain.lower()
    except UnicodeError:
        return False


def shown(address: str) -> str:
    """An address for a reply of SMTP, where not everybody reads UTF-8."""
    return clean(address, 80).encode("ascii", "backslashreplace").decode()


def is_unqualified(address: str) -> bool:
    """Whether it is one only on the machine that it comes from, as cron's are: ``root``, ``root@raspberrypi``.

    No domain, one of a single label, or one below ``localdomain`` or ``localhost``:
    neither can be in the public DNS (RFC 6761 6.3).
    """
    domain = address.rpartition("@")[2].lower() if "@" in address else ""
    return "." not in domain or domain.endswith((".localdomain", ".localhost"))


_Token = tuple[str, str, int]  # its kind, its text, where it begins


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        if text[place] == "(":
            end = _comment_end(text, place)
            yield "blank", text[place:end], place
        else:
            found = _TOKEN.match(text, place)
            if not found or not found.lastgroup:
                raise Unclear(f"{clean(text[place])!a} does not belong there")
            end = found.end()
            yield found.lastgroup, found[0], place
        place = end


def _comment_end(text: str, place: int) -> int:
    """Behind the comment that begins there (RFC 5322 3.2.2)."""
    depth = 0
    while place < len(text):
        if text[place] == "(":
            depth += 1
        elif text[place] == ")":
            depth -= 1
            if not depth:
                return place + 1
        elif found := _IN_COMMENT.match(text, place):
            place = found.end()
            continue
        else:
            break
        place += 1
    raise Unclear("a comment in it does not end")


def _between_commas(tokens: Iterator[_Token]) -> Iterator[list[_Token]]:
    some: list[_Token] = []
    for token in tokens:
        if token[1] == "," and token[0] == "special":
            yield some
            some = []
        else:
            some.append(token)
    yield some


def _address_in(tokens: list[_Token]) -> tuple[int, str]:
    """Where the address of one mailbox begins, and the address."""
    texts = [text for kind, text, _ in tokens if kind == "special"]
    if not texts:
        solid = [token for token in tokens if token[0] != "blank"]
        if len(solid) != 1 or solid[0][0] != "word":
            raise Unclear("a name without an address in <>, or none at all" if solid else "an address is missing")
        return solid[0][2], solid[0][1]
    opening = next((number for number, token in enumerate(tokens) if token[1] == "<"), len(tokens))
    name, angle, rest = tokens[:opening], tokens[opening : opening + 3], tokens[opening + 3 :]
    if texts != ["<", ">"] or [kind for kind, _, _ in angle] != ["special", "word", "special"]:
        raise Unclear("there is something else than one address in <>")
    if any(kind == "word" and "@" in text for kind, text, _ in name) or any(kind != "blank" for kind, _, _ in rest):
        raise Unclear("there is more than a name and an address in <>")
    return angle[1][2], angle[1][1]


def _check_names(names: str, addresses: set[str]) -> None:
    """*names*: all of the value but the addresses."""
    for charset in _ENCODED.findall(names):
        if not _CHARSETS.fullmatch(charset):
            raise Unclear(f"a name in it is encoded in {clean(charset, 40)!a}, which programs read differently")
    shown = unicodedata.normalize("NFKC", words_of(names.replace("\r\n", "")))
    if "=?" in shown:
        raise Unclear("a name in it is encoded in a way that cannot be read")
    if any(c in _TURNS_ROUND or (c != "\t" and unicodedata.category(c) in _SHOWN_NOWHERE) for c in shown):
        raise Unclear("a name in it has control characters")
    if re.search("[<>]", shown):
        raise Unclear("a name in it has < or >")
    for word in _BETWEEN_WORDS.split(shown):
        if "@" in word and word.casefold() not in addresses:
            raise Unclear("a name in it has an @ that is not of the same address (another's belongs into Reply-To)")
