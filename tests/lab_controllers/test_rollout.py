"""The sizes that a Deployment gives its ReplicaSets: a table, and a law over random rollouts."""

import random

import pytest

from meshtls.lab.controllers.rollout import Set, limits, next_sizes


@pytest.mark.parametrize(
    ("rolling", "replicas", "expected"),
    [
        ({}, 4, (1, 1)),
        ({}, 10, (3, 2)),
        ({}, 1, (1, 0)),
        ({"maxSurge": 0, "maxUnavailable": 0}, 3, (0, 1)),
        ({"maxSurge": "100%", "maxUnavailable": 0}, 3, (3, 0)),
        ({"maxSurge": 2, "maxUnavailable": "50%"}, 5, (2, 2)),
    ],
)
def test_percentages_round_in_favour_of_availability(rolling, replicas, expected):
    assert limits({"replicas": replicas, "strategy": {"rollingUpdate": rolling}}) == expected


@pytest.mark.parametrize(
    ("spec", "new", "olds", "old_pods", "expected"),
    [
        ({"replicas": 3}, ("n", 0, 0), [], False, {"n": 3}),
        ({"replicas": 4}, ("n", 0, 0), [("o", 4, 4)], True, {"n": 1}),
        ({"replicas": 4}, ("n", 1, 0), [("o", 4, 4)], True, {"o": 3}),
        ({"replicas": 4}, ("n", 2, 0), [("o", 3, 3)], True, {}),
        ({"replicas": 4}, ("n", 1, 0), [("o", 4, 2)], True, {"o": 3}),
        ({"replicas": 2}, ("n", 5, 5), [], False, {"n": 2}),
        ({"replicas": 3, "strategy": {"type": "Recreate"}}, ("n", 0, 0), [("o", 3, 3)], True, {"o": 0}),
        ({"replicas": 3, "strategy": {"type": "Recreate"}}, ("n", 0, 0), [("o", 0, 0)], True, {}),
        ({"replicas": 3, "strategy": {"type": "Recreate"}}, ("n", 0, 0), [("o", 0, 0)], False, {"n": 3}),
        ({"replicas": 5, "paused": True}, ("n", 0, 0), [("o", 3, 3)], True, {"o": 5}),
        ({"replicas": 5, "paused": True}, ("n", 1, 1), [("o", 3, 3)], True, {}),
    ],
)
def test_next_sizes(spec, new, olds, old_pods, expected):
    assert next_sizes(spec, Set(*new), tuple(Set(*old) for old in olds), old_pods=old_pods) == expected


@pytest.mark.parametrize("seed", range(60))
def test_a_rollout_ends_and_never_leaves_its_limits(seed):
    chance = random.Random(seed)
    replicas = chance.randint(1, 12)
    spec = {
        "replicas": replicas,
        "strategy": {
            "rollingUpdate": {
                "maxSurge": chance.choice([0, 1, "25%", "100%"]),
                "maxUnavailable": chance.choice([0, 1, "25%", "60%"]),
            }
        },
    }
    surge, unavailable = limits(spec)
    sets = {"new": [0, 0], "old": [replicas, replicas]}
    for _ in range(500):
        new, old = Set("new", *sets["new"]), Set("old", *sets["old"])
        for name, size in next_sizes(spec, new, (old,), old_pods=True).items():
            sets[name] = [size, min(sets[name][1], size)]
        total, available = sum(size for size, _ in sets.values()), sum(ready for _, ready in sets.values())
        assert total <= replicas + surge and available >= replicas - unavailable, (seed, sets)
        sets["new"][1] = min(sets["new"][0], sets["new"][1] + chance.randint(0, 2))
        if sets == {"new": [replicas, replicas], "old": [0, 0]}:
            return
    pytest.fail(f"seed {seed}: not over after 500 steps: {sets}")
