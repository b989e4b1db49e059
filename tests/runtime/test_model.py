"""What a user of terselm.runtime relies on."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import timeit
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terselm.errors import TerselmError, UsageError
from terselm.models.checkpoint import save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.runtime import KenLM, Model
from terselm.text.build import vocabulary_from_words
from terselm.text.byte_pair import BytePairVocabulary
from terselm.text.characters import CharacterVocabulary
from terselm.text.vocabulary import Vocabulary
from terselm.text.word import WordVocabulary
from tests.tiny import make_model

LINES = ["it's the 3rd of May, isn't it?", "wörter — und Zahlen 42 ½", "  two  spaces\tand a tab "]


def vocabularies() -> dict[str, Vocabulary]:
    words = ["<eos>", "<unk>", "the", "of", "it's", "it", "'", "s", ",", "?", "wörter", "a", "aa"]
    return {
        "words": WordVocabulary(words),
        "words out of order": WordVocabulary(["the", "<unk>", "a", "<eos>", "of"]),
        "lower case": WordVocabulary(words, lowercase=True),
        "punctuation": WordVocabulary(words, splitting="punctuation"),
        "characters": CharacterVocabulary(["\n", "<unk>", *"abc ö½"]),
        "bpe": BytePairVocabulary.train(LINES * 5, 300),
        "bpe, lower case": BytePairVocabulary.train(LINES * 5, 290, lowercase=True),
    }


VOCABULARIES = vocabularies()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for name, vocabulary in VOCABULARIES.items():
        config = ModelConfig(cell="gru", hidden=(8,), embedding=8)
        path = folder / f"{name}.safetensors"
        save(LanguageModel(config, vocabulary), path)
        made[name] = Model(path)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.safetensors"
    save(make_model("lstm"), target)
    return target


@pytest.mark.parametrize("name", VOCABULARIES)
@given(
    text=st.text(st.sampled_from("aAtThe'oOfF sö½,?.-_\n\t42—中 ") | st.characters(), max_size=40)
)
@settings(max_examples=150, deadline=None)
def test_text_becomes_the_same_tokens(models: dict[str, Model], name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert models[name].tokenize(text).tolist() == VOCABULARIES[name].encode(text)


def test_a_run_of_letters_takes_time_in_proportion(models: dict[str, Model]) -> None:
    model, encode = models["bpe"], VOCABULARIES["bpe"].encode
    # Nothing that people write is so long: it is cut where the library's buffer ends.
    assert model.tokenize("a" * 5000).tolist() == encode("a" * 4096) + encode("a" * 904)

    def seconds(letters: int) -> float:
        text = "a" * letters
        return min(
            timeit.repeat(lambda: model.tokenize(text), timer=process_time, number=1, repeat=3)
        )

    assert seconds(1_600_000) < 80 * seconds(100_000)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_tokens_have_the_same_text(models: dict[str, Model], name: str) -> None:
    model, vocabulary = models[name], VOCABULARIES[name]
    assert len(model) == len(vocabulary)
    assert model.start_token == vocabulary.start_id
    assert model.unknown_token == vocabulary.unknown_id
    for token, word in enumerate(vocabulary.words):
        if token == vocabulary.start_id and vocabulary.kind == "bpe":
            continue  # there a line end is written as <eos>
        assert model.text_of(token) == word
        if vocabulary.kind != "bpe":
            assert model.find(word) == token
    assert model.find("nothing like it") is None


def test_states_are_copied_saved_and_restored(path: Path) -> None:
    model = Model(path)
    state = model.state()
    before = state.copy()
    model.step(state, 3)
    assert state != before
    other = model.state()
    other.restore(state.save())
    assert other == state
    assert hash(other) == hash(state)
    with pytest.raises(TerselmError):
        other.restore(state.save()[:-1])
    with pytest.raises(TerselmError):
        other.restore(b"x" * len(state.save()))


def test_a_token_outside_leaves_the_state(path: Path) -> None:
    model = Model(path)
    state = model.state()
    before = state.copy()
    for token in (len(model), -1, 1 << 40):
        with pytest.raises(UsageError, match="outside"):
            model.step(state, token)
    assert state == before


def test_together_is_the_same_as_one_by_one(path: Path) -> None:
    model, batched = Model(path), Model(path, batch=5)
    alone = [model.state() for _ in range(5)]
    together = [batched.state() for _ in range(5)]
    for round_ in range(3):
        tokens = [(7 * number + round_) % len(model) for number in range(5)]
        for state, token in zip(alone, tokens, strict=True):
            model.step(state, token)
        batched.step_many(together, tokens)
    expected = np.stack([model.log_probabilities(state) for state in alone])
    assert np.array_equal(batched.log_probabilities_many(together), expected)
    with pytest.raises(UsageError, match="batch is 5"):
        batched.step_many([*together, batched.state()], [0] * 6)


def test_sequences_score_as_steps_do(path: Path) -> None:
    model = Model(path, batch=4)
    tokens = [2, 9, 9, 1, 0, 5, 30]
    state, expected, ranks = model.state(), [], []
    for token in tokens:
        scores = model.log_probabilities(state)
        expected.append(scores[token])
        ranks.append(int((scores >= scores[token]).sum()) - 1)
        model.step(state, token)
    end = model.state()
    assert model.score_sequence(end, tokens).tolist() == expected
    assert end == state
    again, places = model.rank_sequence(model.state(), tokens)
    assert again.tolist() == expected
    assert places.tolist() == ranks
    assert model.score_tokens(state, [4, 4, 0]).tolist() == [
        model.log_probabilities(state)[token] for token in (4, 4, 0)
    ]


def test_the_top_is_that_of_a_full_sort(path: Path) -> None:
    model = Model(path)
    state = model.state()
    scores = model.log_probabilities(state)
    order = np.argsort(-scores, kind="stable")
    assert [token for token, _ in model.top(state, 1000)] == order.tolist()
    fitting = [int(t) for t in order if model.text_of(int(t)).startswith("w1") and t != 14]
    assert [token for token, _ in model.top(state, 4, prefix="w1", exclude=[14])] == fitting[:4]
    assert model.top(state, 3, prefix="nothing") == []
    words = model.predict("w01 w02", k=3, exclude=["w03"])
    assert all(word not in ("<unk>", "w03") for word, _ in words)
    with pytest.raises(UsageError, match="k is 0"):
        model.top(state, 0)


def test_threads_share_a_model(path: Path) -> None:
    model = Model(path)
    expected = model.log_probabilities(model.state())
    found: list[np.ndarray] = []

    def work() -> None:
        for _ in range(50):
            result = model.log_probabilities(model.state())
        found.append(result)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(result, expected) for result in found)


def test_kenlms_names(path: Path) -> None:
    scorer = KenLM(path)
    sentence = "w01 w02 zebra"
    scores = list(scorer.full_scores(sentence))
    assert [unknown for _, _, unknown in scores] == [False, False, True, False]
    assert scorer.score(sentence) == pytest.approx(sum(score for score, _, _ in scores))
    assert scorer.perplexity(sentence) == pytest.approx(10 ** (-scorer.score(sentence) / 4))
    state, after = scorer.new_state(), scorer.new_state()
    scorer.BeginSentenceWrite(state)
    for end in ("<eos>", "</s>"):  # ours, and that of programs written for KenLM
        scorer.BeginSentenceWrite(state)
        total = 0.0
        for word in [*sentence.split(), end]:
            total += scorer.BaseScore(state, word, after)
            state, after = after, state
        assert total == pytest.approx(scorer.score(sentence), rel=1e-6)
        assert end in scorer
    natural = scorer.model.log_probabilities(scorer.model.state())
    assert scores[0][0] == pytest.approx(float(natural[scorer.model.find("w01")]) / math.log(10))
    assert "w01" in scorer
    assert "zebra" not in scorer


def test_what_kenlm_calls_a_word(path: Path, tmp_path: Path) -> None:
    scorer = KenLM(path)
    assert "<unk>" not in scorer
    assert next(scorer.full_scores("<unk>"))[2]
    for space in ("\u00a0", "\u3000", "\x1c"):  # white space to Python alone
        assert len(list(scorer.full_scores(f"w01{space}w02 w03", eos=False))) == 2
    vocabulary = vocabulary_from_words(["<eos>", "<unk>", "the", "cat"], lowercase=True)
    config = ModelConfig(cell="gru", hidden=(3,), embedding=3)
    save(LanguageModel(config, vocabulary), tmp_path / "lower.safetensors")
    lower = KenLM(tmp_path / "lower.safetensors")
    assert list(lower.full_scores("The CAT dog")) == list(lower.full_scores("the cat dog"))
    assert "The" in lower
    assert "Dog" not in lower


@pytest.mark.parametrize("tokens", [np.zeros((2, 5), int), [1.7], ["w01"], [[1, 2], [3, 4]]])
def test_what_is_no_list_of_tokens(path: Path, tokens: Any) -> None:
    model = Model(path)
    for call in (model.score_sequence, model.rank_sequence, model.score_tokens):
        with pytest.raises(UsageError, match="list of integers"):
            call(model.state(), tokens)


def test_a_path_with_a_nul(path: Path) -> None:
    with pytest.raises(UsageError, match="NUL"):
        Model(f"{path}\0.txt")


def test_the_line_end_is_found_by_its_text(tmp_path: Path) -> None:
    config = ModelConfig(cell="gru", hidden=(3,), embedding=3)
    model = LanguageModel(config, BytePairVocabulary([(99, 100)]))
    save(model, tmp_path / "pairs.safetensors")
    opened = Model(tmp_path / "pairs.safetensors")
    assert opened.find(opened.text_of(opened.start_token)) == opened.start_token
    assert [opened.find(text) for text in ("a", "bc")] == [98, 257]


def test_text_that_is_no_utf8(path: Path) -> None:
    model = Model(path)
    state = model.state()
    calls = (
        lambda: model.tokenize("w01 \udcff"),
        lambda: model.find("\udcff"),
        lambda: model.top(state, prefix="\udcff"),
    )
    for call in calls:
        with pytest.raises(UsageError, match="not UTF-8"):
            call()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    wrong = tmp_path / "none.safetensors"
    wrong.write_bytes(b"no model")
    with pytest.raises(TerselmError, match=r"none\.safetensors"):
        Model(wrong)
    with pytest.raises(TerselmError, match="missing"):
        Model(tmp_path / "missing.safetensors")


def test_damage_is_found_unless_the_file_is_trusted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[:8], "little")
    begin, _ = json.loads(content[8 : 8 + size])["output.bias"]["data_offsets"]
    content[8 + size + begin] ^= 1  # the last bit of a number
    path.write_bytes(content)
    with pytest.raises(TerselmError, match="sha256"):
        Model(path)
    assert len(Model(path, trusted=True)) == 37


def test_it_works_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from terselm.runtime import Model, KenLM\n"
        "print(sorted(m for m in sys.modules if m in ('torch', 'pydantic', 'typer')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['torch']"
