"""The mean time of a backend call by its number of instances: ``m (b + a n)``. **Pure.**

Two speeds: the shape ``b + a n`` follows slowly, by exponentially forgotten least squares; the level ``m`` follows a
drift by a factor of two within ten batches. Times are float nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Weight that a sample keeps when the next one comes: a memory of 200 batches.
FORGETTING = 0.995
#: How strongly the slope is held where it was, per squared mean size; and at least.
RIDGE, RIDGE_FLOOR = 0.02, 0.05
#: Step of the level towards a sample, and how far beyond the level a sample may be and still be believed.
LEVEL_STEP, LEVEL_CLIP = 0.15, 1.5
#: So many samples are averaged plainly, with the shape that was assumed.
PLAIN_SAMPLES = 5
#: Assumed before anything is known: a call of nothing takes this share of the objective, an instance that much of a
#: call.
PRIOR_BASE, PRIOR_SLOPE = 0.2, 0.05
#: A call's own time is at least this share of a call of the sizes seen. Speed and size often change as one, and a line
#: through both may leave nothing for it; whoever believes that sends one instance at a time, for which no pods suffice:
#: all calls queue, and those teach nothing. It is the share at which the knee is: no size that is common is beyond it.
LEAST_BASE = 0.1
#: A sample counts at most so many times its prediction in the shape: outliers are not evidence of a slope.
SHAPE_CLIP = 2.0


class MeanTime:
    """An affine model, taught one call at a time."""

    def __init__(self, slo_ns: int) -> None:
        self.base_ns = PRIOR_BASE * slo_ns
        self.slope_ns = PRIOR_SLOPE * self.base_ns
        self.level = 1.0
        self.samples = 0
        self._sums = [0.0] * 5  # of w, wn, wR, wnn, wnR

    def __repr__(self) -> str:
        shape = f"{self.base_ns / 1e6:.3f} ms + {self.slope_ns / 1e6:.4f} ms n"
        return f"<MeanTime {self.level:.3f} ({shape}) from {self.samples} calls>"

    def of(self, instances: float) -> float:
        """Mean time of a call with ``instances``."""
        return self.level * (self.base_ns + self.slope_ns * instances)

    def learn(self, instances: int, time_ns: float) -> None:
        """A call with ``instances`` took ``time_ns``."""
        self.samples += 1
        ratio = time_ns / (self.base_ns + self.slope_ns * instances)
        if self.samples <= PLAIN_SAMPLES:
            self.level = ratio if self.samples == 1 else self.level + (ratio - self.level) / self.samples
        else:
            believed = min(max(ratio, self.level / LEVEL_CLIP), self.level * LEVEL_CLIP)
            self.level += LEVEL_STEP * (believed - self.level)
        mean_ns = self.of(instances)
        self._add(instances, min(time_ns, SHAPE_CLIP * mean_ns))
        if self.samples == PLAIN_SAMPLES:  # from here on the shape is measured, and the assumed one is where it starts
            self.base_ns, self.slope_ns, self.level = self.base_ns * self.level, self.slope_ns * self.level, 1.0
        elif self.samples > PLAIN_SAMPLES:
            self._refit()
            self.level = mean_ns / (self.base_ns + self.slope_ns * instances)

    def relearn(self, points: Sequence[tuple[float, float, float]]) -> None:
        """Forget every size but those of ``points``: (weight, instances, mean time) each."""
        self._sums = [0.0] * 5
        for weight, instances, time_ns in points:
            self._add(instances, time_ns, weight)
        self._refit()
        self.level = 1.0

    def state(self) -> list[float]:
        """What `restore` takes."""
        return [self.base_ns, self.slope_ns, self.level, self.samples, *self._sums]

    def restore(self, state: Sequence[float]) -> None:
        """Go on where another one stopped."""
        self.base_ns, self.slope_ns, self.level, samples, *sums = state
        self.samples, self._sums = int(samples), sums

    def _add(self, instances: float, time_ns: float, weight: float = 1.0) -> None:
        sum_w, sum_n, sum_t, sum_nn, sum_nt = self._sums
        weighted_n, weighted_t = weight * instances, weight * time_ns
        self._sums = [
            FORGETTING * sum_w + weight,
            FORGETTING * sum_n + weighted_n,
            FORGETTING * sum_t + weighted_t,
            FORGETTING * sum_nn + weighted_n * instances,
            FORGETTING * sum_nt + weighted_n * time_ns,
        ]

    def _refit(self) -> None:
        weight, sum_n, sum_t, sum_nn, sum_nt = self._sums
        mean_n, mean_t = sum_n / weight, sum_t / weight
        variance = max(0.0, sum_nn / weight - mean_n * mean_n)
        covariance = sum_nt / weight - mean_n * mean_t
        ridge = RIDGE * mean_n * mean_n + RIDGE_FLOOR
        slope_ns = (covariance + ridge * self.slope_ns) / (variance + ridge)
        base_ns = mean_t - slope_ns * mean_n
        if slope_ns < 0:
            slope_ns, base_ns = 0.0, mean_t
        elif base_ns < LEAST_BASE * mean_t:
            slope_ns, base_ns = (1 - LEAST_BASE) * mean_t / mean_n, LEAST_BASE * mean_t
        self.base_ns, self.slope_ns = base_ns, slope_ns
