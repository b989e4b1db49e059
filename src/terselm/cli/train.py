"""`terselm train`: from text to a trained model file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terselm.cli.options import Data, Debug, Device, Json, Out
from terselm.cli.output import Output
from terselm.errors import TerselmError
from terselm.zoo import model_path

if TYPE_CHECKING:
    from terselm.experiments.training import Trainer
    from terselm.models.language_model import LanguageModel

MODEL, TEXT, OPTIMIZATION = "Model", "Text", "Optimization"
REGULARIZATION, RUN = "Regularization", "Run"


def _option(flag: str, help_text: str, panel: str, **more: Any) -> Any:
    return typer.Option(flag, help=help_text, rich_help_panel=panel, show_default=False, **more)


Config = Annotated[
    Path | None,
    _option("--config", "YAML file with any of these settings; flags win over it.", RUN),
]
Start = Annotated[
    Path | None,
    typer.Option(
        "--start",
        metavar="MODEL",
        help="Train this model further, with its own sizes and words: a file, or zoo:NAME. "
        "[random weights]",
        rich_help_panel=MODEL,
        show_default=False,
        parser=model_path,
    ),
]
Cell = Annotated[
    str | None,
    _option(
        "--cell",
        "lstm, gru, rnn_tanh, rnn_relu; with --projection also projected_gru, "
        "projected_rnn_tanh, projected_rnn_relu. [lstm]",
        MODEL,
    ),
]
Layers = Annotated[int | None, _option("--layers", "Recurrent layers. [2]", MODEL, min=1)]
HiddenSize = Annotated[int | None, _option("--hidden", "Units of a layer. [200]", MODEL, min=1)]
Embedding = Annotated[
    int | None, _option("--embedding", "Size of the word vectors. [as --hidden]", MODEL, min=1)
]
Projection = Annotated[
    int | None,
    _option(
        "--projection",
        "Size of the recurrent projection of an lstm or projected_... cell. [none]",
        MODEL,
        min=1,
    ),
]
Tied = Annotated[
    bool | None, _option("--tied/--untied", "Output layer uses the embedding. [untied]", MODEL)
]
OutputKind = Annotated[
    str | None, _option("--output-layer", "softmax or adaptive. [softmax]", MODEL)
]
Cutoffs = Annotated[
    str | None,
    _option("--cutoffs", "Of the adaptive output: ranks such as 2000,10000.", MODEL),
]
Tokens = Annotated[
    str | None,
    _option("--tokens", "words, characters or bpe (byte-pair encoding). [words]", TEXT),
]
VocabularySize = Annotated[
    int | None,
    _option(
        "--vocabulary-size",
        "Most tokens. [10000 words, or all where the text says <unk> already; all characters; "
        "4096 byte pairs]",
        TEXT,
        min=2,
    ),
]
Lowercase = Annotated[bool | None, _option("--lowercase", "A to Z become a to z.", TEXT)]
Optimizer = Annotated[
    str | None,
    _option("--optimizer", "sgd, adam, adamw, adam_then_sgd or muon. [sgd]", OPTIMIZATION),
]
LearningRate = Annotated[
    float | None,
    _option(
        "--learning-rate",
        "Of the optimizer that starts. [20 for sgd; 0.002 for adam, adamw, adam_then_sgd, muon]",
        OPTIMIZATION,
    ),
]
Loss = Annotated[
    str | None,
    _option(
        "--loss",
        "full; or for very many words sampled (softmax over a sample) or nce (noise-contrastive "
        "estimation). [full]",
        OPTIMIZATION,
    ),
]
Samples = Annotated[
    int | None,
    _option("--samples", "Words that --loss sampled or nce scores. [8192]", OPTIMIZATION, min=1),
]
Schedule = Annotated[
    str | None,
    _option(
        "--schedule",
        "Of the learning rate. constant; exponential: times --decay every epoch; plateau: times "
        "--decay after an epoch that is not the best so far; cosine: to zero at the end. [plateau]",
        OPTIMIZATION,
    ),
]
Decay = Annotated[
    float | None,
    _option("--decay", "Factor on the learning rate, as --schedule says. [0.5]", OPTIMIZATION),
]
DecayAfter = Annotated[
    int | None, _option("--decay-after", "Epochs before decay begins. [0]", OPTIMIZATION)
]
WeightDecay = Annotated[
    float | None,
    _option(
        "--weight-decay",
        "Pull of weights to zero: L2 for sgd and adam, decoupled for adamw and muon. [0]",
        REGULARIZATION,
    ),
]
Clip = Annotated[
    float | None, _option("--clip", "Greatest norm of the gradient. [0.25]", OPTIMIZATION)
]
Epochs = Annotated[
    int | None, _option("--epochs", "Passes over the text. [40]", OPTIMIZATION, min=1)
]
Batch = Annotated[
    int | None, _option("--batch", "Parallel streams of text. [20]", OPTIMIZATION, min=1)
]
Window = Annotated[
    int | None,
    _option("--window", "Steps of back-propagation through time. [35]", OPTIMIZATION, min=1),
]
Dropout = Annotated[
    float | None, _option("--dropout", "On the output of every layer. [0]", REGULARIZATION)
]
InputDropout = Annotated[
    float | None, _option("--input-dropout", "On the word vectors. [0]", REGULARIZATION)
]
EmbeddingDropout = Annotated[
    float | None, _option("--embedding-dropout", "On whole words. [0]", REGULARIZATION)
]
WeightDrop = Annotated[
    float | None, _option("--weight-drop", "On recurrent weights. [0]", REGULARIZATION)
]
ProjectionDropout = Annotated[
    float | None,
    _option("--projection-dropout", "On what the output projection makes. [0]", REGULARIZATION),
]
Locked = Annotated[
    bool | None,
    _option("--locked-dropout/--plain-dropout", "One mask a window. [plain]", REGULARIZATION),
]
Activation = Annotated[
    float | None,
    _option("--activation-regularization", "Weight of squared outputs. [0]", REGULARIZATION),
]
TemporalActivation = Annotated[
    float | None,
    _option("--temporal-activation-regularization", "Of squared changes. [0]", REGULARIZATION),
]
Averaging = Annotated[
    str | None,
    _option(
        "--averaging",
        "Of the weights: none, ema (exponential moving average) or nt_asgd (plain average from "
        "the epoch on in which validation stops improving). [none]",
        REGULARIZATION,
    ),
]
EarlyStopping = Annotated[
    int | None,
    _option(
        "--early-stopping",
        "Stop after so many epochs without a better validation perplexity. [never]",
        RUN,
        min=1,
    ),
]
TimeLimit = Annotated[
    str | None,
    _option(
        "--time-limit",
        "Of training and validation: 600 (seconds), 90s, 10min, 2h. [none]",
        RUN,
    ),
]
Precision = Annotated[str | None, _option("--precision", "auto, float32 or bfloat16. [auto]", RUN)]
Resume = Annotated[bool, _option("--resume", "Go on where a run of this --out stopped.", RUN)]
OptionalSeed = Annotated[int | None, _option("--seed", "Seed of everything random. [0]", RUN)]


def train(
    data: Data,
    out: Out,
    config: Config = None,
    start: Start = None,
    cell: Cell = None,
    layers: Layers = None,
    hidden: HiddenSize = None,
    embedding: Embedding = None,
    projection: Projection = None,
    tied: Tied = None,
    output: OutputKind = None,
    cutoffs: Cutoffs = None,
    tokens: Tokens = None,
    vocabulary_size: VocabularySize = None,
    lowercase: Lowercase = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    loss: Loss = None,
    samples: Samples = None,
    schedule: Schedule = None,
    decay: Decay = None,
    decay_after: DecayAfter = None,
    epochs: Epochs = None,
    batch: Batch = None,
    window: Window = None,
    clip: Clip = None,
    dropout: Dropout = None,
    input_dropout: InputDropout = None,
    embedding_dropout: EmbeddingDropout = None,
    weight_drop: WeightDrop = None,
    projection_dropout: ProjectionDropout = None,
    locked_dropout: Locked = None,
    activation_regularization: Activation = None,
    temporal_activation_regularization: TemporalActivation = None,
    weight_decay: WeightDecay = None,
    averaging: Averaging = None,
    early_stopping: EarlyStopping = None,
    time_limit: TimeLimit = None,
    precision: Precision = None,
    seed: OptionalSeed = None,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a recurrent language model on text.

    The run's checkpoint and its metrics.jsonl lie in OUT.train; a run that was stopped, in
    whatever way, goes on with --resume to the very same weights. Ctrl-C saves the best so far.

    **Example**: terselm train --data ptb --hidden 200 --epochs 11 --out lstm.safetensors
    """
    flags = {
        name: value
        for name, value in locals().items()
        if name not in ("data", "out", "config", "start", "device", "resume", "json", "debug")
        and value is not None
    }
    from terselm.cli.loading import choose_device, open_model, prepare_output
    from terselm.cli.settings import read_settings
    from terselm.evaluate.perplexity import validation_perplexity
    from terselm.experiments.training import Trainer
    from terselm.text.corpus import open_corpus

    prepare_output(out, {"the --config file": config, "the --start model": start}, data)
    choose_device(device)
    model = None if start is None else open_model(start, "cpu")
    settings = read_settings(config, flags, model)
    trainer = Trainer(settings, open_corpus(data), start=model)
    screen = Output(json)
    if model is not None and not resume:
        before = validation_perplexity(model, trainer.valid_tokens.ids)
        screen.remark(f"{start}: valid perplexity {before:.2f}, before it is trained further")
        _say_what_stays(model, str(start), screen)
    _train(trainer, out, device, resume, screen)


