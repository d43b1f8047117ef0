"""The proxies of ``mlproxy simulate``: a configuration for each policy that is to run. **Pure.**"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, get_args

from mlproxy.config.batching import Batching
from mlproxy.config.conflicts import POLICY_KEYS
from mlproxy.config.keys import either
from mlproxy.errors import ConfigurationError
from mlproxy.simulate import ClusterSettings, Proxy, proxy_for
from mlproxy.simulate.rivals import RIVALS

if TYPE_CHECKING:
    from mlproxy.cli.simulation import Options

#: What `--policy` and `--compare` take: the configuration's, and the simulator's own.
POLICIES: tuple[str, ...] = (*get_args(Batching.model_fields["policy"].annotation), *RIVALS)
DEFAULT_POLICY: str = Batching.model_fields["policy"].default
#: Keys that have a flag.
_FLAGS = {"slo.latency": "--slo", "slo.share": "--share"}


def policy_problems(options: Options) -> Iterator[str]:
    """What is wrong with the policies that are named."""
    if not options.policies:
        yield f"--compare: names no policy; give some of {', '.join(POLICIES)}"
    for flag, name in options.named_policies():
        if name not in POLICIES:
            yield f"{flag}: must be {either(POLICIES)}, not {name!r}"


def _acts_on(policy: str, key: str) -> bool:
    """Whether ``policy`` looks at ``key``; the rivals look at what `static` does."""
    section, _, name = key.partition(".")
    policies = POLICY_KEYS.get(name.partition(".")[0]) if section == "batching" else None
    return policies is None or ("static" if policy in RIVALS else policy) in policies


def proxy_of(policy: str, options: Options, cluster: ClusterSettings, changes: list[tuple[str, object]]) -> Proxy:
    """The proxy that runs ``policy`` with these keys changed. `ConfigurationError` has a line for every problem."""
    is_known = policy in POLICIES
    if not is_known:  # to find what else is wrong, and only that
        policy = DEFAULT_POLICY
    if len(options.policies) > 1 or not is_known:  # what a policy does not look at is meant for others
        changes = [(key, value) for key, value in changes if _acts_on(policy, key)]
    try:
        return proxy_for(policy, slo=options.slo, share=options.share, cluster=cluster, changes=changes)
    except ConfigurationError as error:
        flags = {key: flag for key, flag in _FLAGS.items() if key not in dict(changes)}
        raise ConfigurationError([_at_flag(problem, flags) for problem in error.problems]) from None


def _at_flag(problem: str, flags: Mapping[str, str]) -> str:
    """A problem with a key that a flag of its own has set, as one with the flag."""
    key, colon, text = problem.partition(": ")
    return f"{flags.get(key, key)}{colon}{text}"
