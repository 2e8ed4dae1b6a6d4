"""What two processes hold and send in a step of training: run by `torchrun`, by test_plan.py.

Process 0 prints one line of JSON, in bytes: the storage of parameters, gradients and optimiser
states after a step, the most that was allocated during the next, and what that step sent.
"""

import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn.loss import cross_entropy
from vitlib.train.optimiser import make_optimisers
from vitlib.train.processes import Processes, distribute, only_accumulating


def local(tensor):
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def storage(tensors):
    """Bytes of all storages, each once."""
    storages = {local(t).untyped_storage()._cdata: local(t).untyped_storage() for t in tensors}
    return sum(each.nbytes() for each in storages.values())


class Sent(TorchDispatchMode):
    """Notes the bytes that collectives make a process send, if they go round in a ring."""

    def __init__(self, processes):
        super().__init__()
        self.processes, self.bytes = processes, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        if name == "c10d::_allgather_base_":  # FSDP2's, into a tensor that is given
            self.add("gathered", args[0].nbytes)
        elif name == "_c10d_functional::all_gather_into_tensor":  # of a DTensor
            self.add("gathered", args[0].nbytes * self.processes)
        elif name == "c10d::_reduce_scatter_base_":
            self.add("scattered", args[1].nbytes)
        return function(*args, **(kwargs or {}))

    def add(self, name, whole):
        """A process lacks all but its own part of the whole, or has all but that to give away."""
        share = whole // self.processes * (self.processes - 1)
        self.bytes[name] = self.bytes.get(name, 0) + share


def main():
    order = json.loads(sys.argv[1])
    config = ViTConfig(**order["config"])
    narrow = torch.bfloat16 if order["precision"] == "bfloat16" else None
    dist.init_process_group("gloo")
    us = Processes(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    torch.manual_seed(0)
    sent = Sent(us.count)
    plain = VisionTransformer(config)
    model = distribute(plain, order["parallel"], us, narrow)
    if isinstance(model, DistributedDataParallel):

        def hook(state, bucket):
            sent.add("reduced", 2 * bucket.buffer().nbytes)  # summed in parts, then gathered
            work = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
            return work.then(lambda future: future.value()[0])

        model.register_comm_hook(None, hook)
    optimisers = make_optimisers(
        plain, optimiser=order["optimiser"], lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999)
    )
    parts, images = order["accumulate"], order["images"]
    shape = (parts * images, config.in_channels, *config.image_shape)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=narrow is not None)

    def step():
        """As the loop makes it."""
        batch, labels = torch.rand(shape), torch.zeros(images, dtype=torch.long)
        for number, part in enumerate(batch.split(images), start=1):
            augmented = part * 1.0
            with only_accumulating(model, number < parts):
                with autocast:
                    logits = model(augmented * 1.0)
                    loss = cross_entropy(logits, labels, 0.0, config.gradients)
                (loss / parts).backward()
        for optimiser in optimisers:
            optimiser.step()

    step()
    parameters = list(plain.parameters())
    state = [t for o in optimisers for s in o.state.values() for t in s.values()]
    held = {
        "parameters": storage(parameters),
        "gradients": storage(p.grad for p in parameters),
        "optimiser": storage(t for t in state if isinstance(t, torch.Tensor)),
    }
    for optimiser in optimisers:
        optimiser.zero_grad()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    for optimiser in optimisers:
        optimiser.zero_grad()
    sent.bytes.clear()
    with sent:
        step()
    if us.first:
        print(json.dumps({**held, "most": most, "sent": sent.bytes}), flush=True)
    dist.barrier()
    # Without the end of the interpreter: it would wait for gloo's threads, and now and then one of
    # them waits for the interpreter, to give back the hook's last callback.
    os._exit(0)


if __name__ == "__main__":
    main()