def _say_what_stays(model: LanguageModel, start: str, output: Output) -> None:
    """Say that codes are not trained, where the model has any."""
    from terselm.train.run import trainable_parameters

    learn = sum(parameter.numel() for parameter in trainable_parameters(model).values())
    total = model.parameter_count()
    if learn < total:
        output.remark(
            f"{start} is compressed: its codes stay, only {learn:,} numbers beside them (scales, "
            f"biases) learn; to train all {total:,}, unpack it first: terselm compress {start} "
            "--recipe unpack --out FILE"
        )


def _train(trainer: Trainer, out: Path, device: str, resume: bool, output: Output) -> None:
    from terselm.models.checkpoint import save
    from terselm.train.progress import ProgressObserver

    output.remark(
        f"{trainer.corpus.name}: {len(trainer.train_tokens.ids):,} training tokens, "
        f"{len(trainer.model.vocabulary):,} in the vocabulary; "
        f"{trainer.model.parameter_count():,} parameters"
    )
    result = trainer.train(
        out.with_name(f"{out.name}.train"),
        resume=resume,
        device=device,
        observer=ProgressObserver("train"),
    )
    if not is_main_process():
        return
    if result.stopped == "interrupted" and not result.history:
        output.remark("nothing to save before the first epoch's end; --resume goes on")
        raise KeyboardInterrupt
    if not math.isfinite(result.valid_perplexity or 1.0):
        raise TerselmError(
            f"the validation perplexity is {result.valid_perplexity}: training diverged; nothing "
            "was written; try a lower --learning-rate"
        )
    size = save(result.model, out)
    report = {
        "out": str(out),
        "bytes": size,
        "parameters": result.model.parameter_count(),
        "valid_perplexity": result.valid_perplexity,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "stopped": result.stopped,
        "tokens_per_second": result.tokens_per_second,
    }
    output.result(
        report,
        f"valid perplexity {result.valid_perplexity:.2f} (epoch {result.best_epoch} of "
        f"{len(result.history)}), {result.tokens_per_second:,.0f} tokens a second",
        f"wrote {out}: {size:,} bytes",
    )
    if result.stopped == "interrupted":
        raise KeyboardInterrupt


def is_main_process() -> bool:
    """Return whether this process is the one that writes files, also under `accelerate`."""
    return os.environ.get("RANK", "0") == "0"
