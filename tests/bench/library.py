"""Reads a gzip file with a library that has random access, and prints the seconds.

library.py LIBRARY BLOB INDEX sequential
library.py LIBRARY BLOB INDEX random SECONDS     offsets on standard input

The index is made if it is not there; that is not counted.
"""

import os
import sys
import time


def opened(library, blob, index):
    if library == "indexed_gzip":
        import indexed_gzip

        if not os.path.exists(index):
            with indexed_gzip.IndexedGzipFile(blob) as file:
                file.build_full_index()
                file.export_index(index)
        return indexed_gzip.IndexedGzipFile(blob, index_file=index)
    import rapidgzip

    if not os.path.exists(index):
        with rapidgzip.open(blob, parallelization=0) as file:
            file.seek(0, os.SEEK_END)
            file.export_index(index)
    file = rapidgzip.open(blob, parallelization=0)
    file.import_index(index)
    return file


def main():
    library, blob, index, what = sys.argv[1:5]
    file = opened(library, blob, index)
    begin = time.perf_counter()
    if what == "sequential":
        while file.read(1 << 20):
            pass
        print(time.perf_counter() - begin)
        return
    for line in sys.stdin:
        start = time.perf_counter()
        file.seek(int(line))
        file.read(4096)
        end = time.perf_counter()
        print(end - start)
        if end - begin > float(sys.argv[5]):
            break


main()
