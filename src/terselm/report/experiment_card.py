"""The model card of an experiment's model, as the Hugging Face Hub reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from terselm.report import search_reading as reading
from terselm.report.model_card import (
    FILE,
    card_environment,
    card_head,
    data_title,
    fence_around,
)


def experiment_card(
    result: Mapping[str, Any], name: str, suite: str, licence: str | None = None
) -> str:
    """Return the README of the model of a run.

    Parameters
    ----------
    result : mapping
        See `terselm.experiments.work.perform`.
    name : str
        Of the model.
    suite : str
        Of the experiment, as `terselm reproduce` takes it.
    licence : str or None
        See `terselm.report.model_card.model_card`.

    Returns
    -------
    str
        Markdown with a YAML head that `huggingface_hub.ModelCard` reads.
    """
    experiment = yaml.safe_dump(result["experiment"], sort_keys=False, allow_unicode=True)
    environment = card_environment()
    environment.filters["seconds"] = reading.seconds
    body = environment.get_template("experiment_card.md.j2").render(
        result=result,
        name=name,
        suite=suite,
        data=data_title(result["data"]),
        licence=licence,
        experiment=experiment,
        fence=fence_around(experiment),
        file=FILE,
    )
    measured = [
        ("validation", float(result["valid"]["perplexity"])),
        ("test", float(result["test"]["perplexity"])),
    ]
    head = card_head(name, result["data"], measured, licence=licence)
    return f"---\n{head}\n---\n\n{body}"
