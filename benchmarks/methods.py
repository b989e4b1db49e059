"""Every compression method on one trained model: bytes against perplexity.

    python benchmarks/methods.py MODEL --data ptb --steps 1200 --out benchmarks/results/methods-NAME

Writes OUT.json (a row is measured once and kept; run again to go on), OUT.md, OUT.png and
OUT-recovered.png.
Without --full, perplexity is that of the first --steps steps of 20 parallel streams of the
validation text, which is fast and the same for all rows. With --recover the rows marked so in
experiments/methods.yaml are then trained on that share of the training text, and so is the dense
model, as their control. With --distill they learn from the dense model's predictions instead of
that text, without dropout, and the dense model as it is is their control: the way to go for a model
that is trained out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from kept_rows import kept
from machine import describe_machine
from textbook import plain_step, plain_version

import terselm
from terselm.cli.loading import split_of
from terselm.cli.output import Output
from terselm.cli.recovery import recovery
from terselm.compress.apply import StepRecord, compress
from terselm.compress.base import CALIBRATION_TOKENS, METHODS, Context
from terselm.compress.recipe import Recipe
from terselm.errors import TerselmError
from terselm.evaluate.perplexity import perplexity
from terselm.files import write_bytes
from terselm.models.checkpoint import lay_out
from terselm.models.language_model import LanguageModel
from terselm.pipeline.fingerprint import digest_of
from terselm.report.methods_plot import MethodLine, methods_plot
from terselm.report.table import Column, Table
from terselm.text.batches import TokenStreams
from terselm.text.token_cache import TokenizedSplit

EXPERIMENTS = Path(__file__).parent / "experiments" / "methods.yaml"
STREAMS, WINDOW = 20, 100
TITLES = {
    "lstm-650": "LSTM 650-650, PTB words",
    "shared-650": "LSTM 650-650 (imported), PTB words",
    "shared-200": "LSTM 200-200 (imported), PTB words",
    "shakespeare-256": "LSTM 256-256, tinyshakespeare characters",
}
"""How the models of the committed results are called, by their file names."""


def short_perplexity(model: LanguageModel, split: TokenizedSplit, steps: int) -> float:
    """Perplexity of the first steps of 20 parallel streams."""
    streams = TokenStreams(split.ids, model.vocabulary.start_id, STREAMS, WINDOW)
    state = model.initial_state(STREAMS)
    total, count = 0.0, 0
    with torch.inference_mode():
        for index in range(min(len(streams), -(-steps // WINDOW))):
            inputs, targets = streams.window(index)
            nats, state = model.negative_log_likelihood(inputs, targets, state)
            total += float(nats.double().sum())
            count += nats.numel()
    return math.exp(total / count)


def fitted(steps: list[dict[str, Any]], model: LanguageModel) -> list[dict[str, Any]]:
    """Return the steps with a rank "half" made half the width of the model."""
    half = model.config.hidden[-1] // 2
    return [{**step, "rank": half} if step.get("rank") == "half" else step for step in steps]


def trains(method: str) -> bool:
    return "epochs" in {field.name for field in dataclasses.fields(METHODS.get(method))}


def training_steps(experiment: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps that train a row: its own, or `recover`."""
    if not settings["epochs"]:
        return []
    if "training" in experiment:
        return [
            {**settings, **step} if trains(step["method"]) else step
            for step in experiment["training"]
        ]
    if experiment.get("recover") == "codes":
        return [{"method": "recover", **settings, "train_codes": True}]
    return [{"method": "recover", **settings}] if experiment.get("recover") else []


def is_asked(family: str, options: argparse.Namespace) -> bool:
    """Whether the rows of a family are to be measured; the dense row always is."""
    if family == "dense":
        return True
    return (not options.only or family in options.only) and family not in (options.without or [])


def is_measured(row: dict[str, Any], steps: list[Any], training: list[Any]) -> bool:
    if row.get("steps") != steps:
        return False
    return not training or row.get("recovered", {}).get("steps") == training


