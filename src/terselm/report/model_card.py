"""The model card of a candidate, as the Hugging Face Hub reads it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment

from terselm.errors import UsageError
from terselm.report import search_reading as reading
from terselm.report.templating import template_environment

Values = Mapping[str, Any]

DATASETS = {
    "ptb": ("ptb_text_only", "Penn Treebank", "en"),
    "tinyshakespeare": ("tiny_shakespeare", "Tiny Shakespeare", "en"),
}
"""Name on the Hub, name in prose and language of the corpora that terselm knows by name."""
TERMS = {"ptb": "free for research use only"}
"""What a corpus is, where its terms bind whoever uses a model that was trained on it."""
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
    body = (
        card_environment()
        .get_template("model_card.md.j2")
        .render(
            results=results,
            candidate=candidate,
            source=results["source"],
            test=results["test"] if further else None,
            agreement=results["agreement"] if further else None,
            name=_name(results),
            data=data_title(reading.data_name(results)),
            licence=licence,
            terms=TERMS.get(reading.data_name(results)),
            base_model=base_model,
            factor=reading.factor,
            readings=reading.readings(results),
            change=reading.change,
            fence=fence_around(reading.recipe_yaml(candidate["recipe"]) + candidate["command"]),
            file=FILE,
        )
    )
    head = _head(results, candidate, licence, base_model, language)
    return f"---\n{head}\n---\n\n{body}"


def card_environment() -> Environment:
    """Return the templates of cards, with filters for what stands in Markdown."""
    environment = template_environment(autoescape=False)
    environment.filters |= {"text": _text, "code": _code, "line": reading.recipe_line}
    return environment


def _head(
    results: Values,
    candidate: Values,
    licence: str | None,
    base_model: str | None,
    language: str | None,
) -> str:
    measured = [("validation", float(candidate["perplexity"]))]
    if results["test"] and reading.is_measured_further(results, candidate["number"]):
        measured.append(("test", float(results["test"]["perplexity"])))
    return card_head(
        _name(results),
        reading.data_name(results),
        measured,
        licence=licence,
        base_model=base_model,
        language=language,
    )


def card_head(
    name: str,
    data: str,
    measured: Sequence[tuple[str, float]],
    *,
    licence: str | None = None,
    base_model: str | None = None,
    language: str | None = None,
) -> str:
    """Return the YAML head of a card.

    Parameters
    ----------
    name : str
    data : str
        The corpus.
    measured : sequence of (str, float)
        Split and perplexity.
    licence, base_model, language : str or None
        See `model_card`.
    """
    hub_name, title, known_language = DATASETS.get(data, (None, data, None))
    identifier = (licence or "").strip().lower()
    if identifier and data in TERMS:
        # A licence of the weights alone would hide the terms of the text.
        identifier = f"{identifier} weights, {data} {TERMS[data]}"
    other = bool(identifier) and identifier not in LICENCES
    evaluations = [
        EvalResult(
            task_type="text-generation",
            task_name="Language modeling",
            dataset_type=hub_name or _slug(data),
            dataset_name=title,
            dataset_split=split,
            metric_type="perplexity",
            metric_name=f"perplexity ({split})",
            metric_value=round(value, 4),
        )
        for split, value in measured
        if math.isfinite(value)
    ]
    card = ModelCardData(
        base_model=base_model,
        language=language or known_language,
        license=identifier if identifier in LICENCES else "other",
        license_name=_slug(identifier) if other else None,
        library_name="terselm",
        pipeline_tag="text-generation",
        tags=TAGS,
        datasets=[hub_name] if hub_name else None,
        metrics=["perplexity"],
        model_name=name,
        eval_results=evaluations or None,
    )
    return card.to_yaml()


def data_title(data: str) -> str:
    """Return how a corpus is called in prose."""
    return DATASETS[data][1] if data in DATASETS else data


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


def fence_around(text: str) -> str:
    """Return a fence longer than any run of backticks in a text."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
