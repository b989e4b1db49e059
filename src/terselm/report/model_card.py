"""The model card of a model that a search chose, in the form of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from terselm.report import search_reading as reading
from terselm.report.sizes import human_bytes

LIMITS = """\
* It continues text like that which it was trained on, and nothing else; words outside its
  vocabulary are one unknown word to it.
* Perplexities are those of the text named here. On other text they may be far worse.
* What is in its training text, prejudice included, may be in what it predicts. Nothing is filtered.
* Times hold for the machine named here."""


def model_card(results: Mapping[str, Any], number: int, licence: str | None = None) -> str:
    """Return the text of a README.md with YAML head.

    Parameters
    ----------
    results : mapping
        The results document of a search.
    number : int
        Of the candidate.
    licence : str, optional
        Of the model, as Hugging Face names it ("apache-2.0"). A compressed model has the licence
        of what it was made from, which terselm does not know: "other" if left out.

    Raises
    ------
    ValueError
        If there is no candidate of that number.
    """
    candidate = reading.find(results, number)
    if candidate is None:
        raise ValueError(f"there is no candidate {number}")
    name = Path(str(results["model"])).stem
    head = _head(results, candidate, name, licence).to_yaml()
    return f"---\n{head}\n---\n\n{_body(results, candidate, name, licence)}"


def _head(
    results: Mapping[str, Any], candidate: Mapping[str, Any], name: str, licence: str | None
) -> ModelCardData:
    measured = [("validation", candidate["perplexity"])]
    if _is_chosen(results, candidate) and results["test"]:
        measured.append(("test", results["test"]["perplexity"]))
    data = _plain_name(results["data"])
    return ModelCardData(
        library_name="terselm",
        license=licence or "other",
        pipeline_tag="text-generation",
        tags=["language-model", "recurrent", "compressed", "on-device"],
        datasets=[data],
        metrics=["perplexity"],
        model_name=f"{name}, compressed",
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=data,
                dataset_name=data,
                dataset_split=split,
                metric_type="perplexity",
                metric_value=round(value, 3),
            )
            for split, value in measured
        ],
    )


def _body(
    results: Mapping[str, Any], candidate: Mapping[str, Any], name: str, licence: str | None
) -> str:
    source, machine = results["source"], results["machine"]
    about = "about " if candidate["estimated_latency"] else ""
    device = results["device_profile"]
    where = device["machine"] if device else machine["cpu"]
    rows = [
        ("file", f"{candidate['bytes']:,} bytes", f"{source['bytes']:,} bytes"),
        (
            "perplexity, validation",
            _perplexity(candidate),
            _perplexity(source),
        ),
        (
            f"a token, one thread, {where}",
            about + reading.microseconds(candidate["microseconds_per_token"]),
            about + reading.microseconds(source["microseconds_per_token"]),
        ),
        ("memory to run it", human_bytes(candidate["memory"]), human_bytes(source["memory"])),
    ]
    if _is_chosen(results, candidate) and results["test"]:
        rows.insert(2, ("perplexity, test (read once)", _perplexity(results["test"]), ""))
    table = "\n".join(f"| {what} | {ours} | {theirs} |" for what, ours, theirs in rows)
    return f"""\
# {name}, compressed

A recurrent language model that terselm made
{reading.times(source["bytes"], candidate["bytes"])} smaller.

| | this model | the model it was made from |
|---|---|---|
{table}

The interval says how far the perplexity would move on other text of this kind and length.
{_agreement(results, candidate)}
## Use

```
terselm predict model.safetensors "the company said"
```

```python
from terselm.runtime import Model

model = Model("model.safetensors")  # numpy alone, no torch
model.predict("the company said", k=5)
```

```c
tlm_model *model;
tlm_open_file("model.safetensors", &model, NULL, 0);
```

## How it was made

```yaml
{reading.recipe_yaml(candidate["recipe"]).rstrip()}
```

With terselm {results["terselm"]}, torch {machine["torch"]}, seed {results["seed"]}:

```
{candidate["command"]}
```

Text for calibration, training and measurement: {_plain_name(results["data"])}.

## Licence

{licence or "That of the model and the text it was made from."}

## Limits

{LIMITS}
"""


def _agreement(results: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    found = results["agreement"]
    if not found or not _is_chosen(results, candidate):
        return ""
    return (
        f"\nIts most likely token is that of the model it was made from in "
        f"{100 * found['top1_agreement']:.1f} % of {found['tokens']:,} places of the validation "
        f"text, and among its three most likely ones in {100 * found['top3_agreement']:.1f} %; the "
        f"Kullback-Leibler divergence from that model is {found['kl_divergence']:.4f} nats a "
        "token.\n"
    )


def _is_chosen(results: Mapping[str, Any], candidate: Mapping[str, Any]) -> bool:
    """Return whether test text and agreement were measured on this candidate."""
    first = next(iter((results["answers"] or {}).values()), None)
    main = results["chosen"] if results["chosen"] is not None else first
    return bool(candidate["number"] == main)


def _perplexity(measured: Mapping[str, Any]) -> str:
    text = f"{measured['perplexity']:.2f}"
    return f"{text} ({reading.interval(measured)})" if measured.get("ci95") else text


def _plain_name(data: str) -> str:
    """Return the name of a corpus without the folders it lies in."""
    return Path(data).name or data
