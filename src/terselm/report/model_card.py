"""The model card of a candidate, as the Hugging Face Hub reads it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from terselm.errors import UsageError
from terselm.report import search_reading as reading
from terselm.report.templating import template_environment

Values = Mapping[str, Any]

DATASETS = {
    "ptb": ("ptb_text_only", "Penn Treebank", "en"),
    "tinyshakespeare": ("tiny_shakespeare", "Tiny Shakespeare", "en"),
}
"""Name on the Hub, name in prose and language of the corpora that terselm knows by name."""
LICENCES = {
    "apache-2.0",
    "mit",
    "openrail",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "gpl-2.0",
    "gpl-3.0",
    "lgpl-3.0",
    "agpl-3.0",
    "mpl-2.0",
    "unlicense",
    "unknown",
}
"""Identifiers of the Hub that are given as they are; any other licence is "other", by name."""
FILE = "model.safetensors"
"""The model that lies beside the card."""
TAGS = ["terselm", "language-model", "recurrent-neural-network", "compressed", "on-device"]


def model_card(
    results: Values,
    number: int,
    licence: str | None = None,
    *,
    base_model: str | None = None,
    language: str | None = None,
) -> str:
    """Return the README of a candidate's repository on the Hugging Face Hub.

    Parameters
    ----------
    results : mapping
        The results document of a search.
    number : int
        Of the candidate.
    licence : str or None
        An identifier of the Hub ("apache-2.0") or the name of another licence. None: "other", and
        the card says that none was stated, since terselm does not know that of the source model.
    base_model : str or None
        Where the source model is on the Hub, "owner/name"; left out where not known.
    language : str or None
        ISO 639-1 code of the text; known without it for PTB and Tiny Shakespeare.

    Returns
    -------
    str
        Markdown with a YAML head that `huggingface_hub.ModelCard` reads.

    Raises
    ------
    UsageError
        If no candidate has that number.
    """
    candidate = reading.find(results, number)
    if candidate is None:
        numbers = ", ".join(str(each["number"]) for each in results["candidates"])
        raise UsageError(f"no candidate has the number {number}; there are: {numbers or 'none'}")
    further = reading.is_measured_further(results, number)
    environment = template_environment(autoescape=False)
    environment.filters |= {"text": _text, "code": _code, "line": reading.recipe_line}
    body = environment.get_template("model_card.md.j2").render(
        results=results,
        candidate=candidate,
        source=results["source"],
        test=results["test"] if further else None,
        agreement=results["agreement"] if further else None,
        name=_name(results),
        data=_dataset(results)[1],
        licence=licence,
        base_model=base_model,
        times=reading.times,
        change=reading.change,
        fence=_fence(candidate),
        file=FILE,
    )
    head = _head(results, candidate, licence, base_model, language)
    return f"---\n{head}\n---\n\n{body}"


def _head(
    results: Values,
    candidate: Values,
    licence: str | None,
    base_model: str | None,
    language: str | None,
) -> str:
    hub_name, _, known_language = _dataset(results)
    identifier = (licence or "").strip().lower()
    other = bool(identifier) and identifier not in LICENCES
    data = ModelCardData(
        base_model=base_model,
        language=language or known_language,
        license=identifier if identifier in LICENCES else "other",
        license_name=_slug(identifier) if other else None,
        library_name="terselm",
        pipeline_tag="text-generation",
        tags=TAGS,
        datasets=[hub_name] if hub_name else None,
        metrics=["perplexity"],
        model_name=_name(results),
        eval_results=_evaluations(results, candidate),
    )
    return data.to_yaml()


def _evaluations(results: Values, candidate: Values) -> list[EvalResult] | None:
    hub_name, title, _ = _dataset(results)
    measured = [("validation", candidate["perplexity"])]
    if results["test"] and reading.is_measured_further(results, candidate["number"]):
        measured.append(("test", results["test"]["perplexity"]))
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Language modeling",
            dataset_type=hub_name or _slug(reading.data_name(results)),
            dataset_name=title,
            dataset_split=split,
            metric_type="perplexity",
            metric_name=f"perplexity ({split})",
            metric_value=round(float(value), 4),
        )
        for split, value in measured
        if math.isfinite(value)
    ] or None


def _dataset(results: Values) -> tuple[str | None, str, str | None]:
    name = reading.data_name(results)
    return DATASETS.get(name, (None, name, None))


def _name(results: Values) -> str:
    return results["model"].removesuffix(".safetensors") + "-terselm"


def _slug(text: str) -> str:
    """Return a name of small letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"


def _text(value: object) -> str:
    """Return a string that Markdown and the HTML inside it show as it stands, on one line."""
    text = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", " ".join(str(value).split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(value: object) -> str:
    """Return a string as code in a line of Markdown, whatever backticks it holds."""
    text = " ".join(str(value).split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"`` {text} ``" if ticks == "``" else f"{ticks}{text}{ticks}"


def _fence(candidate: Values) -> str:
    """Return a fence longer than any run of backticks inside the blocks."""
    text = reading.recipe_yaml(candidate["recipe"]) + candidate["command"]
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
