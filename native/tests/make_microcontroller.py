"""Write a small model for examples/microcontroller, and what it must print.

Usage: python native/tests/make_microcontroller.py FOLDER (terselm must be importable). The folder
receives `model.h`, `lines.txt` and `expected.txt`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tiny import make_model

from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.exporters.base import export_model
from terselm.models.checkpoint import save
from terselm.runtime import Model

LINES = ("w01 w02 w03", "w30", "", "w05 nonsense w07 w08 w09 w10")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    recipe = Recipe.from_list([{"method": "quantize", "weights": "*", "bits": 4}])
    model = make_model("lstm")
    with torch.no_grad():  # some words much likelier than others
        model.weights()["output"].weight.mul_(6)
    small = compress(model, recipe).model
    save(small, file)
    export_model(file, folder / "model.h", target="c-array")
    runtime = Model(file, kernels="portable")
    printed = []
    for line in LINES:
        printed.append(line)
        for word, probability in runtime.predict(line, 3):
            printed.append(f"  {word} {100 * probability:.1f} %")
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in LINES))
    (folder / "expected.txt").write_text("".join(f"{line}\n" for line in printed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
