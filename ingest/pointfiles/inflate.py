"""The child process that decodes LAZ: a script of its own, `inflate.py MEMORY SECONDS RECORD_BYTES COUNT VLR_HEX`.

Input (a seekable stdin) is the compressed points, output the records as they would stand in a LAS file. A damaged file
makes lazrs panic, run out of memory or loop; here that ends this process and nothing else.
"""

from __future__ import annotations

import resource
import sys

BLOCK_BYTES = 16 << 20


def main() -> None:
    memory, seconds, record, count = map(int, sys.argv[1:5])
    vlr = bytes.fromhex(sys.argv[5])
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: record * count + (1 << 20),
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    import lazrs  # type: ignore[import-untyped]

    decoder = lazrs.LasZipDecompressor(sys.stdin.buffer, vlr)
    step = BLOCK_BYTES // record + 1
    for first in range(0, count, step):
        block = bytearray(record * min(count - first, step))
        decoder.decompress_many(block)
        sys.stdout.buffer.write(block)


if __name__ == "__main__":
    main()
