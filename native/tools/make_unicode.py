"""Write src/unicode_ranges.h: which characters are letters and which are numbers.

python tools/make_unicode.py > src/unicode_ranges.h
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator


def ranges(letter: str) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run of characters whose category begins so."""
    first = None
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and unicodedata.category(chr(code))[0] == letter
        if inside and first is None:
            first = code
        elif not inside and first is not None:
            yield first, code - 1
            first = None


def main() -> None:
    version = unicodedata.unidata_version
    print(
        f"/* Made by tools/make_unicode.py from Unicode {version}: first and last of each run. */"
    )
    print("#ifndef TLM_UNICODE_RANGES_H\n#define TLM_UNICODE_RANGES_H\n\n#include <stdint.h>\n")
    for name, letter in (("LETTERS", "L"), ("NUMBERS", "N")):
        print(f"static const uint32_t TLM_{name}[][2] = {{")
        runs = [f"{{0x{first:x}, 0x{last:x}}}" for first, last in ranges(letter)]
        for start in range(0, len(runs), 5):
            print("    " + ", ".join(runs[start : start + 5]) + ",")
        print("};\n")
    print("#endif")


if __name__ == "__main__":
    main()
