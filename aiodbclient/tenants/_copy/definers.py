"""``Definers``: leaves DEFINER out of what mysqldump writes. Pure.

Only an administrator may make something that runs with another login's rights. Without DEFINER it runs with the rights
of the login that restores it: the tenant's. What a string, a comment or a row holds stays as it is.
"""

from __future__ import annotations

import re

_NAME = rb"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\")"
_LOGIN = _NAME + rb"@" + _NAME
# The first line of a routine; of a trigger or an event; the second line of a view.
_HEAD = re.compile(
    rb"(?P<routine>CREATE )DEFINER=" + _LOGIN + rb" "
    rb"|(?P<other>/\*!\d+ CREATE\*/ )/\*!\d+ DEFINER=" + _LOGIN + rb"\*/ "
)
_VIEW = re.compile(rb"/\*!\d+ CREATE ALGORITHM=\w+ \*/\n")
_OF_VIEW = re.compile(rb"(/\*!\d+ )DEFINER=" + _LOGIN + rb" ")
_SQL_MODE = re.compile(rb"(?:/\*!\d+ )?SET (?:SESSION )?sql_mode += +'([^']*)'", re.IGNORECASE)
_ROW = b"INSERT INTO "  # mysqldump writes such a statement on one line, however long
_SANDBOX = rb"/*M!999999\-"  # the first line of MariaDB's, which ends in no delimiter
_OPENING = re.compile(rb"'|\"|`|/\*(?!M?!)|--(?=[\s\x00-\x20]|$)|#")
# The rest of a string or a quoted name, with backslashes as escapes or not.
_REST = {
    (quote, escapes): re.compile(
        rb"[^%b]*(?:\\.[^%b]*)*%b" % (both, both, quote) if escapes else rb"[^%b]*%b" % (quote, quote), re.DOTALL
    )
    for quote in (b"'", b'"', b"`")
    for escapes in (True, False)
    for both in (quote + rb"\\",)
}


class Definers:
    """A filter of a stream: ``feed`` it what mysqldump writes, and last nothing."""

    def __init__(self) -> None:
        self._line = bytearray()  # one that is not complete
        self._in_row = False
        self._open = b""  # the quote or comment in which the last line ended
        self._begins = True  # whether the next line begins a statement
        self._of_view = False
        self._delimiter = b";"
        self._modes = frozenset[bytes]()

    def feed(self, chunk: bytes) -> bytes:
        """Return what to write for ``chunk``; for an empty one, the rest."""
        written = bytearray()
        at = 0
        while at < len(chunk):
            end = chunk.find(b"\n", at) + 1 or len(chunk)
            piece = chunk[at:end]
            at = end
            if self._in_row:
                written += piece
                self._in_row = not piece.endswith(b"\n")
                continue
            self._line += piece
            if self._begins and self._line.startswith(_ROW):
                written += self._line
                self._in_row = not piece.endswith(b"\n")
                self._line.clear()
            elif piece.endswith(b"\n"):
                written += self._changed(bytes(self._line))
                self._line.clear()
        if not chunk:
            written += self._changed(bytes(self._line)) if self._line else b""
            self._line.clear()
        return bytes(written)

    def _changed(self, line: bytes) -> bytes:
        """What to write for a whole line."""
        if self._of_view:
            if head := _OF_VIEW.match(line):
                line = head[1] + line[head.end() :]
            self._of_view = False
        if self._begins:
            if line.startswith(_SANDBOX):
                return line
            if line.startswith(b"DELIMITER "):
                self._delimiter = line[10:].strip() or b";"
                return line
            if match := _SQL_MODE.match(line):
                self._modes = frozenset(match[1].upper().split(b","))
            self._of_view = _VIEW.fullmatch(line) is not None
            line = (
                _HEAD.sub(lambda match: match["routine"] or match["other"], line, count=1)
                if _HEAD.match(line)
                else line
            )
        if (code := self._code(line)) or self._open:
            self._begins = not self._open and code.endswith(self._delimiter)
        return line

    def _code(self, line: bytes) -> bytes:
        """The line without its comments, as far as its end matters. Remembers the quote or comment that stays open."""
        at, code = 0, bytearray()
        while at < len(line):
            if self._open:
                code += b"" if self._open == b"/*" else b"'"  # a statement does not end in a quote
                at = self._closed(line, at)
                continue
            opening = _OPENING.search(line, at)
            if opening is None:
                code += line[at:]
                break
            code += line[at : opening.start()]
            if opening[0] in (b"--", b"#"):
                break
            self._open, at = opening[0], opening.end()
        return bytes(code.strip())

    def _closed(self, line: bytes, at: int) -> int:
        """Where the quote or comment that is open ends; the end of the line if it stays open."""
        if self._open == b"/*":
            end = line.find(b"*/", at)
            if end >= 0:
                self._open = b""
            return end + 2 if end >= 0 else len(line)
        escapes = b"NO_BACKSLASH_ESCAPES" not in self._modes and self._open != b"`"
        if self._open == b'"' and b"ANSI_QUOTES" in self._modes:
            escapes = False
        rest = _REST[self._open, escapes].match(line, at)
        if rest is None:
            return len(line)
        self._open = b""
        return rest.end()
