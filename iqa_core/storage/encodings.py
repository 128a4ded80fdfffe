"""The encoding of a text file, by its byte order mark or its bytes; and printable names."""

from __future__ import annotations

import codecs

__all__ = ["find_encoding", "printable"]

#: Longer marks first: that of UTF-32 begins as that of UTF-16 does.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 4096  # bytes that show whether every second one is zero
_SHOWN = 60  # bytes of a line in a message


def find_encoding(data: bytes) -> str:
    """Return an encoding that decodes the whole of a text file.

    Args:
        data: The file's content.

    Returns:
        ``utf-8``; ``utf-8-sig``, ``utf-16`` or ``utf-32``, which leave the byte order mark out;
        ``utf-16-le`` or ``utf-16-be`` where there is none; ``windows-1252`` if the bytes are no
        UTF-8, or ``mac_roman`` if, besides, lines end with a carriage return alone.

    Raises:
        ValueError: If it is no text, or in no single encoding of these; the message is the
            predicate of a sentence about the file, such as "holds zero bytes: ...".
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    encoding = encoding or _utf_16_without_mark(data)
    if encoding is None and b"\0" in data:
        raise ValueError("holds zero bytes: it is no text file, or damaged")
    try:
        data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise ValueError(
                f"is no valid {encoding.upper().removesuffix('-SIG')} ({error.reason}), "
                "though its first bytes say so: save it anew as UTF-8"
            ) from error
    else:
        return encoding or "utf-8"
    return _legacy_encoding(data)


def _utf_16_without_mark(data: bytes) -> str | None:
    """Return UTF-16 if every second byte is zero nearly everywhere, as in text of Latin letters."""
    sample = data[: min(_SAMPLE, len(data) // 2 * 2)]
    half = len(sample) // 2
    low, high = sample[0::2].count(0), sample[1::2].count(0)
    if half and high > 0.7 * half and not low:
        return "utf-16-le"
    return "utf-16-be" if half and low > 0.7 * half and not high else None


def _legacy_encoding(data: bytes) -> str:
    """Return the encoding of text that is no UTF-8, unless a smaller part of it is none."""
    lines = data.splitlines()
    wrong = [number for number, line in enumerate(lines) if not _is_utf_8(line)]
    accented = sum(not line.isascii() for line in lines) - len(wrong)
    if accented >= len(wrong):
        raise ValueError(
            f"is UTF-8, but not in line {wrong[0] + 1:,}, which has {lines[wrong[0]][:_SHOWN]!r}: files "
            "of two encodings were joined, or a file's name is in another one; save it all as UTF-8"
        )
    if b"\r" in data and b"\n" not in data:
        return "mac_roman"  # every byte is a letter of it
    try:
        data.decode("windows-1252")
    except UnicodeDecodeError as error:
        raise ValueError(
            "is neither UTF-8 nor windows-1252: save it as UTF-8 (in Excel: 'CSV UTF-8')"
        ) from error
    return "windows-1252"


def _is_utf_8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""Return a name on one line: control characters and bytes that are no UTF-8 as ``\n``, ``\xe9``."""

    def escaped(sign: str) -> str:
        if "\udc80" <= sign <= "\udcff":  # a byte that `os.fsdecode` could not decode
            return f"\\x{ord(sign) - 0xDC00:02x}"
        return sign.encode("unicode_escape").decode()

    return "".join(sign if sign.isprintable() else escaped(sign) for sign in text)
