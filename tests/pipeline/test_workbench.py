"""What the files of candidates say of themselves."""

from __future__ import annotations

from pathlib import Path

from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.models.checkpoint import load, save
from terselm.pipeline.workbench import Setting, Workbench
from tests.pipeline.conftest import Trained


def test_a_file_holds_the_steps_before_its_source_too(trained: Trained, tmp_path: Path):
    before = Recipe.from_list([{"method": "low_rank", "weights": "output", "rank": 6}])
    source = compress(load(trained.model), before).model
    source.provenance["perplexity"] = {"valid": 9.0}
    save(source, tmp_path / "source.safetensors")
    bench = Workbench(Setting(tmp_path / "source.safetensors", str(trained.data), tmp_path))
    recipe = [{"method": "half_bias"}]
    bench.make(recipe, tmp_path / "made.safetensors")
    said = load(tmp_path / "made.safetensors").provenance
    assert said["recipe"] == [*before.as_list(), *Recipe.from_list(recipe).as_list()]
    assert "perplexity" not in said  # that of the source
