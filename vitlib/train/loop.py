"""The training loop, to be read from top to bottom."""

import math
import platform
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitlib.data import open_source
from vitlib.data.seeds import generator_at, seed_of
from vitlib.nn.vit import VisionTransformer
from vitlib.train.augmented import AUGMENTATION, augmented, remaining
from vitlib.train.ema import Ema
from vitlib.train.feed import Feed, make_feed, steps_of_epoch
from vitlib.train.folder import WEIGHTS
from vitlib.train.journey import Journey
from vitlib.train.judge import Verdict, judge
from vitlib.train.objective import loss_of_ignorance, training_loss
from vitlib.train.optimiser import clip, make_optimisers, set_rate
from vitlib.train.processes import Processes, distribute, only_accumulating, processes
from vitlib.train.progress import Progress, gemm_rate, opening_lines, training_flops
from vitlib.train.recipe import Recipe
from vitlib.train.records import Line, Records, curve
from vitlib.train.report import write_report
from vitlib.train.schedule import rate
from vitlib.train.settings import choices, prepare, settings, working_precision
from vitlib.train.stopping import Interrupted, Stop, listening
from vitlib.train.trainee import Trainee
from vitlib.train.window import Window
from vitlib.weights import load_weights, save_weights

# Places of what is drawn, beside the step and the process (`vitlib.data.seeds`).
_WEIGHTS, _MASKS = range(2)
_HEED = 10  # parts of steps of a GPU, which a look would hold up, from one look to the next
_DIVERGED = 3  # times what a model loses that knows nothing


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        model: The trained model, in eval mode, on the device that it was trained on.
        record: Recipe, data, result and environment, as they stand in the weights file.
        first: Whether this is the process that has written them.
    """

    model: VisionTransformer
    record: dict[str, Any]
    first: bool = True


def train(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    overwrite: bool = False,
    adjust: bool = False,
    progress: bool = True,
) -> Run:
    """Train a model by a recipe, then test it once.

    The model of the last epoch is the result, whatever the others were like: the test images
    decide nothing. With the same seed, machine and number of threads, a CPU gives the same weights
    again, also if the run was interrupted and taken up in between.

    Args:
        recipe: What to do.
        folder: Where log, checkpoints and at the end the weights go. A run of the same recipe that
            did not finish there goes on. None keeps everything in memory.
        overwrite: Replace the run in `folder`.
        adjust: Go on with the run in `folder` though its lr, warm-up, clipping or weight decay were
            others; the record says since which step.
        progress: Say what was chosen, and show a bar, on stderr.

    Raises:
        ValueError: The model does not fit the data, `folder` cannot be used, or the loss diverges.
        OSError: The disk is full, or fails, during the run.
        ConnectionError: Another of the processes has ended.
        Interrupted: The run was asked to stop, and has saved where it was.
    """
    # Listens longest: torchrun ends those whose neighbour has died by SIGTERM, which must not come
    # before they have said so.
    with listening() as stop, processes() as us, settings(recipe.engine, us.device):
        return _train(recipe, folder, overwrite, adjust, progress and us.first, us, stop)


def _train(
    recipe: Recipe,
    folder: Path | None,
    overwrite: bool,
    adjust: bool,
    speaks: bool,
    us: Processes,
    stop: Stop,
) -> Run:
    # What is trained on what.
    source = open_source(recipe.data)
    config = recipe.network(len(source.classes))
    feed = make_feed(source, recipe, config, us)
    augment = remaining(recipe.augment, feed)
    torch.manual_seed(seed_of(recipe.seed, _WEIGHTS))
    model = VisionTransformer(config).to(us.device)
    recipe.begin(model)

    # How it is computed.
    precision = working_precision(recipe.engine, us.device)
    narrow = None if precision == torch.float32 else precision
    autocast = partial(torch.autocast, us.device.type, narrow, enabled=narrow is not None)
    prepare(model, recipe.engine)
    trained = distribute(model, recipe.engine.parallel, us, narrow)

    # What changes, and by which rule.
    optimisers = make_optimisers(
        model,
        optimiser=recipe.optimiser,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
        layer_decay=recipe.layer_decay,
    )
    ema = Ema(model, recipe.ema) if recipe.ema else None
    averaged = partial(ema.replacing, model) if ema else nullcontext
    scaler = torch.amp.GradScaler(us.device.type, enabled=precision == torch.float16)
    window = Window(us.device)

    # From where to where.
    steps_per_epoch = steps_of_epoch(feed, recipe.batch_size)
    steps = recipe.epochs * steps_per_epoch
    warmup = math.ceil(recipe.warmup * steps)
    log_every = recipe.log_every or steps_per_epoch
    at_once = us.device.type == "cpu" or recipe.engine.checkpoint_seconds == 0
    heed_every = 1 if at_once else max(1, _HEED // recipe.accumulate)
    too_much = _DIVERGED * loss_of_ignorance(recipe.loss, config.num_classes)
    trainee, told = Trainee(model, optimisers, ema, scaler), recipe.to_dict()
    engine = recipe.engine
    record: dict[str, Any] = {"recipe": told, "data": _described(feed), "faults": feed.faults}
    about = {"config": config.to_dict(), "record": record}
    journey = Journey(
        folder, us, trainee, window, about, every=engine.checkpoint_seconds, keep=engine.keep
    )
    journey.begin(told, overwrite=overwrite, adjust=adjust)
    if speaks:
        for line in (opening_lines(choices(recipe, config, us)), *feed.notes):
            print(line, file=sys.stderr)
        if journey.done:
            print(f"goes on after step {journey.done:,} of {steps:,}", file=sys.stderr)

    writes = us.first and folder is not None
    log = Records(
        folder if writes else None, resume_step=journey.done, tensorboard=engine.tensorboard
    )
    bar = Progress(
        steps=steps,
        done=journey.done,
        steps_per_epoch=steps_per_epoch,
        batch_size=recipe.batch_size,
        flops=training_flops(config),
        rate=us.count * gemm_rate(us.device, precision) if speaks or writes else math.nan,
        device=us.device,
        show=speaks,
    )
    with log, bar:
        for step, batch in enumerate(feed.training(journey.done, steps), start=journey.done):
            # What is drawn depends on the step alone: a run that is taken up is the same run.
            torch.manual_seed(seed_of(recipe.seed, _MASKS, step, us.rank))
            generator = generator_at(us.device, recipe.seed, AUGMENTATION, step, us.rank)
            set_rate(optimisers, rate(recipe.schedule, step, total=steps, warmup=warmup))

            parts = batch.split(recipe.accumulate)
            for number, (images, labels) in enumerate(parts, start=1):
                images, targets = augmented(images, labels, augment, config.num_classes, generator)
                with only_accumulating(trained, number < len(parts)):
                    with autocast():
                        logits = trained(feed.normalisation(images))
                        loss = training_loss(
                            recipe.loss,
                            logits,
                            targets,
                            label_smoothing=recipe.label_smoothing,
                            gradients=config.gradients,
                        )
                    scaler.scale(loss / len(parts)).backward()
                window.add(step, loss, logits, labels)

            for optimiser in optimisers:
                scaler.unscale_(optimiser)
            norm = clip(model, recipe.clip)
            if not scaler.is_enabled():  # which leaves such a step out
                window.check(step, norm)
            for optimiser in optimisers:
                scaler.step(optimiser)
                optimiser.zero_grad()
            scaler.update()
            if ema is not None:
                ema.update(model, step)
            bar.step()

            # Now and then: has it failed, what is to be written down, is it time to save or to go?
            done = step + 1
            ends_epoch = done % steps_per_epoch == 0
            logs = ends_epoch or done % log_every == 0
            if not logs and done % heed_every:
                continue
            failed, astray, due, leaving = us.any(
                window.failed() is not None,
                float(window.last) > too_much,
                journey.due,
                stop.asked,
            )
            journey.prove(not (failed or astray))
            if failed:
                where, how = window.failed(), "or its gradient is NaN or infinite"
                us.fail_together(
                    None
                    if where is None
                    else ValueError(_lost(where, how, steps_per_epoch, recipe))
                )
            best = False
            if logs:
                means = window.close(us)
                if means.loss > too_much:
                    raise ValueError(
                        _lost(step, f"has grown to {means.loss:.3g}", steps_per_epoch, recipe)
                    )
                speed, validation = bar.measured(means.loss, means.accuracy), None
                if recipe.validation and ends_epoch:
                    with bar.pause(), averaged():
                        validation = judge(model, feed, "validation", us, autocast).measures
                    best = journey.compare(validation.accuracy, done)
                line = Line(
                    step=done,
                    epoch=done / steps_per_epoch,
                    loss=means.loss,
                    accuracy=means.accuracy,
                    validation_loss=validation.loss if validation else None,
                    validation_accuracy=validation.accuracy if validation else None,
                    lr=optimisers[-1].param_groups[-1]["lr"],
                    gradient_norm=float(norm),
                    seconds=round(journey.seconds, 2),
                    **asdict(speed),
                )
                log.append(line)
            if done < steps:
                if (due and not astray) or best or leaving:
                    with bar.pause():
                        us.once(log.sync)
                        journey.save(done)
                if leaving:
                    again = ", without --overwrite," if overwrite else ""
                    raise Interrupted(
                        f"stopped after step {done:,} of {steps:,}"
                        f"{f' and saved. The same command{again} goes on.' if folder else '.'}"
                    )
        us.once(log.sync)

    # The test, once.
    with averaged():
        verdict = judge(model, feed, "test", us, autocast)
    us.share(feed.faults)
    record |= {
        "result": {**verdict.measures.to_dict(), "seconds": round(journey.seconds, 2)},
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": str(us.device),
            "threads": torch.get_num_threads(),
            "processes": us.count,
            "precision": str(precision).removeprefix("torch."),
        },
    }
    finished = VisionTransformer(config).to(us.device)
    load_weights(finished, trainee.result())
    if folder is not None:
        us.once(lambda: _leave(folder, finished, record, verdict))
    return Run(finished.eval(), record, us.first)


def _described(feed: Feed) -> dict[str, Any]:
    """What whoever uses the weights has to know of the data."""
    return {
        "name": feed.name,
        "classes": feed.classes,
        "normalisation": asdict(feed.normalisation),
        "bright_on_dark": feed.bright_on_dark,
        "margin": feed.margin,
    }


def _leave(
    folder: Path, model: VisionTransformer, record: dict[str, Any], verdict: Verdict
) -> None:
    """Write the plot, the report and, last, the weights: they say that the run is finished."""
    try:
        plot = curve(folder)
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        plot = None
    labels = torch.tensor([mistake.label for mistake in verdict.measures.worst])
    classes = record["data"]["classes"]
    write_report(folder, record, verdict.measures, verdict.worst, labels, classes, plot)
    save_weights(model, folder / WEIGHTS, record)


def _lost(step: int, how: str, steps_per_epoch: int, recipe: Recipe) -> str:
    """What to say of a run whose loss is lost, and what to do."""
    epoch, batch = divmod(step, steps_per_epoch)
    return (
        f"the loss {how} in step {step:,} (batch {batch + 1} of epoch {epoch + 1}). Lower lr "
        f"({recipe.lr:g}), lengthen warmup ({recipe.warmup:g}) or clip the gradient (clip, now "
        f"{recipe.clip:g}): go on so from the last checkpoint, which is from before (--adjust), or "
        "begin anew (--out or --overwrite)."
    )
