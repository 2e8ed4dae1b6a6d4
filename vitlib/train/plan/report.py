"""A plan on paper: for a terminal, for a page, for a program."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from vitlib.train.plan.costs import Times, Wire, Work
from vitlib.train.plan.memory import USABLE, Memory
from vitlib.train.plan.setup import Setup
from vitlib.train.progress import training_flops

MARK = "computed, not measured"
"""What every form of a plan says, unless it is for this computer's processor."""

_MARK_MEASURED = "computed from rates measured here"

Row = tuple[str, str, str]
"""What it is, how much, and a remark."""

_BYTES = ("bytes", "kB", "MB", "GB", "TB")
_FLOP = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP")


@dataclass(frozen=True)
class Plan:
    """What a run costs.

    Attributes:
        setup: The run.
        parameters: Of the model.
        memory: Bytes in each process.
        largest_batch: Images a step that fit, over all processes and parts; 0: not even one each.
        work: Operations of each process in a step.
        wire: Bytes that each process sends in a step.
        times: Seconds of a step.
    """

    setup: Setup
    parameters: int
    memory: Memory
    largest_batch: int
    work: Work
    wire: Wire
    times: Times

    @property
    def mark(self) -> str:
        """Where the figures come from."""
        return _MARK_MEASURED if self.setup.device.measured else MARK

    @property
    def fits(self) -> bool:
        """Whether a step fits into the usable part of the memory."""
        return self.memory.total <= USABLE * self.setup.device.memory

    @property
    def operations(self) -> int:
        """Of the whole run, over all processes."""
        return self.setup.steps * self.setup.devices * self.work.total

    @property
    def seconds(self) -> float:
        """Of the whole run, without tests and checkpoints."""
        return self.setup.steps * self.times.expected

    @property
    def images_per_second(self) -> float:
        """Over all processes."""
        return self.setup.batch_size / self.times.expected

    @property
    def utilisation(self) -> float:
        """Model FLOPs a second, which count nothing twice, over the devices' rate."""
        rate = self.setup.devices * self.setup.device.flops[self.setup.precision]
        return training_flops(self.setup.config) * self.images_per_second / rate

    def to_json(self) -> str:
        """Every number, in bytes, operations and seconds."""
        setup, device = self.setup, self.setup.device
        content = {
            "mark": self.mark,
            "setup": {
                **{name: getattr(setup, name) for name in Setup.__dataclass_fields__},
                "config": setup.config.to_dict(),
                "device": {**vars(device), "flops": dict(device.flops)},
                "steps": setup.steps,
            },
            "parameters": self.parameters,
            "memory": {**asdict(self.memory), "total": self.memory.total},
            "fits": self.fits,
            "largest_batch": self.largest_batch,
            "operations": {**asdict(self.work), "total": self.work.total, "run": self.operations},
            "wire": {**asdict(self.wire), "total": self.wire.total},
            "seconds": {
                **asdict(self.times),
                "expected": self.times.expected,
                "run": self.seconds,
            },
            "limit": self.times.limit,
            "images_per_second": self.images_per_second,
            "utilisation": self.utilisation,
        }
        return json.dumps(content, indent=2)

    def to_text(self) -> str:
        """For a terminal of 80 columns."""
        parts = [self._head()]
        for title, unit, rows in self._tables():
            width = max(len(value) for _, value, _ in rows)
            lines = [f"{title}, {unit}"]
            for name, value, note in rows:
                lines.append(f"    {name:21} {value:>{width}}  {note}".rstrip())
            parts.append("\n".join(lines))
        return "\n\n".join([*parts, "\n".join(self._results())])

    def to_markdown(self) -> str:
        """A table for each kind of cost."""
        parts = [self._head()]
        for title, unit, rows in self._tables():
            lines = [f"| {title} | {unit} | |", "| --- | --: | --- |"]
            parts.append("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]))
        return "\n\n".join([*parts, *self._results()])

    def _head(self) -> str:
        setup = self.setup
        way = [f"{setup.nodes} nodes"] * (setup.nodes > 1) + [setup.parallel] * (setup.devices > 1)
        on = ", ".join([f"{setup.devices} × {setup.device.name}", *way, setup.precision])
        parts = f"{setup.accumulate} parts of " if setup.accumulate > 1 else ""
        return (
            f"{self.parameters:,} parameters on {on}, {setup.optimiser}\n"
            f"{setup.steps:,} steps of {setup.batch_size:,} images: {parts}{setup.images:,} "
            f"in each process\nAll figures are {self.mark}."
        )

    def _tables(self) -> Iterable[tuple[str, str, Sequence[Row]]]:
        yield "memory of each process", *self._memory()
        yield "operations of each process in a step", *self._work()
        if self.wire.total:
            yield "sent by each process in a step", *self._wire()
        yield f"time of a step ({self.mark})", "ms", self._times()

    def _memory(self) -> tuple[str, Sequence[Row]]:
        memory, setup = self.memory, self.setup
        usable = _amount(USABLE * setup.device.memory, _BYTES)
        verdict = f"of {usable} that can be used: {'fits' if self.fits else 'DOES NOT FIT'}"
        copies = "of layers in use" if setup.sharded else "autocast's"
        return _table(
            _BYTES,
            [
                ("parameters", memory.parameters, "float32"),
                ("gradients", memory.gradients, "float32"),
                ("optimiser states", memory.optimiser, setup.optimiser),
                ("moving average", memory.average, "float32"),
                ("copies of weights", memory.copies, copies),
                ("activations", memory.activations, "from forward to backward"),
                ("one block's", memory.rebuilt, "computed again"),
                ("logits and loss", memory.loss, ""),
                ("images", memory.batch, "and labels"),
                ("inner gradients", memory.work, "of the block at work"),
                ("not together", memory.never_together, "gradients come, activations go"),
                ("all", memory.total, verdict),
            ],
        )

    def _work(self) -> tuple[str, Sequence[Row]]:
        work = self.work
        run = f"{_amount(self.operations, _FLOP)} in the run, over all processes"
        return _table(
            _FLOP,
            [
                ("forward", work.forward, ""),
                ("backward", work.backward, ""),
                ("blocks again", work.recomputed, "recomputed"),
                ("optimiser", work.optimiser, "Muon's products"),
                ("all", work.total, run),
            ],
        )

    def _wire(self) -> tuple[str, Sequence[Row]]:
        wire = self.wire
        return _table(
            _BYTES,
            [
                ("gradients", wire.reduced, "summed in a ring"),
                ("weights", wire.gathered, "gathered"),
                ("gradients", wire.scattered, "summed and scattered"),
                ("all", wire.total, ""),
            ],
        )

    def _times(self) -> Sequence[Row]:
        times, setup = self.times, self.setup
        decoders = f"{setup.decoders} × {setup.decoding:,.0f} images/s"
        peak = _amount(setup.device.flops[setup.precision], _FLOP)
        _, rows = _table(
            ("",),
            [
                ("products", times.products * 1e3, f"at {setup.share:.0%} of {peak}/s (assumed)"),
                ("traffic", times.traffic * 1e3, f"at {_amount(setup.device.bandwidth, _BYTES)}/s"),
                ("wire", times.wire * 1e3, f"at {_amount(setup.link, _BYTES)}/s"),
                ("of it hidden", times.hidden * 1e3, "at best, behind the above"),
                ("decoding", times.decoding * 1e3, decoders),
                ("expected", times.expected * 1e3, f"limited by {times.limit}"),
            ],
        )
        return rows

    def _results(self) -> Sequence[str]:
        fits = (
            f"The largest batch that fits has {self.largest_batch:,} images a step."
            if self.largest_batch
            else "Not even one image in each process fits: shard with fsdp, or recompute."
        )
        speed = self.images_per_second
        rate = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        return [
            fits,
            f"The run takes {_duration(self.seconds)} at {rate} images/s, "
            f"{self.utilisation:.0%} of the peak rate.",
        ]


def _table(
    units: Sequence[str], lines: Sequence[tuple[str, float, str]]
) -> tuple[str, Sequence[Row]]:
    """Lines with something in them, in the unit in which the last, their sum, is easily read."""
    power = _power(lines[-1][1], units)
    rows = [(name, f"{value / 1000**power:,.2f}", note) for name, value, note in lines if value]
    return units[power], rows


def _power(value: float, units: Sequence[str]) -> int:
    power = 0
    while power + 1 < len(units) and abs(value) >= 1000 ** (power + 1):
        power += 1
    return power


def _amount(value: float, units: Sequence[str]) -> str:
    power = _power(value, units)
    return f"{value / 1000**power:.4g} {units[power]}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
