"""Knative's gate before zero pods. **Pure.**"""

from __future__ import annotations


class ScaleToZero:
    """The last pod goes only after a quiet window and a grace period in which calls already go to the activator."""

    def __init__(self, stable_window_ns: int, grace_ns: int, retention_ns: int = 0) -> None:
        self._stable_window_ns = stable_window_ns
        self._grace_ns = grace_ns
        self._retention_ns = retention_ns
        self._active_since_ns = 0
        self._inactive_since_ns: int | None = None

    def __repr__(self) -> str:
        return f"<ScaleToZero: active since {self._active_since_ns}, inactive since {self._inactive_since_ns}>"

    def allowed(self, pods: int, now_ns: int, proxying_since_ns: int | None) -> int | None:
        """How many pods there may be when the autoscaler wants ``pods``; None: as many as there are.

        ``proxying_since_ns`` is since when calls go to the activator; None: they go to the pods.
        """
        if pods:
            self._become_active(now_ns)
            return pods
        if self._inactive_since_ns is None:
            if now_ns - self._active_since_ns < self._stable_window_ns:
                return 1
            self._inactive_since_ns = now_ns
        quiet_ns = now_ns - self._inactive_since_ns
        proxied_ns = now_ns - proxying_since_ns if proxying_since_ns is not None else 0
        waited = quiet_ns >= self._grace_ns or proxied_ns >= self._grace_ns
        return 0 if waited and quiet_ns >= self._retention_ns else None

    def _become_active(self, now_ns: int) -> None:
        if self._inactive_since_ns is not None:
            self._inactive_since_ns = None
            self._active_since_ns = now_ns
