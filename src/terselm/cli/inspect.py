"""`terselm inspect`: where the bytes of a model are."""

from __future__ import annotations

from terselm.cli.options import Debug, Json, ModelFile
from terselm.cli.output import Output


def inspect(model: ModelFile, json: Json = False, debug: Debug = False) -> None:
    """Show every weight: form, shape, bytes, multiply-accumulates (MACs), share of the file.

    MACs with a star are more than the dense matrix would need.

    **Example**: terselm inspect small.safetensors
    """
    from terselm.cli.loading import open_model
    from terselm.evaluate.cost import inspect as measure
    from terselm.report.tables import inspection_notes, inspection_table

    language_model = open_model(model, "cpu")
    inspection = measure(language_model)
    values = {"model": str(model), **inspection.as_dict()}
    Output(json).result(values, inspection_table(inspection), *inspection_notes(inspection))
