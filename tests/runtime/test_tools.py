"""tlm-run, tlm-bench and the C example agree with `terselm.runtime`, and say what is wrong."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import terselm
from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.evaluate.perplexity import perplexity
from terselm.models.checkpoint import load, save
from terselm.runtime import Model, kernel_names
from tests.runtime.test_preview import make as many_words
from tests.tiny import make_model

BUILT = Path(__file__).resolve().parents[2] / "native" / "build" / "plain"
TEXT = "w01 w02 w03\nw04 nonsense w05\n\nw06 w07"
LINES = TEXT.split("\n")

pytestmark = pytest.mark.skipif(
    not (BUILT / "tlm-run").exists() and "CI" not in os.environ,
    reason="native/build/plain/tlm-run is not built; run make -C native all example",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(make_model("lstm"), found)
    return found


def run(
    tool: str, *arguments: str | Path, text: str | bytes = ""
) -> subprocess.CompletedProcess[str]:
    given = text.encode() if isinstance(text, str) else text
    done = subprocess.run(
        [BUILT / tool, *arguments], input=given, capture_output=True, timeout=60, check=False
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def output(tool: str, *arguments: str | Path, text: str = "") -> str:
    done = run(tool, *arguments, text=text)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def error(status: int, tool: str, *arguments: str | Path, text: str | bytes = "") -> str:
    done = run(tool, *arguments, text=text)
    assert done.returncode == status, done
    assert done.stderr.startswith(f"{tool}: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def table(printed: str) -> list[tuple[str, float]]:
    rows = [line.split() for line in printed.splitlines()[1:]]
    assert [row[0] for row in rows] == [str(place + 1) for place in range(len(rows))]
    return [(word, float(percent) / 100) for _, word, percent, _ in rows]


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [word for word, _ in found] == [word for word, _ in expected]
    assert [share for _, share in found] == pytest.approx([p for _, p in expected], abs=1e-6)


def test_predict(path: Path) -> None:
    model = Model(path)
    same(table(output("tlm-run", "predict", path, "w01 w02")), model.predict("w01 w02"))
    some = output("tlm-run", "predict", path, "-k", "12", "--prefix=w1", "w01", "w02")
    same(table(some), model.predict("w01 w02", 12, prefix="w1"))


def test_predict_reads_stdin(path: Path) -> None:
    expected = Model(path).predict("w03\nw01")
    for arguments in ((), ("-",)):
        same(table(output("tlm-run", "predict", path, *arguments, text="w03\nw01\n")), expected)
    same(table(output("tlm-run", "predict", path)), Model(path).predict())


def test_more_words_than_there_are(path: Path) -> None:
    assert (
        len(table(output("tlm-run", "predict", path, "-k", "1000", "w01"))) == len(Model(path)) - 1
    )


def scores(path: Path) -> list[tuple[float, int]]:
    model = Model(path)
    found = [model.score_sequence(model.state(), model.tokenize(line + "\n")) for line in LINES]
    return [(float(logs.astype(float).sum()), len(logs)) for logs in found]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_score(ending: str, path: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"\xef\xbb\xbf" + ending.join(LINES).encode())
    rows = [line.split() for line in output("tlm-run", "score", path, text).splitlines()[1:]]
    for (total, tokens, each), (expected, count) in zip(rows, scores(path), strict=True):
        assert float(total) == pytest.approx(expected, abs=2e-4)
        assert int(tokens) == count
        assert float(each) == pytest.approx(math.exp(-expected / count), rel=1e-4)


def test_score_reads_stdin_and_long_lines(path: Path) -> None:
    words = 30_000
    printed = output("tlm-run", "score", path, text="w01 " * words)
    assert printed.splitlines()[1].split()[1] == str(words + 1)
    assert output("tlm-run", "score", path).count("\n") == 1


def stated_perplexity(printed: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in printed.splitlines())


@pytest.mark.parametrize("options", [[], ["--batch", "1"], ["--threads", "2"], ["--batch", "1000"]])
def test_perplexity(options: list[str], path: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(f"{TEXT}\n" * 700)
    model = load(path)
    ids = [token for line in LINES * 700 for token in model.vocabulary.encode_line(line)]
    found = stated_perplexity(output("tlm-run", "perplexity", path, text, *options))
    assert float(found["perplexity"]) == pytest.approx(perplexity(model, np.array(ids)), rel=1e-4)
    assert int(found["tokens"]) == len(ids)
    assert int(found["unknown"]) == 700


def test_every_kernel(path: Path) -> None:
    found = {
        name: output("tlm-run", "predict", path, "w01", "--kernels", name)
        for name in kernel_names()
    }
    for printed in found.values():
        same(table(printed), table(found["portable"]))


def test_preview(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    save(many_words(None), path)
    assert Model(path, preview=4).preview == 4
    # `output` also says that no line is on stderr.
    printed = output("tlm-run", "predict", path, "w001", "--preview", "4")
    assert [row[0] for row in table(printed)] == [
        row[0] for row in table(output("tlm-run", "predict", path, "w001"))
    ]


@pytest.mark.parametrize(("tool", "verb"), [("tlm-run", ["predict"]), ("tlm-bench", [])])
def test_a_preview_that_is_left_out_is_told(tool: str, verb: list[str], tmp_path: Path) -> None:
    small = tmp_path / "small.safetensors"
    recipe = Recipe.from_list([{"method": "quantize", "bits": 4}])
    save(compress(make_model("lstm"), recipe).model, small)
    more = ["w01"] if verb else ["--steps", "5"]
    done = run(tool, *verb, small, *more, "--preview", "4")
    assert done.returncode == 0
    assert done.stderr.startswith(
        f"{tool}: no preview of 4 bits: it would save less than a quarter"
    )
    assert done.stderr.count("\n") == 1


def test_describe(path: Path) -> None:
    printed = output("tlm-run", "describe", path)
    assert "lstm" in printed
    assert f"{path.stat().st_size} bytes" in printed
    assert "37 words" in printed


@pytest.mark.parametrize("tool", ["tlm-run", "tlm-bench"])
def test_help_has_examples(tool: str) -> None:
    assert "Examples:" in output(tool, "--help")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "verb"),
        (["sing"], "sing"),
        (["predict"], "model file"),
        (["describe", "MODEL", "more"], "more"),
        (["score", "MODEL", "one", "two"], "two"),
        (["predict", "MODEL", "--loud"], "--loud"),
        (["predict", "MODEL", "-k"], "-k needs a value"),
        (["predict", "MODEL", "-k", "0"], "from 1 to"),
        (["predict", "MODEL", "-k", "-3"], "from 1 to"),
        (["predict", "MODEL", "--threads", "99999999999999999999"], "from 1 to 256"),
        (["predict", "MODEL", "--batch=2x"], "from 1 to 4096"),
        (["predict", "MODEL", "--kernels", "abacus"], "portable"),
        (["predict", "MODEL", "--preview", "5"], "from 2 to 4"),
        (["predict", "MODEL", "--preview-fast"], "needs --preview"),
        (["score", "MODEL", "--preview", "4"], "for predict"),
    ],
)
def test_bad_usage(arguments: list[str], part: str, path: Path) -> None:
    given = [str(path) if argument == "MODEL" else argument for argument in arguments]
    assert part in error(2, "tlm-run", *given)


def test_bad_usage_of_the_benchmark(path: Path) -> None:
    assert "model file" in error(2, "tlm-bench")
    assert "--steps" in error(2, "tlm-bench", path, "--steps", "many")
    assert "too many" in error(2, "tlm-bench", path, path)


def test_bad_files(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    whole = path.read_bytes()
    for content in (b"", b"no model", whole[:-100], whole[:-1] + b"?"):
        damaged.write_bytes(content)
        for tool, verb in (("tlm-run", ["predict"]), ("tlm-bench", [])):
            assert str(damaged) in error(1, tool, *verb, damaged)
    for missing in (tmp_path / "missing", tmp_path):
        assert str(missing) in error(1, "tlm-run", "describe", missing)
        assert str(missing) in error(1, "tlm-run", "perplexity", path, missing)


def test_bad_texts(path: Path) -> None:
    assert "stdin: line 2" in error(1, "tlm-run", "score", path, text=b"w01\n\xff\n")
    assert "empty" in error(1, "tlm-run", "perplexity", path)
    assert "xyz" in error(1, "tlm-run", "predict", path, "--prefix", "xyz", "w01")


def test_a_full_disk_is_an_error(path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    with full.open("wb") as out:
        done = subprocess.run(
            [BUILT / "tlm-run", "describe", path], stdout=out, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"cannot be written" in done.stderr


def test_device_profile(path: Path) -> None:
    printed = output("tlm-bench", path, "--steps", "50", "--batch", "4", "--json")
    profile = json.loads(printed)
    assert profile["device_profile"] == 1
    assert profile["version"] == terselm.__version__
    assert set(profile["machine"]) == {"cpu", "system", "architecture"}
    assert profile["kernels"] == kernel_names()[0]
    assert (profile["steps"], profile["batch"], profile["threads"]) == (50, 4, 1)
    assert profile["model"]["bytes"] == path.stat().st_size
    assert profile["model"]["hidden"] == [20, 20]
    for name in ("step_and_probabilities_us", "step_us", "top5_us"):
        assert 0 < profile[name]["median"] <= profile[name]["p95"] < 1e6
    assert 0 < profile["open_us"] < 1e7
    assert profile["tokens_per_second"] > 100
    assert profile["working_bytes"] == Model(path).working_bytes()
    peak = profile["peak_resident_bytes"]
    assert peak is None or profile["working_bytes"] < peak < 1e9
    assert 1e7 < profile["read_bytes_per_second"] < 1e13
    floor = profile["model"]["bytes_read"] / profile["read_bytes_per_second"] * 1e6
    assert profile["floor_us"] == pytest.approx(floor, rel=0.05, abs=1e-3)
    assert profile["times_floor"] > 0


def test_benchmark_for_people(path: Path) -> None:
    printed = output("tlm-bench", path, "--steps", "20", "--threads", "2")
    assert "2 threads" in printed
    assert "tokens a second" in printed


def test_the_example(path: Path) -> None:
    if not (BUILT / "predict").exists() and "CI" not in os.environ:
        pytest.skip("native/build/plain/predict is not built; run make -C native example")
    lines = output("predict", path, "w01 w02", "w1").splitlines()
    model = Model(path)
    total = model.score_sequence(model.state(), model.tokenize("w01 w02")).sum()
    assert float(lines[0].removeprefix("ln probability: ")) == pytest.approx(total, abs=2e-4)

    def words(line: str) -> list[tuple[str, float]]:
        return [(word, float(share)) for word, share in re.findall(r"  (\S+) (\S+)", line)]

    for line, expected in (
        (lines[1], model.predict("w01 w02", 3)),
        (lines[2], model.predict("w01 w02", 3, prefix="w1")),
    ):
        assert [word for word, _ in words(line)] == [word for word, _ in expected]
        assert words(line)[0][1] == pytest.approx(expected[0][1], abs=1e-4)
    assert lines[3].startswith("state: ")
    assert lines[4] == lines[1]
