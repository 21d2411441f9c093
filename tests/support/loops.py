"""The shortest training loop that a pruning schedule can be run with."""

import itertools

import torch


def trainer(network, batches, lr=0.05, momentum=0.9, after=lambda: None):
    """A ``tune`` that takes SGD steps over ``batches``, again and again, and calls ``after`` each. How many steps
    each call asked for stands in its ``steps_made``."""
    optimiser = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum)
    stream = itertools.cycle(batches)

    def tune(steps, terms, after_backward, after_step):
        network.train()
        tune.steps_made.append(steps)
        for _ in range(steps):
            optimiser.zero_grad()
            sum(terms(next(stream)).values()).backward()
            after_backward()
            optimiser.step()
            after_step()
            after()

    tune.steps_made = []
    return tune
