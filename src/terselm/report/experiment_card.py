"""The model card of an experiment's model, as the Hugging Face Hub reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from terselm.report import search_reading as reading
from terselm.report.model_card import (
    FILE,
    TERMS,
    card_environment,
    card_head,
    data_title,
    fence_around,
)


def experiment_card(
    result: Mapping[str, Any],
    name: str,
    suite: str,
    licence: str | None = None,
    needed: Sequence[Mapping[str, Any]] = (),
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
    needed : sequence of mapping
        The results of the runs that it took models from, and those that they took theirs from.

    Returns
    -------
    str
        Markdown with a YAML head that `huggingface_hub.ModelCard` reads.
    """
    experiment = _yaml(result)
    before = [
        {
            "name": each["name"],
            "seed": each["seed"],
            "seconds": each["seconds"],
            "experiment": _yaml(each),
        }
        for each in needed
    ]
    environment = card_environment()
    environment.filters["seconds"] = reading.seconds
    body = environment.get_template("experiment_card.md.j2").render(
        result=result,
        name=name,
        suite=suite,
        data=data_title(result["data"]),
        licence=licence,
        terms=TERMS.get(result["data"]),
        experiment=experiment,
        needed=before,
        seconds=result["seconds"] + sum(each["seconds"] for each in before),
        fence=fence_around(experiment + "".join(each["experiment"] for each in before)),
        file=FILE,
    )
    measured = [
        ("validation", float(result["valid"]["perplexity"])),
        ("test", float(result["test"]["perplexity"])),
    ]
    head = card_head(name, result["data"], measured, licence=licence)
    return f"---\n{head}\n---\n\n{body}"


def _yaml(result: Mapping[str, Any]) -> str:
    # The seed stands in the command.
    fields = {name: value for name, value in result["experiment"].items() if name != "seeds"}
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
