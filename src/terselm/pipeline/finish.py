"""What is done with the answer: measured once more, described, put in its place."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from terselm import __version__
from terselm.evaluate.agreement import agreement
from terselm.evaluate.evaluation import bounded_perplexity, interval
from terselm.evaluate.native import nats_of
from terselm.models.checkpoint import load
from terselm.pipeline.fingerprint import digest_of
from terselm.pipeline.folder import place_models, tidy, write_results
from terselm.pipeline.front import front_of
from terselm.pipeline.kenlm import compare_with_kenlm
from terselm.pipeline.measurement import Candidate
from terselm.pipeline.results import Picked, document, parts_of, pick
from terselm.pipeline.search import Search
from terselm.pipeline.study import Study
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
    candidates, picked = _with_files(search, candidates)
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
        measured=_measured(bench, search.study, main, search.watcher.phase),
    )
    cards = {name: model_card(results, each.number) for name, each in picked.all.items()}
    # Before the results: wherever this is cut off, no model lies there that they disown.
    place_models(folder, picked.all, cards)
    write_results(folder, results)
    write_report(results, folder)
    kept = {each.number: each for each in [*front_of(candidates), *picked.all.values()]}
    tidy(folder, bench.setting.seed, list(kept.values()), candidates)
    return results


def _with_files(search: Search, candidates: list[Candidate]) -> tuple[list[Candidate], Picked]:
    """Return the candidates, and the pick of them, with figures of the files that lie here.

    Another host may have made or measured a file of the front or of the pick. What is measured
    again here may change both, so they are looked at until nothing does.
    """
    while True:
        picked = pick(candidates, search.limits, search.source, search.request.budget)
        wanted = {each.number: each for each in [*front_of(candidates), *picked.all.values()]}
        ours = {number: _with_file(search.bench, each) for number, each in wanted.items()}
        if ours == wanted:
            return candidates, picked
        candidates = [ours.get(each.number, each) for each in candidates]


def _with_file(bench: Workbench, candidate: Candidate) -> Candidate:
    path = bench.setting.folder / candidate.file
    made = not path.exists()
    if made:
        path.parent.mkdir(exist_ok=True)
        bench.make(candidate.recipe, path)
    digest = digest_of(path)
    # Studies from before digests were kept say nothing of the file that was measured.
    if digest == candidate.digest or not (made or candidate.digest):
        return candidate
    measured = bench.measure(path, whole_text=candidate.measured.whole_text)
    return replace(candidate, measured=measured, digest=digest)


def _measured(
    bench: Workbench, study: Study, main: Candidate | None, say: Callable[[str], None]
) -> dict[str, Any]:
    if main is None:
        return {"test": None, "agreement": None, "kenlm": None}
    path = bench.setting.folder / main.file
    say("reading the test text, and comparing with the source model")
    return {
        "test": _test(bench, study, path, say),
        "agreement": _agreement(bench, path),
        "kenlm": compare_with_kenlm(open_corpus(bench.setting.data), bench.setting.folder, say),
    }


def _test(
    bench: Workbench, study: Study, path: Path, say: Callable[[str], None]
) -> dict[str, Any] | None:
    corpus = open_corpus(bench.setting.data)
    text = tokenize(corpus, "test", bench.source.vocabulary)
    if not len(text):
        return None
    # A search that is resumed reads it again; noted first, so that no reading goes uncounted.
    readings = int(study.noted("test_readings") or 0) + 1
    study.note("test_readings", readings)
    nats = nats_of(path, text.ids, kernels=bench.setting.kernels)
    mean = float(nats.mean())
    if not math.isfinite(mean):
        say(f"{path}: the perplexity on the test text is not a number; it is left out")
        return None
    ci95 = interval(nats)
    return {
        "perplexity": bounded_perplexity(mean),
        "ci95": None if ci95 is None else list(ci95),
        "tokens": len(nats),
        "readings": readings,
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
