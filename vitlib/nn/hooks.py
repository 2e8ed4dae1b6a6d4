"""Whether somebody looks at what passes a module."""

from torch import nn

_KINDS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def is_hooked(module: nn.Module) -> bool:
    """Whether a hook is registered on a module or on one inside it; FSDP's own look at no token."""
    hooks = (
        hook
        for part in module.modules()
        for kind in _KINDS
        for hook in getattr(part, kind).values()
    )
    return any(not str(hook.__module__).startswith("torch.distributed.") for hook in hooks)