def measured(
    family: str,
    source: LanguageModel,
    steps: list[dict[str, Any]],
    training: list[dict[str, Any]],
    context: Context,
    measure: Callable[[LanguageModel], float],
) -> dict[str, Any]:
    """Return the figures of a row, before and after training."""
    row: dict[str, Any] = {"family": family, "steps": steps}
    started = time.monotonic()

    def note(target: dict[str, Any], model: LanguageModel) -> None:
        nonlocal started
        target["bytes"] = lay_out(model).size
        target["perplexity"] = measure(model)
        target["seconds"] = round(time.monotonic() - started, 1)
        started = time.monotonic()

    def after(record: StepRecord, model: LanguageModel) -> None:
        if record.number == len(steps):
            note(row, model)

    if family == "dense":
        note(row, source)
    if steps or training:
        model = compress(source, Recipe.from_list([*steps, *training]), context, after).model
        if training:
            row["recovered"] = {"steps": training}
            note(row["recovered"], model)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--full", action="store_true", help="the whole validation text")
    parser.add_argument("--recover", type=float, metavar="EPOCHS", help="train marked rows so long")
    parser.add_argument("--dropout", type=float, default=0.2, help="in that training")
    parser.add_argument("--learning-rate", type=float, help="in that training")
    parser.add_argument("--distill", action="store_true", help="train on the dense one's words")
    parser.add_argument("--only", action="append", metavar="FAMILY", help="may be repeated")
    parser.add_argument("--without", action="append", metavar="FAMILY", help="may be repeated")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    source = terselm.load(options.model)
    train = split_of(options.data, "train", source.vocabulary)
    valid = split_of(options.data, "valid", source.vocabulary)

    def measure(model: LanguageModel) -> float:
        if options.full:
            return perplexity(model, valid.ids)
        return short_perplexity(model, valid, options.steps)

    context = Context(
        recover=recovery(options.data, 0, Output(as_json=False), validation=measure),
        calibration=train.ids[:CALIBRATION_TOKENS],
    )
    settings = training_settings(options)
    result_file = options.out.with_suffix(".json")
    setting = setting_of(options)
    before = kept(result_file, setting)
    rows, machine = before.get("rows", {}), before.get("machine", describe_machine())
    dense = {"label": "dense", "family": "dense", "steps": [], "recover": True}
    experiments = [dense, *yaml.safe_load(EXPERIMENTS.read_text())]
    for experiment in experiments:
        label, family = experiment["label"], experiment["family"]
        steps = fitted(experiment["steps"], source)
        training = training_steps(experiment, settings)
        if options.distill and not steps and training and training[0]["method"] == "recover":
            training = []  # the dense model has nothing to learn from itself
        if not steps and not training and label != "dense":
            continue
        asked = is_asked(family, options)
        row = before_it = rows.get(label, {})
        if asked and not is_measured(row, steps, training):
            try:
                row = measured(family, source, steps, training, context, measure)
            except TerselmError as error:
                row = {"family": family, "steps": steps, "error": str(error)}
            machine = describe_machine()
            print(label, {key: value for key, value in row.items() if key != "steps"}, flush=True)
        if not row:
            continue
        # What the experiment file says, also of rows that were measured before.
        rows[label] = without(row, "control") | {"family": family}
        if "control" in experiment and experiment["control"] in rows:
            rows[label]["control"] = experiment["control"]
        if asked and steps:
            rows[label] = with_textbook(label, rows, source, measure)
        if rows[label] != before_it:
            write_results(options, setting, machine, in_order(rows, experiments))
    write_results(options, setting, machine, in_order(rows, experiments))


def with_textbook(
    label: str,
    rows: dict[str, Any],
    source: LanguageModel,
    measure: Callable[[LanguageModel], float],
) -> dict[str, Any]:
    """Return a row with the ratio of the plain version of its method, if there is one."""
    recipe = Recipe.from_list(rows[label]["steps"])
    plain = plain_step(recipe)
    if plain is None:
        return without(rows[label], "plain", "textbook")
    for row in rows.values():
        if row.get("plain") == plain:
            return rows[label] | {"plain": plain, "textbook": row["textbook"]}
    ratio = measure(plain_version(source, recipe)) / rows["dense"]["perplexity"]
    print(label, "textbook", round(ratio, 4), flush=True)
    return rows[label] | {"plain": plain, "textbook": round(ratio, 4)}


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def training_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the training that marked rows have."""
    settings = {"epochs": options.recover, "dropout": 0 if options.distill else options.dropout}
    if options.learning_rate is not None:
        settings["learning_rate"] = options.learning_rate
    return settings | ({"distill": True, "distill_weight": 1} if options.distill else {})


def in_order(rows: dict[str, Any], experiments: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows in the order of the experiment file."""
    labels = [experiment["label"] for experiment in experiments]
    return {label: rows[label] for label in labels if label in rows}


