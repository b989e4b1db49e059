"""Experiment files: what is refused, what a run depends on, what comes before what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from terselm.errors import UsageError
from terselm.experiments.experiment import Experiment, key_of, load_experiment
from terselm.experiments.suite import chosen_rows, find_suite, load_suite, needed_rows
from terselm.experiments.training import make_settings
from tests.experiments.conftest import TRAIN, WriteSuite

FOUR_BITS = [{"method": "quantize", "weights": "*", "bits": 4}]


def suite_of(**changes: Any) -> dict[str, Experiment]:
    dense = Experiment(title="dense", train={**TRAIN, **changes})
    small = Experiment(title="small", start="dense", compress=FOUR_BITS)
    return {"dense": dense, "small": small}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give train, or start"),
        ({"train": TRAIN, "start": "other"}, "layers: the model to start from has its own"),
        ({"train": {"tokens": "words"}, "start": "other"}, "tokens: the model to start from"),
        ({"start": "other"}, "without train or compress"),
        ({"start": "other", "compress": FOUR_BITS, "start_weights": [1]}, "two or more"),
        ({"start": ["other", "dense"], "start_weights": [1]}, "start_weights needs as many"),
        ({"start": ["other", "dense"], "start_member": 1}, "start_member needs one"),
        ({"start": "other", "start_member": -1}, "start_member"),
        ({"start": ["other"]}, "at least 2"),
        ({"train": {**TRAIN, "seed": 3}}, "seeds"),
        ({"train": TRAIN, "seeds": []}, "seeds"),
        ({"train": TRAIN, "seeds": [1, 1]}, "twice"),
        ({"train": TRAIN, "colour": "red"}, "colour"),
        ({"train": TRAIN, "budget": {"megabytes": -1, "mark": 90}}, "megabytes"),
        ({"train": {**TRAIN, "layers": None}}, "layers"),
        ({"train": {**TRAIN, "hidden": "200"}}, "hidden"),
        ({"train": {**TRAIN, "vocabulary_size": "5000"}}, "vocabulary_size"),
        ({"train": {**TRAIN, "vocabulary_size": -5}}, "vocabulary_size"),
        ({"train": {**TRAIN, "tokens": "word"}}, "tokens"),
        ({"train": {**TRAIN, "lowercase": "false"}}, "lowercase"),
        ({"train": {**TRAIN, "time_limit": "soon"}}, "time_limit"),
        ({"train": TRAIN, "compress": [{"method": "shrink"}]}, "step 1.*shrink"),
        ({"train": TRAIN, "compress": [{"method": "quantize", "bits": 99}]}, "bits"),
    ],
)
def test_a_wrong_file_names_itself_and_the_field(
    write_suite: WriteSuite, values: dict[str, Any], message: str
):
    folder = write_suite({"mine": values})
    with pytest.raises(UsageError, match=rf"mine\.yaml.*{message}"):
        load_suite(folder)


@pytest.mark.parametrize("text", ["- a list", "a: [", "", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path, text: str):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"odd\.yaml"):
        load_experiment(path)


def test_nothing_is_executed_from_a_file(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text("title: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(UsageError, match="is not YAML"):
        load_experiment(path)


def test_an_empty_folder_a_missing_need_and_a_circle(tmp_path, write_suite: WriteSuite):
    with pytest.raises(UsageError, match="no experiment"):
        load_suite(tmp_path)
    folder = write_suite({"small": {"start": "dense", "compress": FOUR_BITS}})
    with pytest.raises(UsageError, match="needs 'dense'"):
        load_suite(folder)
    write_suite({"dense": {"start": "small", "compress": FOUR_BITS}})
    with pytest.raises(UsageError, match="need each other"):
        load_suite(folder)


def test_a_name_that_another_ones_runs_could_have(write_suite: WriteSuite):
    load_suite(write_suite({"a-seed-one": {"train": TRAIN}}))
    with pytest.raises(UsageError, match=r"b-seed-1\.yaml: the runs of 'b'"):
        load_suite(write_suite({"b-seed-1": {"train": TRAIN}}))


def test_rows_bring_what_they_need():
    suite = {
        "other": Experiment(title="other", train=TRAIN),
        "teacher": Experiment(title="teacher", train=TRAIN),
        "dense": Experiment(title="dense", train=TRAIN, teacher="teacher"),
        "small": Experiment(title="small", start="dense", compress=FOUR_BITS),
    }
    assert needed_rows(suite, ["small"]) == ["teacher", "dense", "small"]
    assert chosen_rows(suite, ["small", "other"]) == ["other", "small"]
    assert chosen_rows(suite, []) == list(suite)
    with pytest.raises(UsageError, match="smal'.*did you mean 'small'"):
        chosen_rows(suite, ["smal"])


def test_the_key_follows_what_the_model_depends_on():
    suite = suite_of()
    assert key_of("small", 0, suite) == key_of("small", 0, suite_of())
    assert key_of("small", 0, suite) != key_of("small", 1, suite)
    changed = suite_of(hidden=9)
    assert key_of("dense", 0, suite) != key_of("dense", 0, changed)
    assert key_of("small", 0, suite) != key_of("small", 0, changed)
    # The corpus, but for experiments that always read the same.
    assert key_of("small", 0, suite) == key_of("small", 0, suite, "ptb")
    assert key_of("small", 0, suite) != key_of("small", 0, suite, "other")
    named = {**suite, "dense": suite["dense"].model_copy(update={"data": "tinyshakespeare"})}
    assert key_of("dense", 0, named) == key_of("dense", 0, named, "other")


def test_one_run_of_a_teacher_may_teach_every_seed():
    suite = suite_of()
    student = {"title": "student", "train": TRAIN, "teacher": "dense"}
    suite["alike"] = Experiment(**student)
    suite["fixed"] = Experiment(**student, teacher_seed=2)
    assert suite["alike"].needed_runs(5) == [("dense", 5)]
    assert suite["fixed"].needed_runs(5) == [("dense", 2)]
    assert key_of("fixed", 5, suite) != key_of("alike", 5, suite)
    with pytest.raises(ValueError, match="generated needs a teacher"):
        Experiment(title="none", train=TRAIN, generated=5)
    with pytest.raises(ValueError, match="teacher_seed"):
        Experiment(title="none", train=TRAIN, teacher_seed=2)


def test_all_seeds_may_start_from_the_same_run():
    suite = suite_of()
    small = {"title": "small", "start": "dense", "compress": FOUR_BITS}
    suite["own"] = Experiment(**small)
    suite["same"] = Experiment(**small, start_seed=2)
    assert suite["own"].needed_runs(5) == [("dense", 5)]
    assert suite["same"].needed_runs(5) == [("dense", 2)]
    assert suite["same"].start_runs(5) == [("dense", 2)]
    assert key_of("same", 5, suite) != key_of("own", 5, suite)
    assert suite["dense"].start_runs(5) == []
    with pytest.raises(ValueError, match="start_seed without start"):
        Experiment(title="none", train=TRAIN, start_seed=2)


def test_several_models_may_be_merged():
    suite = suite_of()
    both = {"title": "both", "start": ["dense", "dense-seed-3"]}
    suite["both"] = Experiment(**both)
    suite["weighted"] = Experiment(**both, start_weights=[0.5, 0.25])
    assert suite["both"].needed_runs(5) == [("dense", 5), ("dense", 3)]
    assert key_of("both", 5, suite) != key_of("weighted", 5, suite)


def test_a_model_may_be_trained_further():
    suite = suite_of()
    suite["more"] = Experiment(title="more", start="dense", train={"epochs": 2})
    suite["longer"] = Experiment(title="more", start="dense", train={"epochs": 3})
    assert Experiment(title="usual", start="dense", train={}).needs() == ["dense"]
    assert suite["more"].needed_runs(5) == [("dense", 5)]
    assert key_of("more", 5, suite) != key_of("longer", 5, suite)


def test_a_run_may_be_named_as_a_teacher():
    suite = suite_of()
    student = {"title": "student", "train": TRAIN}
    several = Experiment(**student, teacher=["dense", "dense-seed-3"])
    suite["pupil"] = several
    assert several.needed_runs(5) == [("dense", 5), ("dense", 3)]
    assert several.needs() == ["dense", "dense"]
    fixed = several.model_copy(update={"teacher_seed": 1})
    assert fixed.teacher_runs(5) == [("dense", 1), ("dense", 3)]
    other = {**suite, "pupil": Experiment(**student, teacher=["dense", "dense-seed-4"])}
    assert key_of("pupil", 5, suite) != key_of("pupil", 5, other)


def test_all_seeds_may_read_the_same_text():
    student = {"title": "student", "train": TRAIN, "teacher": "dense", "generated": 9}
    own = suite_of() | {"pupil": Experiment(**student)}
    same = suite_of() | {"pupil": Experiment(**student, generated_seed=0)}
    assert key_of("pupil", 0, own) != key_of("pupil", 0, same)
    with pytest.raises(ValueError, match="generated_seed without generated"):
        Experiment(title="none", train=TRAIN, generated_seed=0)


def test_several_may_teach():
    suite = suite_of()
    suite["other"] = Experiment(title="other", train=TRAIN)
    student = {"title": "student", "start": "dense", "compress": FOUR_BITS, "teacher_seed": 0}
    suite["pupil"] = Experiment(**student, teacher=["dense", "other"])
    assert suite["pupil"].needs() == ["dense", "dense", "other"]
    assert suite["pupil"].needed_runs(5) == [("dense", 5), ("dense", 0), ("other", 0)]
    assert suite["pupil"].teacher_runs(5) == [("dense", 0), ("other", 0)]
    alone = {**suite, "pupil": Experiment(**student, teacher="dense")}
    assert key_of("pupil", 5, suite) != key_of("pupil", 5, alone)
    assert needed_rows(suite, ["pupil"]) == ["dense", "other", "pupil"]
    reader = {**suite, "pupil": Experiment(**student, teacher=["dense", "other"], generated=9)}
    assert key_of("pupil", 5, suite) != key_of("pupil", 5, reader)
    with pytest.raises(ValueError, match="teacher"):
        Experiment(**student, teacher=[])


def test_the_key_does_not_follow_titles_and_marks():
    suite = suite_of()
    values = {**suite["dense"].model_dump(), "title": "another", "note": "read this"}
    values["published"] = {"where": "Table 9", "perplexity": 3.0}
    values["seeds"] = [0, 1]
    renamed = {**suite, "dense": Experiment(**values)}
    assert key_of("small", 0, suite) == key_of("small", 0, renamed)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train: {layers: 0}", "train: layers: .* not 0"),
        ("train: {layers: '2'}", "train: layers: .* not '2'"),
        ("train: {hidden: [8, 8], layers: 3}", "train: layers is 3, but hidden has 2 sizes"),
        ("train: {hidden: []}", "train: hidden has no size"),
        ("train: {hiden: 8}", "train: .*hiden"),
        ("train: [", "is not YAML"),
        ("1: 2", "1"),
    ],
)
def test_bad_files_are_one_line(text: str, says: str, tmp_path: Path):
    path = tmp_path / "bad.yaml"
    path.write_text(f"title: bad\n{text}\n")
    with pytest.raises(UsageError, match=says) as caught:
        load_experiment(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["paper", "frontier", "shakespeare", "smoke"])
def test_suites_that_come_along_are_sound(name: str):
    suite = load_suite(find_suite(name))
    for experiment in suite.values():
        if experiment.train is not None:
            assert make_settings(experiment.train).model.hidden


def test_the_paper_suite_has_every_row_of_its_tables():
    suite = load_suite(find_suite("paper"))
    rows = [each.published for each in suite.values() if each.published is not None]
    found = {
        where: sorted(row.row for row in rows if row.where == where)
        for where in ("Table 1", "Table 2", "Table 3")
    }
    assert found == {
        "Table 1": list(range(1, 21)),
        "Table 2": [1, 2],
        "Table 3": list(range(1, 7)),
    }


def test_a_folder_of_the_same_name_does_not_hide_a_suite(tmp_path, monkeypatch):
    (tmp_path / "paper").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_suite(find_suite("paper"))
    assert find_suite("./paper") == Path("paper")


def test_an_unknown_suite():
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        find_suite("papers")
