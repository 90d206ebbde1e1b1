"""Lists tars as libarchive reads them, which bsdtar is made of: many in one process.

Reads archives from stdin and answers as `python.py` does. Where bsdtar goes on after an
error, this goes on; any error is told at the end, with the entries that were read.
"""

import ctypes
import hashlib
import json
import locale
import stat
import sys

EOF, OK, RETRY, FATAL = 1, 0, -10, -30

LETTERS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
}


def library():
    library = ctypes.CDLL("libarchive.so.13")
    for name, answer, arguments in [
        ("archive_read_new", ctypes.c_void_p, []),
        ("archive_read_free", ctypes.c_int, ["archive"]),
        ("archive_read_support_format_tar", ctypes.c_int, ["archive"]),
        ("archive_read_support_format_empty", ctypes.c_int, ["archive"]),
        ("archive_read_open_memory", ctypes.c_int, ["archive", ctypes.c_char_p, ctypes.c_size_t]),
        ("archive_read_next_header", ctypes.c_int, ["archive", ctypes.POINTER(ctypes.c_void_p)]),
        ("archive_read_data", ctypes.c_ssize_t, ["archive", ctypes.c_char_p, ctypes.c_size_t]),
        ("archive_error_string", ctypes.c_char_p, ["archive"]),
        ("archive_entry_pathname", ctypes.c_char_p, ["entry"]),
        ("archive_entry_hardlink", ctypes.c_char_p, ["entry"]),
        ("archive_entry_symlink", ctypes.c_char_p, ["entry"]),
        ("archive_entry_filetype", ctypes.c_uint, ["entry"]),
        ("archive_entry_perm", ctypes.c_uint, ["entry"]),
        ("archive_entry_uid", ctypes.c_int64, ["entry"]),
        ("archive_entry_gid", ctypes.c_int64, ["entry"]),
        ("archive_entry_size", ctypes.c_int64, ["entry"]),
        ("archive_entry_mtime", ctypes.c_int64, ["entry"]),
    ]:
        function = getattr(library, name)
        function.restype = answer
        function.argtypes = [ctypes.c_void_p if type(one) is str else one for one in arguments]
    return library


def content(archive, size):
    """The sha256 of the content, and what went wrong."""
    buffer = ctypes.create_string_buffer(size + 1)
    length = LIBRARY.archive_read_data(archive, buffer, size + 1)
    if length < 0:
        return None, error_of(archive)
    # A hole at the end is left to the caller.
    return hashlib.sha256(buffer.raw[: max(length, size)]).hexdigest(), None


def error_of(archive):
    return (LIBRARY.archive_error_string(archive) or b"no words").decode("latin-1")


def row(archive, entry):
    link = LIBRARY.archive_entry_hardlink(entry)
    letter = "h" if link is not None else LETTERS.get(LIBRARY.archive_entry_filetype(entry), "?")
    if letter == "l":
        link = LIBRARY.archive_entry_symlink(entry)
    size, digest, error = LIBRARY.archive_entry_size(entry), None, None
    if letter == "f" and size <= 1 << 20:
        digest, error = content(archive, size)
    return {
        "path": (LIBRARY.archive_entry_pathname(entry) or b"").decode("latin-1"),
        "letter": letter,
        "mode": LIBRARY.archive_entry_perm(entry) & 0o7777,
        "uid": LIBRARY.archive_entry_uid(entry),
        "gid": LIBRARY.archive_entry_gid(entry),
        "size": size if letter == "f" else 0,
        "mtime": LIBRARY.archive_entry_mtime(entry),
        "link": (link or b"").decode("latin-1"),
        "content": digest,
    }, error


def listing(archive, data):
    LIBRARY.archive_read_support_format_tar(archive)
    LIBRARY.archive_read_support_format_empty(archive)
    if LIBRARY.archive_read_open_memory(archive, data, len(data)) != OK:
        return {"rows": [], "error": error_of(archive)}
    rows, errors, entry = [], [], ctypes.c_void_p()
    while (answer := LIBRARY.archive_read_next_header(archive, ctypes.byref(entry))) != EOF:
        if answer in (RETRY, FATAL):
            errors.append(error_of(archive))
        if answer == RETRY:
            continue
        if answer == FATAL:
            break
        found, error = row(archive, entry)
        rows.append(found)
        if error is not None:
            errors.append(error)
    return {"rows": rows, "error": "; ".join(errors) or None}


LIBRARY = library()
locale.setlocale(locale.LC_ALL, "C.UTF-8")
for line in sys.stdin.buffer:
    data = sys.stdin.buffer.read(int(line))
    archive = LIBRARY.archive_read_new()
    print(json.dumps(listing(archive, data)), flush=True)
    LIBRARY.archive_read_free(archive)
