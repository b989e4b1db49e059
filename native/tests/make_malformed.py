"""Write model files for tests/test_reader.c: good ones, and one for each way to be malformed.

Usage: python native/tests/make_malformed.py FOLDER (terselm must be importable). The folder
receives the files and `manifest.txt`: a line for each, "name<TAB>status<TAB>words", where the
message of the reader must hold the words.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from good_previews import add_previews
from malformed_vocabularies import add_vocabularies
from malformed_work import add_work
from model_file import File, Manifest
from tests.tiny import (
    CELL_VARIANTS,
    FORM_BUILDERS,
    OUTPUT_VARIANTS,
    make_model,
    make_output_variant,
)

from terselm.models.language_model import LanguageModel

OK, NOT_A_MODEL, DAMAGED, CHECKSUM, VERSION, MODEL = 0, 4, 5, 6, 7, 8


def model_with(form: str) -> LanguageModel:
    """A model whose embedding and one recurrent matrix have the form."""
    model = make_model("lstm", layers=1)
    for name in ("embedding", "cells.0.weight_hh"):
        shape = model.weights()[name].shape
        model.replace_weight(name, FORM_BUILDERS[form](*shape))
    return model


def add_good(manifest: Manifest) -> None:
    for cell in CELL_VARIANTS:
        for tied in (False, True):
            model = make_model(cell, tied=tied)
            manifest.add(f"good-{cell}{'-tied' if tied else ''}", File(model).bytes())
    for variant in OUTPUT_VARIANTS:
        manifest.add(f"good-output-{variant}", File(make_output_variant(variant)).bytes())
    for form in FORM_BUILDERS:
        manifest.add(f"good-form-{form}", File(model_with(form)).bytes())


def add_bad_containers(manifest: Manifest) -> None:
    file = File(make_model("gru", layers=1))
    whole = file.bytes()
    length = struct.unpack("<Q", whole[:8])[0]

    def add(name: str, content: bytes, status: int, words: str) -> None:
        manifest.add(f"bad-{name}", content, status, words)

    add("empty", b"", DAMAGED, "cut off")
    add("cut-in-length", whole[:5], DAMAGED, "cut off")
    add("cut-in-header", whole[: 8 + length // 2], DAMAGED, "header length")
    add("cut-before-data", whole[: 8 + length], DAMAGED, "data_offsets")
    for name in ("embedding.weight", "cells.0.bias", "vocabulary.words"):
        start, end = file.span(name)
        cut = whole[: 8 + length + (start + end) // 2]
        add(f"cut-in-{name}", cut, DAMAGED, "data_offsets")
    add("cut-by-one", whole[:-1], DAMAGED, "data_offsets")
    add("longer", whole + bytes(64), DAMAGED, "data section")
    for power in (31, 32, 62, 63):
        size = struct.pack("<Q", 1 << power)
        add(f"header-of-2-to-{power}", size + whole[8:], DAMAGED, "header length")
    add("header-of-all-ones", b"\xff" * 8 + whole[8:], DAMAGED, "header length")
    add("header-shorter", struct.pack("<Q", length - 64 * 8) + whole[8:], NOT_A_MODEL, "header")
    add("zip", b"PK\x03\x04" + whole[4:], NOT_A_MODEL, "zip")
    add("not-json", whole[:8] + b"[" + whole[9:], NOT_A_MODEL, "header")
    add("header-nul", whole[:8] + b"{\0" + whole[10:], DAMAGED, "NUL")
    add("flipped-data", whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:], CHECKSUM, "sha256")
    add("wrong-checksum", file.bytes(digest=False), CHECKSUM, "terselm.sha256")
    short = whole.replace(b'"terselm.sha256": "', b'"terselm.sha256": "0', 1)
    short = struct.pack("<Q", length) + short[8 : 8 + length] + whole[8 + length :]
    add("checksum-too-long", short, CHECKSUM, "terselm.sha256")
    add("no-document", whole.replace(b'"terselm":', b'"torselm":', 1), NOT_A_MODEL, "terselm")

    def header(name: str, change: Callable[[str], str], status: int, words: str) -> None:
        changed = file.copy()
        changed.header_text = change
        add(name, changed.bytes(), status, words)

    def entry(name: str, change: Callable[[dict[str, Any]], Any], words: str) -> None:
        changed = file.copy()
        change(changed.entries)
        add(name, changed.bytes(), DAMAGED, words)

    deep = "[" * 40 + "]" * 40
    header("header-deep", lambda t: t[:-1] + f', "x": {deep}}}', DAMAGED, "32 levels")
    header("header-utf8", lambda t: t[:-1] + ', "\udcff": 1}', DAMAGED, "UTF-8")
    header("header-surrogate", lambda t: t[:-1] + ', "\\ud800": 1}', DAMAGED, "UTF-8")
    header("header-nul-escape", lambda t: t[:-1] + ', "\\u0000": 1}', DAMAGED, "NUL")
    header("header-large-number", lambda t: t[:-1] + ', "x": 1e999}', DAMAGED, "too large")
    odd = '"dtype":"U8","shape":[0],"data_offsets":[0,0]'
    header("duplicate-name", lambda t: t[:-1] + f', "output.bias": {{{odd}}}}}', DAMAGED, "twice")
    escaped = '"output.bi\\u0061s"'
    header("duplicate-escaped", lambda t: t[:-1] + f", {escaped}: {{{odd}}}}}", DAMAGED, "twice")
    header("duplicate-metadata", lambda t: t[:-1] + ', "__metadata__": {}}', DAMAGED, "metadata")
    once, twice = '"dtype": "F32"', '"dtype": "F32", "dtype": "F32"'
    header("duplicate-dtype", lambda t: t.replace(once, twice, 1), DAMAGED, "dtype")

    def offsets(name: str, start: Any, end: Any) -> Callable[[dict[str, Any]], None]:
        return lambda entries: entries[name].__setitem__("data_offsets", [start, end])

    weight = "cells.0.weight_hh.weight"
    start, end = file.span(weight)
    entry("overlap", offsets(weight, start - 64, end - 64), "data_offsets overlap")
    entry("backwards", offsets(weight, end, start), "data_offsets")
    entry("negative", offsets(weight, -64, end), "data_offsets")
    entry("beyond", offsets(weight, start + (1 << 40), end + (1 << 40)), "data_offsets")
    entry("offset-overflow", offsets(weight, 1 << 63, (1 << 63) + end - start), "data_offsets")
    entry("offset-float", offsets(weight, float(start), end), "data_offsets")
    entry("size", offsets(weight, start, end - 4), "data_offsets do not fit")
    entry("gap", lambda entries: entries.pop(weight), "data_offsets leave a gap")
    entry("misaligned", lambda e: e.__setitem__("odd", e.pop("pad.1")), "multiple of 64")
    entry("dtype-unknown", lambda e: e[weight].__setitem__("dtype", "F31"), "dtype is unknown")
    entry("shape-overflow", lambda e: e[weight].__setitem__("shape", [1 << 40, 1 << 40]), "shape")
    entry("shape-negative", lambda e: e[weight].__setitem__("shape", [-1, -1]), "shape")
    entry("shape-rank", lambda e: e[weight].__setitem__("shape", [1] * 5), "shape")
    entry("no-dtype", lambda e: e[weight].pop("dtype"), "dtype")
    entry("entry-number", lambda e: e.__setitem__(weight, 7), "entry")


def add_bad_documents(manifest: Manifest) -> None:
    plain = File(make_model("gru"))
    tied = File(make_model("lstm", tied=True))
    adaptive = File(make_output_variant("adaptive"))

    def add(
        name: str, change: Callable[[Any], Any], status: int, words: str, file: File = plain
    ) -> None:
        changed = file.copy()
        change(changed.document)
        manifest.add(f"bad-{name}", changed.bytes(), status, words)

    def text(name: str, change: Callable[[str], str], status: int, words: str) -> None:
        changed = plain.copy()
        changed.document_text = change
        manifest.add(f"bad-{name}", changed.bytes(), status, words)

    text("document-list", lambda t: "[]", MODEL, "description")
    text("document-cut", lambda t: t[:-1], MODEL, "description")
    text("document-deep", lambda t: "[" * 33 + "]" * 33, MODEL, "32 levels")
    text("document-nan", lambda t: t[:-1] + ',"x":NaN}', MODEL, "not JSON")
    text("format-twice", lambda t: t[:-1] + ',"format":1}', MODEL, "format is there twice")
    text("weights-twice", lambda t: t[:-1] + ',"weights":{}}', MODEL, "weights is there twice")
    twice = '"weights":{"embedding":{},'
    text("weight-twice", lambda t: t.replace('"weights":{', twice, 1), MODEL, "embedding: is there")
    text("kind-twice", lambda t: t.replace('"kind":', '"kind":1,"kind":', 1), MODEL, "kind is")

    lines = '"ties":{\n "output":\n "x"\n}'
    text("document-lines", lambda t: t.replace('"ties":{}', lines, 1), MODEL, 'ties is {  "output"')

    def put(*path: Any) -> Callable[[Any], None]:
        *way, last, value = path

        def change(document: Any) -> None:
            for key in way:
                document = document[key]
            document[last] = value

        return change

    def drop(*path: Any) -> Callable[[Any], None]:
        *way, last = path

        def change(document: Any) -> None:
            for key in way:
                document = document[key]
            del document[last]

        return change

    add("format-2", put("format", 2), VERSION, "format is 2")
    add("format-missing", drop("format"), VERSION, "format is nothing")
    add("config-list", put("config", []), MODEL, "config")
    add("cell-unknown", put("config", "cell", "xlstm"), VERSION, "cell is")
    add("config-unknown-key", put("config", "depth", 3), VERSION, "depth")
    add("hidden-empty", put("config", "hidden", []), MODEL, "hidden")
    add("hidden-zero", put("config", "hidden", [20, 0]), MODEL, "hidden")
    add("hidden-many", put("config", "hidden", [20] * 65), MODEL, "hidden")
    add("hidden-large", put("config", "hidden", [20, 1 << 21]), MODEL, "hidden[1]")
    add("hidden-other", put("config", "hidden", [20, 21]), MODEL, "cells.1.weight_ih: shape")
    add("embedding-overflow", put("config", "embedding", 1 << 70), MODEL, "embedding is")
    add("embedding-float", put("config", "embedding", 10.0), MODEL, "embedding is 10.0")
    add("projection-odd", put("config", "projection", 12), MODEL, "projection")
    add("tied-number", put("config", "tied", 1), MODEL, "tied is 1")
    add("tied-without-ties", put("config", "tied", True), MODEL, "ties")
    add("ties-cyclic", put("ties", {"output": "output"}), MODEL, "ties", tied)
    cycle = {"output": "embedding", "embedding": "output"}
    add("ties-cyclic-pair", put("ties", cycle), MODEL, "ties", tied)
    add("ties-odd", put("ties", {"output": "embedding"}), MODEL, "ties")
    add("ties-missing", drop("ties"), MODEL, "ties")
    add("vocabulary-kind", put("vocabulary", "kind", "runes"), VERSION, "kind is")
    add("vocabulary-size", put("vocabulary", "size", 38), MODEL, "embedding: shape")
    add("vocabulary-zero", put("vocabulary", "size", 0), MODEL, "vocabulary: size")
    add("vocabulary-missing", drop("vocabulary"), MODEL, "vocabulary")
    add("weights-list", put("weights", []), MODEL, "weights")
    add("weight-missing", drop("weights", "output"), MODEL, "output: is missing")
    add("weight-extra", put("weights", "extra", {}), MODEL, "weights describes")
    add("weight-number", put("weights", "output", 3), MODEL, "output: its description")
    add("form-unknown", put("weights", "output", "kind", "fourier"), VERSION, "output: kind")
    add("form-number", put("weights", "output", "kind", 1), VERSION, "output: kind")
    add("shape-zero", put("weights", "output", "shape", [0, 20]), MODEL, "output: shape")
    add("shape-three", put("weights", "output", "shape", [37, 20, 1]), MODEL, "output: shape")
    add("shape-other", put("weights", "output", "shape", [20, 37]), MODEL, "output: tensor weight")
    add("type-other", put("weights", "output", "type", "float16"), MODEL, "output: tensor weight")
    add("type-unknown", put("weights", "output", "type", "float8"), MODEL, "output: type")
    add("output-unknown", put("config", "output", "tree"), VERSION, "output")
    add("softmax-cutoffs", put("config", "cutoffs", [3]), MODEL, "cutoffs")
    add("cutoffs-fall", put("config", "cutoffs", [20, 9]), MODEL, "cutoffs", adaptive)
    add("cutoffs-beyond", put("config", "cutoffs", [9, 37]), MODEL, "cutoffs", adaptive)
    add("cutoffs-none", put("config", "cutoffs", []), MODEL, "cutoffs", adaptive)
    add("division-large", put("config", "division", 30), MODEL, "division", adaptive)
    add("cluster-sizes", put("config", "cluster_sizes", [3]), MODEL, "cluster_sizes", adaptive)

    add("half-bias-missing", put("config", "output_bias", "float16"), MODEL, "output: tensor bias")
    add("half-bias-unknown", put("config", "output_bias", "float8"), MODEL, "output_bias")

    twins = adaptive.copy()
    twins.write("output.order", 0, twins.read("output.order")[2:4])
    manifest.add("bad-order-twice", twins.bytes(), MODEL, "output: tensor order")
    beyond = adaptive.copy()
    beyond.write("output.order", 0, b"\xff\xff")
    manifest.add("bad-order-beyond", beyond.bytes(), MODEL, "output: tensor order")
    nan = plain.copy()
    nan.write("cells.0.bias_hn", 4, struct.pack("<f", float("nan")))
    manifest.add("bad-bias-nan", nan.bytes(), MODEL, "cells.0: tensor bias_hn")
    short = plain.copy()
    short.entries["output.bias"]["shape"] = [1, 37]
    manifest.add("bad-bias-shape", short.bytes(), MODEL, "output: tensor bias")


def add_bad_forms(manifest: Manifest) -> None:
    weight = "cells.0.weight_hh"
    rows, columns = 80, 20
    half_nan, half_inf = struct.pack("<H", 0x7E01), struct.pack("<H", 0x7C00)

    def add(form: str, name: str, change: Callable[[File], Any], words: str, at: str = "") -> None:
        torch.manual_seed(3)
        file = File(model_with(form))
        change(file)
        start = f"{weight}{at}: "
        manifest.add(f"bad-{form}-{name}", file.bytes(), MODEL, start + words)

    def option(key: str, value: Any, *path: str) -> Callable[[File], None]:
        def change(file: File) -> None:
            spec = file.spec(weight)
            for part in path:
                spec = spec[part]
            if value is None:
                del spec[key]
            else:
                spec[key] = value

        return change

    def content(part: str, at: int, value: bytes) -> Callable[[File], None]:
        return lambda file: file.write(f"{weight}.{part}", at, value)

    def retyped(part: str, key: str, value: Any) -> Callable[[File], None]:
        return lambda file: file.entries[f"{weight}.{part}"].__setitem__(key, value)

    def renamed(part: str) -> Callable[[File], None]:
        return lambda file: file.entries.__setitem__("odd", file.entries.pop(f"{weight}.{part}"))

    add("dense", "nan", content("weight", 40, struct.pack("<f", float("nan"))), "tensor weight")
    add("dense", "int32", retyped("weight", "dtype", "I32"), "tensor weight is I32")
    add("dense", "missing", renamed("weight"), "tensor weight is missing")
    add("dense/float16", "inf", content("weight", 4, half_inf), "tensor weight")

    quantized = "quantized/4 bits, groups"
    add(quantized, "nan-scale", content("scales", 2, half_nan), "tensor scales holds NaN")
    add(quantized, "inf-scale", content("scales", 2, half_inf), "tensor scales holds NaN")
    add(quantized, "bits-5", option("bits", 5), "bits is 5")
    add(quantized, "bits-8", option("bits", 8), "tensor codes")
    add(quantized, "bits-true", option("bits", True), "bits is true")
    add(quantized, "group-12", option("group", 12), "group is 12")
    add(quantized, "group-0", option("group", 0), "group is 0")
    add(quantized, "group-rows", option("group", "rows"), "group is")
    add(quantized, "group-16", option("group", 16), "tensor scales")
    add(quantized, "levels", option("levels", "low"), "levels is")
    add(quantized, "zeros", option("zero_points", True), "tensor zeros is missing")
    add(quantized, "zeros-number", option("zero_points", 1), "zero_points is 1")
    add(quantized, "int8-codes", retyped("codes", "dtype", "I8"), "tensor codes is I8")
    add("quantized", "least-code", content("codes", 64 * 4 + 2, b"\x80"), "tensor codes holds -128")
    add("quantized", "mid-rise", option("levels", "mid_rise"), "levels is mid_rise")

    add("codebook", "nan", content("values", 0, half_nan), "tensor values holds NaN")
    add("codebook", "bits", option("bits", 8), "bits is 8")
    add("codebook", "scope", option("scope", "column"), "scope is")
    add("codebook", "scope-matrix", option("scope", "matrix"), "tensor values")
    add("codebook/matrix", "bits-9", option("bits", 9), "bits is 9")
    add("binary_codes/groups", "inf", content("scales", 0, half_inf), "tensor scales holds NaN")
    add("binary_codes/groups", "bits", option("bits", 5), "bits is 5")
    add("binary_codes/groups", "group", option("group", 136), "group is 136")
    add("binary_codes/groups", "group-null", option("group", None), "tensor scales")
    add("product_codes", "nan", content("centroids", 6, half_nan), "tensor centroids holds NaN")
    add("product_codes", "count", option("centroids", 64), "centroids is 64")
    add("product_codes", "count-16", option("centroids", 16), "tensor codes")
    add("product_codes", "size", option("size", 65), "size is 65")
    add("product_codes", "shared", option("shared", True), "tensor centroids")
    add("product_codes", "norms", option("norms", True), "tensor norms is missing")
    add("product_codes/shared", "norm-nan", content("norms", 0, half_nan), "tensor norms holds")

    for form in ("sparse", "sparse/gaps of 4 bits", "sparse/gaps of 8 bits", "sparse_quantized"):
        add(form, "starts-first", content("starts", 0, b"\1"), "tensor starts does not rise")
        add(form, "starts-fall", content("starts", 8, b"\xff" * 4), "tensor starts does not rise")
        add(form, "coding", option("positions", "gaps5"), "positions is")
        add(form, "starts-missing", renamed("starts"), "tensor starts is missing")

        def count(file: File) -> None:
            values, *_ = struct.unpack_from("<I", file.read(f"{weight}.starts"), 8)
            file.write(f"{weight}.starts", 8, struct.pack("<I", values - 1))

        add(form, "starts-count", count, "tensors starts and positions differ")
    add("sparse", "bitmap-starts", content("starts", 12, struct.pack("<I", 7)), "tensor starts")
    add("sparse", "nan", content("values", 0, struct.pack("<f", float("inf"))), "tensor values")
    long_gap = content("positions", 0, b"\xfe" * 5)
    add("sparse/gaps of 8 bits", "gap-beyond", long_gap, "tensor positions names a place")
    add("sparse/gaps of 4 bits", "values-float32", option("type", "float32"), "tensor values")
    add("sparse_quantized", "least-code", content("codes", 3, b"\x80"), "tensor codes holds -128")
    add("sparse_quantized", "nan", content("scales", 0, half_nan), "tensor scales holds NaN")
    add("sparse_quantized", "bits", option("bits", 3), "bits is 3")

    add("block_sparse", "block", option("block", [16, 3]), "block is [16, 3]")
    add("block_sparse", "block-128", option("block", [128, 4]), "block is [128, 4]")
    add("block_sparse", "block-other", option("block", [8, 4]), "tensor")
    add("block_sparse", "beyond", content("blocks", 63, b"\x80"), "tensor blocks names a block")
    add("block_sparse", "more-blocks", content("blocks", 0, b"\xff\xff\xff\1"), "tensor values")
    add("block_sparse_quantized", "nan", content("scales", 0, half_nan), "tensor scales holds NaN")
    add("block_sparse_quantized", "least", content("codes", 0, b"\x80"), "tensor codes holds -128")

    add("low_rank", "rank", option("rank", 4), "rank is 4")
    add("low_rank", "rank-missing", option("rank", None), "rank is nothing")
    add("low_rank", "left-missing", option("left", None), "left is not described")
    add("low_rank", "shape", option("shape", [rows, columns + 1]), "shape is")
    add("low_rank", "left-shape", option("shape", [rows, 2], "left"), "tensor weight", ".left")
    add("row_blocks", "none", option("blocks", 0), "blocks is 0")
    add("row_blocks", "many", option("blocks", 257), "blocks is 257")
    add("row_blocks", "one", option("blocks", 1), "shape has 80 rows")
    add("row_blocks", "three", option("blocks", 3), "block2 is not described")
    add("row_blocks", "256", option("blocks", 256), "")
    add("grouped_rows", "beyond", content("groups", 5, b"\2"), "tensor groups puts row 5")
    add("grouped_rows", "counts", content("groups", 0, bytes(rows)), "tensor groups names")
    add("grouped_rows", "missing", renamed("groups"), "tensor groups is missing")
    add("placed_blocks", "bands", option("bands", 7), "bands is 7")
    add("placed_blocks", "no-bands", option("bands", 0), "bands is 0")
    add("placed_blocks", "few-places", option("places", [0, 0, 53]), "places is [0,0,53]")
    add("placed_blocks", "below", option("places", [0, 0, -1, 0]), "places is [0,0,-1,0]")
    add("placed_blocks", "hole", option("places", [0, 0, 54, 14]), "places leave some of shape out")
    far = [0, 0, 53, 2**31 - 1]
    add("placed_blocks", "far", option("places", far), "places leave some of shape out")
    add("placed_blocks", "one", option("blocks", 1), "tensor scales is F32 [2], expected F32 [1]")
    add("placed_blocks", "scaled", option("scaled", 1), "scaled is 1")
    add("placed_blocks", "nan", content("scales", 0, b"\0\0\xc0\x7f"), "tensor scales holds NaN")
    add("placed_blocks", "missing", renamed("scales"), "tensor scales is missing")
    add("tensor_train", "ranks", option("ranks", [3, 5]), "core1 is")
    add("tensor_train", "few-ranks", option("ranks", [3]), "row_shape has")
    add("tensor_train", "row-shape", option("row_shape", [2, 2, 2]), "row_shape makes")
    add("tensor_train", "overflow", option("row_shape", [2**31 - 1] * 16), "row_shape makes")
    add("tensor_train", "core", option("core1", None), "core1 is not described")

    # Rows 37 to 47 of the embedding are padding.
    for form, positions in (("sparse", b"\0\0\0\0\x20"), ("sparse/gaps of 4 bits", b"\xff\x0a")):
        file = File(model_with(form))
        file.write("embedding.positions", 0, positions)
        words = "embedding: tensor positions names a row beyond"
        manifest.add(f"bad-{form}-padding-row", file.bytes(), MODEL, words)

    def nest(file: File) -> None:
        spec = {"kind": "row_blocks", "shape": [rows, columns], "blocks": 1}
        inner = file.spec(weight)
        for _ in range(18):
            inner = {**spec, "block0": inner}
        file.document["weights"][weight] = inner

    add("dense", "nested", nest, "block0: forms inside forms", ".block0" * 16)


def main() -> None:
    manifest = Manifest(Path(sys.argv[1]))
    torch.manual_seed(0)
    add_good(manifest)
    add_bad_containers(manifest)
    add_bad_documents(manifest)
    add_bad_forms(manifest)
    add_vocabularies(manifest)
    add_work(manifest)
    add_previews(manifest)
    manifest.close()
    print(f"{len(manifest.lines)} files in {manifest.folder}")


if __name__ == "__main__":
    main()