def setting_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what all rows of a result file have in common."""
    return {
        "model": options.model.name,
        "model_digest": digest_of(options.model),
        "data": options.data,
        "protocol": "whole validation text" if options.full else f"{options.steps} steps",
        "recover": options.recover,
        "dropout": 0 if options.distill else options.dropout,
        "distill": options.distill,
        "calibration_tokens": CALIBRATION_TOKENS,
    }


def write_results(
    options: argparse.Namespace,
    setting: dict[str, Any],
    machine: dict[str, Any],
    ordered: dict[str, Any],
) -> None:
    """Write the results so far."""
    report = {**setting, "machine": machine, "rows": ordered}
    out = options.out
    write_bytes(out.with_suffix(".json"), (json.dumps(report, indent=1) + "\n").encode())
    write_bytes(out.with_suffix(".md"), table_of(ordered).encode())
    draw(ordered, out, TITLES.get(options.model.stem, options.model.stem))


def table_of(rows: dict[str, Any]) -> str:
    dense = rows["dense"]
    heads = ["bytes", "perplexity", "ratio", "textbook", "recovered", "ratio to control"]
    columns = [Column("recipe", "left"), *(Column(head) for head in heads)]
    lines = []
    for label, row in rows.items():
        cells = [label, *[""] * len(heads)]
        if "error" in row:
            cells[1] = row["error"]
        if "recovered" in row:
            cells[1] = f"{row['recovered']['bytes']:,}"
        if "perplexity" in row:
            # The file before training, which the perplexity and the ratio are of.
            cells[1] = f"{row['bytes']:,}"
            cells[2] = f"{row['perplexity']:.2f}"
            cells[3] = f"{row['perplexity'] / dense['perplexity']:.4f}"
        if "textbook" in row:
            cells[4] = f"{row['textbook']:.4f}"
        if "recovered" in row:
            # A dense row is the control of others with the same training, and its own.
            own = label if row["family"] == "dense" else "dense"
            control = rows.get(row.get("control", own), {})
            control = control.get("recovered", control)
            cells[5] = f"{row['recovered']['perplexity']:.2f}"
            if "perplexity" in control:
                cells[6] = f"{row['recovered']['perplexity'] / control['perplexity']:.4f}"
        lines.append(tuple(cells))
    return Table(columns, lines).markdown() + "\n"


def draw(rows: dict[str, Any], out: Path, name: str) -> None:
    """Draw a line a method: as it is, and after training where that was measured."""
    before: dict[str, list[tuple[int, float]]] = {}
    after: dict[str, list[tuple[int, float]]] = {}
    for row in rows.values():
        if "perplexity" in row:
            before.setdefault(row["family"], []).append((row["bytes"], row["perplexity"]))
        if "recovered" in row:
            found = row["recovered"]
            after.setdefault(row["family"], []).append((found["bytes"], found["perplexity"]))
    # In the order of the experiment file, whatever was measured: the same in every picture.
    known = [experiment["family"] for experiment in yaml.safe_load(EXPERIMENTS.read_text())]
    styles = {family: number for number, family in enumerate(dict.fromkeys(["dense", *known]))}
    pictures = [(before, out.with_suffix(".png"), f"Every method on {name}, without training")]
    if after:
        # The dense model first; as it is, where training has nothing to give it.
        after = {"dense": before["dense"]} | after
        path = out.with_name(f"{out.name}-recovered.png")
        pictures.append((after, path, f"Every method on {name}, with recovery"))
    for families, path, title in pictures:
        lines = [
            MethodLine(family, sorted(points), styles.get(family))
            for family, points in families.items()
        ]
        methods_plot(lines, path, title=title)


if __name__ == "__main__":
    main()
