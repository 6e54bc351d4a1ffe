"""The words of HTML, for reading only: in a time that grows with its length, whatever it is."""

import html
import re

# Their content is nothing that is read.
_UNREAD = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "title", "template")}
_BREAKS = frozenset({"p", "br", "div", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "blockquote"})
_NAME = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*)")
_BLANKS = re.compile(r"[ \t\r\n]+")


def words(source: str) -> str:
    """The text between the tags, a line for each paragraph."""
    pieces: list[str] = []
    place = 0
    while place < len(source):
        begin = source.find("<", place)
        if begin < 0:
            begin = len(source)
        pieces.append(_BLANKS.sub(" ", source[place:begin]))
        place, piece = _behind(source, begin)
        pieces.append(piece)
    lines = (line.strip() for line in html.unescape("".join(pieces)).split("\n"))
    return "\n".join(line for line in lines if line)


def _behind(source: str, begin: int) -> tuple[int, str]:
    """Where it goes on after the tag or comment at *begin*, and what stands for that."""
    if source.startswith("<!--", begin):
        return _after("-->", source, begin), ""
    found = _NAME.match(source, begin)
    if found is None and not source.startswith(("<!", "<?"), begin):
        return begin + 1, source[begin : begin + 1]  # a "<" and no tag
    name = found[1].lower() if found else ""
    place = _after(">", source, begin)
    if name in _UNREAD and not source.startswith("</", begin):
        closing = _UNREAD[name].search(source, place)
        place = _after(">", source, closing.end()) if closing else len(source)
    return place, "\n" if name in _BREAKS else ""


def _after(mark: str, source: str, place: int) -> int:
    """Behind the next *mark*; the end where there is none, so that nothing is searched twice."""
    found = source.find(mark, place)
    return len(source) if found < 0 else found + len(mark)
