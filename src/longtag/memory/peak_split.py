"""The peak of a step, and what it was made of."""

from typing import NamedTuple


class Moment(NamedTuple):
    """What was in memory at one point of a step, in bytes; weights do not change within one."""

    allocated: int
    gradients: int
    optimizer_states: int


class PeakSplit:
    """Finds the stretch of a step in which memory was highest, and splits the peak by what stood at one of its ends.

    Told at some moments what is allocated and what the peak has been so far, it knows between which two the peak lies.
    At the fuller of the two stood:

    weights, gradients, optimizer_states: as counted there.
    activations: what was allocated beyond that and beyond what had stood beside it when the step began: what forward
        has left for backward and backward has not used yet.
    temporary: the rest of the peak: tensors of the part that ran just then, and what is in memory all the time
        and is none of the others: the batch, the layout, DDP's buckets, workspaces of cuBLAS.

    The parts sum to the peak. They are the finer, the more moments are told.

    Args:
        weights: bytes.
        start: the beginning of the step, before forward.
    """

    def __init__(self, weights: int, start: Moment) -> None:
        self._weights = weights
        self._beside = start.allocated - weights - start.gradients - start.optimizer_states
        self._last = self._at_peak = start
        self.peak = start.allocated

    def note(self, moment: Moment, peak: int) -> None:
        """Tell the next moment, and the highest that was allocated since the start."""
        if peak > self.peak:
            self.peak = peak
            self._at_peak = max(self._last, moment, key=lambda end: end.allocated)
        self._last = moment

    def parts(self) -> dict[str, int]:
        """The bytes of each part, by its name."""
        at = self._at_peak
        standing = self._weights + at.gradients + at.optimizer_states
        activations = max(0, at.allocated - standing - self._beside)
        return {
            "weights": self._weights,
            "gradients": at.gradients,
            "optimizer_states": at.optimizer_states,
            "activations": activations,
            "temporary": self.peak - standing - activations,
        }
