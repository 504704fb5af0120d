"""How a run's logits become probabilities that mean what they say: two numbers, found on rows that were held out."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling, before which votes are smoothed; `heads.calibration` finds the temperature."""

    temperature: float = 1.0
    smoothing: float = 0.0
    """Share of the probability that is spread evenly over all classes, in [0, 1); above 0 only of heads that vote."""

    def scale(self, logits: np.ndarray) -> np.ndarray:
        """Return logits (n, c) whose softmax is calibrated, the greatest of each row where it was."""
        if not self.smoothing:
            return np.asarray(logits / self.temperature)
        from scipy.special import softmax

        shares = softmax(logits.astype(np.float64), axis=1)
        smooth = (1 - self.smoothing) * shares + self.smoothing / logits.shape[1]
        return np.asarray(np.log(smooth) / self.temperature)


def vote_smoothing(k: int) -> float:
    """Return the share that k votes leave to all classes alike: one more vote, which each class has 1/c of.

    The m-estimate with m = 1 (B. Cestnik, "Estimating probabilities", ECAI 1990, 147). Without it a class that none
    of five neighbours has is next to impossible, and no temperature says that all five may be wrong.
    """
    return 1 / (k + 1)
