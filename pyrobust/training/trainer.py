"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyrobust.attacks._common import check_number
from pyrobust.data import Data
from pyrobust.training.batches import Batches
from pyrobust.training.checkpoint import CHECKPOINT, State
from pyrobust.training.descent import make_optimizer, make_schedule
from pyrobust.training.distributed import StepLoss, World
from pyrobust.training.interrupts import Interrupts
from pyrobust.training.logs import History, Logs, Record, Row, Stopwatch
from pyrobust.training.randomness import DRAWS, seed_torch, torch_random_state
from pyrobust.training.recipe import PRECISIONS, Recipe, plain
from pyrobust.training.term import Batch, Objective

OnLog = Callable[[int, int, Row], None]


def train(
    model: nn.Module,
    objective: Objective,
    data: Data | tuple[Tensor, Tensor],
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_minutes: float = 5.0,
    on_log: OnLog | None = None,
) -> History:
    """Minimise the objective over the training set, by mini-batches in an order that follows from seed and epoch.

    A function whose loop shows what happens in a step, made of parts that serve a loop of one's own too. Every step has
    exactly ``recipe.batch_size`` samples: those left over at the end of an epoch are dropped, others each time.

    Random numbers are keyed: the order by (seed, epoch), augmentation and objectives by (seed, step, sample id), what
    the model draws itself (dropout) by (seed, step, rank); torch's global random state is left as found. So a training
    that is killed and resumed gives the bits of the uninterrupted one, on the same build, device and number of threads,
    where the model's own kernels are deterministic, as they are on the CPU.

    In a process group (torchrun; see `process_group`) every process takes its slice of the same global batch, and
    gradients are averaged: the result of one process up to rounding, for terms that are means over samples and models
    without batch statistics (`torch.nn.SyncBatchNorm` makes those global too, on GPUs). Parameters of the objective (a
    critic) are averaged after `Objective.prepare`; its buffers stay each process's own.

    Args:
        model: trained in place, where it is, and left in evaluation mode: with the averaged weights where the recipe has
            ``ema``, and with those of the best epoch where it has ``keep_best``.
        objective: what is minimised; it is moved to the model's device.
        data: inputs (N, …) within the bounds and int64 labels (N,), or the training part of a `Data`. Batches are taken
            where the data lies, so a set that fits is best put on the model's device.
        recipe: everything else that decides the result.
        out: folder for the checkpoint and the logs (``log.csv``, ``log.jsonl``, TensorBoard's where it is installed).
        resume: go on from the checkpoint in ``out``, where there is one.
        checkpoint_minutes: time between checkpoints, >= 0; one is written at the end and upon SIGINT or SIGTERM, too.
            Several processes agree on either only where a row is logged.
        on_log: called as on_log(steps done, steps in all, row) after each row of the log.

    Returns:
        What was logged, and how it ended.

    Raises:
        TypeError, ValueError: naming the argument.
        DivergedError: the loss became NaN or infinite; found at the next row of the log, told with its step and term.
        KeyboardInterrupt: SIGINT or SIGTERM came while ``out`` was given; the checkpoint has been written.

    Cost: the objective's, a step; nothing else waits for the device but rows of the log, validation and checkpoints.
    """
    if not isinstance(objective, Objective):
        expected = "expected an Objective, as Objective(at=AdversarialTraining(eps=0.1))"
        raise TypeError(f"objective: {expected}, got {type(objective).__name__}")
    world, device = World.current(), next(model.parameters()).device
    check_number("checkpoint_minutes", checkpoint_minutes, 0)
    if recipe.amp == "float16" and device.type != "cuda":
        raise ValueError(f'amp: "float16" needs a CUDA device, the model is on {device}; use "bfloat16"')
    if recipe.compile and not objective.compilable:
        raise ValueError("compile: a term differentiates a gradient of the model, which compiled models do not allow")
    batches = Batches(*_training_part(data), recipe, device, world)
    steps = recipe.epochs * batches.per_epoch
    state = _start(model, objective, recipe, batches.per_epoch, device)
    terms = {name: [objective.weights[name], plain(term)] for name, term in objective.terms.items()}
    settings = {**recipe.record(), "objective": terms, "data": batches.fingerprint()}
    path = None if out is None else Path(out) / CHECKPOINT
    if path is not None and path.exists():
        if not resume:
            raise ValueError(f"out: {path.parent} holds a training already; resume it, or choose another folder")
        state.load(path, settings, world)
    history = state.history
    step_loss: nn.Module = StepLoss(model, objective, world, recipe.compile)
    if world.size > 1:
        step_loss = DistributedDataParallel(step_loss)
    logs = Logs(path.parent if path is not None and world.leads else None, history, state.step)

    with torch_random_state(device), Interrupts(path is not None) as interrupts, logs:
        watch, saved_at = Stopwatch(), time.monotonic()
        while not history.stopped:
            model.train()
            epoch, first = divmod(state.step, batches.per_epoch)
            for index, batch in batches.epoch(epoch, first):
                seed_torch(device, DRAWS, recipe.seed, batch.step, world.rank)
                state.record.keep(index, *_update(state, step_loss, batch, recipe))
                state.step += 1
                watch.images += recipe.batch_size

                ends = index + 1 == batches.per_epoch
                logged = ends or (index + 1) % recipe.log_every == 0
                interval = index - index % recipe.log_every, index + 1, batch.step - index
                rows: list[tuple[str, Row]] = []
                if logged:
                    rows.append(("steps", _end_interval(state, watch, state.record.means(*interval, world))))
                if ends:
                    with watch.paused():
                        rows.append(("epoch", _end_epoch(state, batches, world, epoch + 1)))
                for kind, row in rows:
                    logs.write(kind, row)
                    if on_log is not None:
                        on_log(state.step, steps, row)

                if path is not None and (logged or world.size == 1):
                    asked = world.any(interrupts.asked, device)
                    due = world.any(time.monotonic() - saved_at >= 60 * checkpoint_minutes, device)
                    if asked or due or history.stopped:
                        state.record.means(*interval, world)  # a training that has diverged is not to be kept
                        if not logged:
                            history.spend(*watch.read())  # since the last row
                        with watch.paused():
                            state.save(path, settings, world)
                        saved_at = time.monotonic()
                    if asked and not history.stopped:
                        raise KeyboardInterrupt(f"stopped after step {state.step} of {steps}")

    if recipe.keep_best and state.best is not None:
        model.load_state_dict(state.best)
    elif state.ema is not None:
        model.load_state_dict(state.averaged.state_dict())
    state.optimizer.zero_grad(set_to_none=True)
    model.eval()
    return history


