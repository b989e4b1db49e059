"""What is done with the answer: measured once more, described, put in its place."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terselm import __version__
from terselm.evaluate.agreement import agreement
from terselm.evaluate.evaluation import interval
from terselm.evaluate.native import nats_of
from terselm.models.checkpoint import load
from terselm.pipeline.folder import place_model, tidy, write_results
from terselm.pipeline.front import front_of
from terselm.pipeline.kenlm import compare_with_kenlm
from terselm.pipeline.measurement import Candidate
from terselm.pipeline.results import Picked, document, parts_of, pick
from terselm.pipeline.search import Search
from terselm.pipeline.workbench import CALIBRATION_TOKENS, SHORT_TOKENS, Workbench
from terselm.report.model_card import model_card
from terselm.report.search_report import write_report
from terselm.runtime.model import Model
from terselm.text.corpus import open_corpus
from terselm.text.token_cache import TokenizedSplit, tokenize


def finish(search: Search, candidates: list[Candidate]) -> dict[str, Any]:
    """Pick, measure the pick on test text, write everything, and return the results."""
    bench, request = search.bench, search.request
    folder = bench.setting.folder
    picked = pick(candidates, search.limits, search.source, request.budget)
    _make_missing(bench, picked, candidates)
    main = picked.chosen or next(iter(picked.answers.values()), None)
    results = document(
        header=_header(search),
        budget=request.budget,
        limits=search.limits,
        source=search.source,
        source_file=bench.setting.model.name,
        candidates=candidates,
        picked=picked,
        sensitivity=search.sensitivity,
        parts={
            "before": parts_of(bench.setting.model, search.source),
            "after": None if main is None else parts_of(folder / main.file, main.measured),
        },
        measured=_measured(bench, main, search.watcher.phase),
    )
    write_results(folder, results)
    write_report(results, folder)
    for name, candidate in picked.all.items():
        place_model(folder, name, candidate, model_card(results, candidate.number))
    kept = {each.number: each for each in [*front_of(candidates), *picked.all.values()]}
    tidy(folder, bench.setting.seed, list(kept.values()), candidates)
    return results


def _make_missing(bench: Workbench, picked: Picked, candidates: list[Candidate]) -> None:
    """Make the files of the front that another host made."""
    for candidate in [*front_of(candidates), *picked.all.values()]:
        path = bench.setting.folder / candidate.file
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            bench.make(candidate.recipe, path)


def _measured(
    bench: Workbench, main: Candidate | None, say: Callable[[str], None]
) -> dict[str, Any]:
    if main is None:
        return {"test": None, "agreement": None, "kenlm": None}
    path = bench.setting.folder / main.file
    say("reading the test text, once, and comparing with the source model")
    return {
        "test": _test(bench, path),
        "agreement": _agreement(bench, path),
        "kenlm": compare_with_kenlm(open_corpus(bench.setting.data), bench.setting.folder, say),
    }


def _test(bench: Workbench, path: Path) -> dict[str, Any] | None:
    corpus = open_corpus(bench.setting.data)
    text = tokenize(corpus, "test", bench.source.vocabulary)
    if not len(text):
        return None
    nats = nats_of(path, text.ids, kernels=bench.setting.kernels)
    ci95 = interval(nats)
    return {
        "perplexity": float(np.exp(nats.mean())),
        "ci95": None if ci95 is None else list(ci95),
        "tokens": len(nats),
    }


def _agreement(bench: Workbench, path: Path) -> dict[str, Any]:
    valid = bench.texts.valid
    some = TokenizedSplit(valid.ids[:SHORT_TOKENS], valid.characters, valid.unknown)
    return agreement(load(path), bench.source, some).as_dict()


def _header(search: Search) -> dict[str, Any]:
    setting = search.bench.setting
    limit = search.request.time_limit
    return {
        "terselm": __version__,
        "model": setting.model.name,
        "data": setting.data,
        "seed": setting.seed,
        "calibration_tokens": CALIBRATION_TOKENS,
        "seconds": round(search.elapsed(), 1),
        "time_limit": limit if limit < float("inf") else None,
        "machine": machine(setting.model, setting.kernels),
        "device_profile": None if setting.profile is None else setting.profile.as_dict(),
    }


def machine(model: Path, kernels: str | None) -> dict[str, Any]:
    """Return what is known of this machine and the versions in use."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernels": Model(model, kernels=kernels).kernels,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
