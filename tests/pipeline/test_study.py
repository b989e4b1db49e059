"""The list of trials, as two processes see it."""

from __future__ import annotations

from pathlib import Path

from terselm.pipeline.job import Job
from terselm.pipeline.study import Study, note_job

JOB = Job("sampled", "4 bits", [{"method": "quantize", "weights": "*", "bits": 4}])


def test_of_two_that_sample_the_same_plan_the_earlier_keeps_it(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'search.sqlite3'}"
    one, other = Study(url, "search", 0), Study(url, "search", 0)
    first, second = one.take(), other.take()
    assert first.number < second.number
    note_job(second, JOB)
    assert not other.is_anothers(second, JOB.key)
    note_job(first, JOB)
    assert not one.is_anothers(first, JOB.key)
    assert other.is_anothers(second, JOB.key)
    one.fail(first, "lost")
    assert not other.is_anothers(second, JOB.key)


def test_what_the_sampler_chose_counts_though_it_failed(tmp_path: Path):
    study = Study(f"sqlite:///{tmp_path / 'search.sqlite3'}", "search", 0)
    trial = study.take()
    trial.suggest_float("bytes", 1.0, 2.0)
    study.fail(trial, "not possible")
    assert study.sampled() == 1


def test_a_plan_that_waits_is_taken(tmp_path: Path):
    study = Study(f"sqlite:///{tmp_path / 'search.sqlite3'}", "search", 0)
    trial = study.take()
    note_job(trial, JOB)
    study.put(JOB)
    assert study.is_anothers(trial, JOB.key)
