"""Sums of gradients over ranks, a bucket of them at a time, while the backward pass that makes them still runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from imtok.distributed import begin_sums, buckets, is_distributed


class GradientSums:
    """The sums of the gradients of some parameters, once a step.

    A backward pass comes to the last parameters first, so buckets go from the last to the first, and in this order on
    every rank. Without several ranks nothing is done.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._buckets: list[list[nn.Parameter]] = []
        self._finish: list[Callable[[], None]] = []  # of the buckets that are on their way
        self._armed = False
        if is_distributed():
            self._buckets = list(buckets(list(reversed(parameters))))
            self._number = {id(each): number for number, bucket in enumerate(self._buckets) for each in bucket}
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]

    def arm(self) -> None:
        """Send each bucket as soon as the next backward pass has made its gradients: it is the last of the step."""
        self._missing = [len(bucket) for bucket in self._buckets]
        self._armed = True

    def begin(self) -> None:
        """Send what is not on its way; until `finish` nothing may touch the gradients.

        A parameter without a gradient takes part with zeros, so that every rank sends the same.
        """
        self._armed = False
        while len(self._finish) < len(self._buckets):
            self._send()

    def finish(self) -> None:
        """Wait for the sums, which then stand in the gradients; a GPU's stream alone waits."""
        self.begin()
        while self._finish:
            self._finish.pop(0)()

    def _arrived(self, parameter: Tensor) -> None:
        if not self._armed:
            return
        self._missing[self._number[id(parameter)]] -= 1
        while len(self._finish) < len(self._buckets) and self._missing[len(self._finish)] == 0:
            self._send()

    def _send(self) -> None:
        gradients = []
        for parameter in self._buckets[len(self._finish)]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self._finish.append(begin_sums(gradients))
