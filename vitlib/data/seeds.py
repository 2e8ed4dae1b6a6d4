"""Randomness as a function of seed and place.

What is drawn in step 7 of a run depends on the seed and on the number 7, and on nothing that was
drawn before. A run that was interrupted can then go on where it was without any generator's state,
in any number of worker processes.
"""

import numpy as np
import torch


def seed_of(*place: int) -> int:
    """A seed of 63 bits for a place, such as (seed of the run, epoch, number of the image).

    Different places get independent seeds, as far as NumPy's `SeedSequence` (after O'Neill's
    `seed_seq_fe`) can make them.

    Args:
        place: Whole numbers from 0; their number and order count.
    """
    # The length comes first, since a sequence of seeds is padded with zeros.
    words = np.random.SeedSequence([len(place), *place]).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def generator_at(device: torch.device | str, *place: int) -> torch.Generator:
    """A generator on `device` for a place (`seed_of`)."""
    return torch.Generator(device).manual_seed(seed_of(*place))
