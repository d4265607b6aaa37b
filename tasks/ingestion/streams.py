"""Uploaded text as UTF-8 blocks of whole records, decompressed by magic bytes, decoded by byte order mark or
contract.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

import pyarrow as pa

from tasks.domain.errors import UnreadableUpload

BLOCK_BYTES = 64 * 1024 * 1024
"""Text that is parsed at once, and the longest record that is accepted."""

READ_BYTES = 4 * 1024 * 1024

MAX_EXPANSION, SMALL_BYTES = 200, 256 * 1024 * 1024
"""What a packed file may become: so many times its size or, if that is more, so many bytes. Data packs 5 to 50 times; a
file that grows more is made to fill the disk that it is unpacked on."""

GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"

FOREIGN = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (xlsx)",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet (xls)",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"%PDF": "a PDF",
    b"ORC": "ORC",
    b"Obj\x01": "Avro",
}

KINDS = "CSV, JSON lines (plain, gzip or zstd) or Parquet"

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class UploadedFile(NamedTuple):
    """A local file, the name that the tenant knows it by, and whether messages may quote from it: it may hold
    personal data."""

    path: Path
    name: str
    quotable: bool = True

    def quoted(self, text: str) -> str:
        """The text for a message; nothing where it must not be told."""
        return text if self.quotable else ""


@contextmanager
def opened(source: UploadedFile) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed. Raises `UnreadableUpload` for other formats."""
    with source.path.open("rb") as file:
        magic = file.read(8)
    if not magic:
        raise UnreadableUpload("the file is empty", where=source.name, expected=KINDS)
    for start, name in FOREIGN.items():
        if magic.startswith(start):
            raise UnreadableUpload(f"the file is {name}", where=source.name, expected=KINDS, hint="export it as CSV")
    if magic.startswith(GZIP):
        with gzip.open(source.path, "rb") as stream:
            yield cast(IO[bytes], stream)
    elif magic.startswith(ZSTD):
        with pa.input_stream(str(source.path), compression="zstd", buffer_size=READ_BYTES) as arrow:
            yield arrow
    else:
        with source.path.open("rb") as plain:
            yield plain


def text_pieces(source: UploadedFile, encoding: str) -> Iterator[bytes]:
    """The text as UTF-8 in pieces of a few megabytes. Raises `UnreadableUpload`: cut off, binary, another encoding."""
    decoder: codecs.IncrementalDecoder | None = None
    read, limit = 0, unpacked_limit(source)
    try:
        with opened(source) as stream:
            while piece := stream.read(READ_BYTES):
                if decoder is None:
                    mark = next((mark for mark in _MARKS if piece.startswith(mark)), b"")
                    piece, encoding = piece[len(mark) :], _MARKS.get(mark, encoding)
                    decoder = codecs.getincrementaldecoder(encoding)("strict")
                    if b"\0" in piece[:4096] and not encoding.lower().replace("_", "-").startswith(
                        ("utf-16", "utf-32")
                    ):
                        raise UnreadableUpload("the file is binary, not text", where=source.name, expected=KINDS)
                text = decoder.decode(piece)
                read += len(piece)
                check_unpacked(source, read, limit)
                if "\0" in text:
                    raise UnreadableUpload("the file has NUL characters", where=source.name, expected=KINDS)
                yield text.encode()
            if decoder is not None:
                yield decoder.decode(b"", final=True).encode()
    except UnicodeDecodeError as error:
        raise UnreadableUpload(
            f"the file is not {encoding}: byte 0x{error.object[error.start]:02x} near byte {read + error.start:,}",
            where=source.name,
            expected=f"{encoding} (contract.encoding), or a byte order mark",
            hint="save the file as UTF-8, or declare its encoding in the contract (for example encoding: latin-1)",
        ) from error
    except LookupError as error:
        raise UnreadableUpload(f"unknown encoding {encoding!r}", hint="correct contract.encoding") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnreadableUpload(
            "the compressed file is truncated or damaged",
            where=source.name,
            found=source.quoted(str(error)),
            hint="upload it again",
        ) from error


def unpacked_limit(source: UploadedFile) -> int:
    """Bytes that a file may become when it is unpacked."""
    return max(SMALL_BYTES, MAX_EXPANSION * source.path.stat().st_size)


def check_unpacked(source: UploadedFile, size_bytes: int, limit: int) -> None:
    """Raises `UnreadableUpload` where a file has become too large."""
    if size_bytes > limit:
        raise UnreadableUpload(
            f"the file is packed more than {MAX_EXPANSION} times",
            where=source.name,
            expected=f"at most {limit:,} bytes when unpacked",
            found=f"{size_bytes:,} bytes or more",
            hint="if these are data, upload them in parts",
        )


def record_blocks(source: UploadedFile, encoding: str, *, quotes: bool) -> Iterator[bytes]:
    """Blocks of whole lines, at most `BLOCK_BYTES` each, the last one without its final newline kept as it is.

    With `quotes`, a newline between double quotes (RFC 4180) does not end a line. Raises `UnreadableUpload` for a line
    longer than a block, or quotes that do not pair up.
    """
    rest = b""
    pieces = text_pieces(source, encoding)
    while True:
        buffer = io.BytesIO()
        buffer.write(rest)
        while buffer.tell() < BLOCK_BYTES and (piece := next(pieces, None)) is not None:
            buffer.write(piece)
        block = buffer.getvalue()
        if b"\r" in block and b"\n" not in block:
            block = block.replace(b"\r", b"\n")  # the line ends of old Macintosh files
        if len(block) < BLOCK_BYTES:
            break
        end = _last_line_end(block, quotes)
        if end < 0:
            raise UnreadableUpload(
                f"a line is longer than {BLOCK_BYTES // 2**20} MiB",
                where=source.name,
                expected="one record per line",
                found=source.quoted(_start(block)),
                hint="check the line ends, and quotes that were opened and not closed",
            )
        yield block[: end + 1]
        rest = block[end + 1 :]
    if quotes and block.count(b'"') % 2:
        raise UnreadableUpload(
            "double quotes do not pair up",
            where=source.name,
            expected="quotes inside a quoted cell are doubled (RFC 4180)",
            hint="write the file with a CSV library",
        )
    if block.strip():
        yield block


def _last_line_end(block: bytes, quotes: bool) -> int:
    end = block.rfind(b"\n")
    if not quotes or end < 0:
        return end
    open_quotes = block.count(b'"', 0, end) % 2
    while open_quotes and end >= 0:
        earlier = block.rfind(b"\n", 0, end)
        open_quotes ^= block.count(b'"', max(earlier, 0), end) % 2
        end = earlier
    return end


def _start(block: bytes) -> str:
    return block[:60].decode(errors="replace") + "..."