def _training_part(data: Data | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if not isinstance(data, Data):
        inputs, labels = data
        return inputs, labels
    if data.train is None:
        raise ValueError(f"data: {data.name} has no training part")
    return data.train


def _start(model: nn.Module, objective: Objective, recipe: Recipe, per_epoch: int, device: torch.device) -> State:
    """The state before the first step."""
    objective.to(device).train()
    optimizer = make_optimizer(recipe.optimizer, model, recipe.lr, recipe.momentum, recipe.weight_decay)
    return State(
        model=model,
        objective=objective,
        optimizer=optimizer,
        schedule=make_schedule(recipe.schedule, optimizer, recipe.epochs * per_epoch),
        scaler=torch.amp.GradScaler(device.type, enabled=recipe.amp == "float16"),
        ema=None if recipe.ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)),
        record=Record(list(objective.terms), per_epoch, device),
        history=History(),
    )


def _update(state: State, step_loss: nn.Module, batch: Batch, recipe: Recipe) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of descent; the loss before it, and that of every term."""
    dtype = PRECISIONS[recipe.amp]
    state.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(batch.inputs.device.type, dtype=dtype, enabled=dtype is not None):
        loss, terms = step_loss(batch)
    state.scaler.scale(loss).backward()  # the scaler does nothing unless the precision is float16
    if recipe.clip is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.schedule.step()
    if state.ema is not None:
        state.ema.update_parameters(state.model)
    return loss, terms


def _end_interval(state: State, watch: Stopwatch, means: Row) -> Row:
    """Add the row of an interval of steps to the history."""
    images, seconds = watch.read()
    state.history.spend(images, seconds)
    row = {
        "step": state.step,
        "epoch": state.step / len(state.record.values),
        "lr": state.lr,
        **means,
        "images_per_second": images / seconds,
    }
    state.history.steps.append(row)
    return row


def _end_epoch(state: State, batches: Batches, world: World, epoch: int) -> Row:
    """Validate, add the epoch's row to the history, and decide whether to stop."""
    recipe, history = batches.recipe, state.history
    means = state.record.means(0, batches.per_epoch, (epoch - 1) * batches.per_epoch, world)
    row = {"epoch": epoch, "step": state.step, "lr": state.lr, **means}
    if recipe.validation is not None:
        world.share_buffers(state.model)
        world.share_buffers(state.averaged)
        row |= recipe.validation.run(
            state.averaged, batches.inputs, batches.labels, batches.held_ids, recipe.bounds, recipe.seed
        )
        value = row[recipe.validation.measure]
        if history.best_epoch is None or value > history.best:
            history.best_epoch, history.best = epoch, value
            if recipe.keep_best:
                state.keep_best()
        elif recipe.patience is not None and epoch - history.best_epoch >= recipe.patience:
            history.stopped = "early"
    if epoch == recipe.epochs and not history.stopped:
        history.stopped = "finished"
    row["seconds"] = history.seconds
    history.epochs.append(row)
    return row
