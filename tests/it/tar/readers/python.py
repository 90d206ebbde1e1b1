"""Lists tars as Python's tarfile reads them: many in one process.

Reads archives from stdin, each after its length as a line in decimal, and writes one
line of JSON for each: the entries, and the error that ended the listing, if one did.
Paths are bytes, written as Latin-1. Content is looked at up to 1 MiB.
"""

import hashlib
import io
import json
import math
import sys
import tarfile

LETTERS = {
    tarfile.DIRTYPE: "d",
    tarfile.SYMTYPE: "l",
    tarfile.LNKTYPE: "h",
    tarfile.CHRTYPE: "c",
    tarfile.BLKTYPE: "b",
    tarfile.FIFOTYPE: "p",
}


def text(path):
    return path.encode("utf-8", "surrogateescape").decode("latin-1")


def row(archive, entry):
    letter = "f" if entry.isreg() else LETTERS.get(entry.type, "?")
    content = None
    if letter == "f" and entry.size <= 1 << 20:
        content = hashlib.sha256(archive.extractfile(entry).read()).hexdigest()
    return {
        "path": text(entry.name),
        "letter": letter,
        "mode": entry.mode & 0o7777,
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size if letter == "f" else 0,
        "mtime": math.floor(entry.mtime),
        "link": text(entry.linkname) if letter in "lh" else "",
        "content": content,
    }


def listing(data):
    rows = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8",
                          errors="surrogateescape") as archive:
            for entry in archive:
                rows.append(row(archive, entry))
    except Exception as error:  # it has many, and all mean the same here
        return {"rows": rows, "error": f"{type(error).__name__}: {error}"}
    return {"rows": rows, "error": None}


for line in sys.stdin.buffer:
    print(json.dumps(listing(sys.stdin.buffer.read(int(line)))), flush=True)
