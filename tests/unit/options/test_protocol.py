"""The protocol of a run."""

import pytest

from dinodp.options.protocol import Protocol
from dinodp.options.run import RunOptions

RUN = {"title": "t", "note": "n", "datasets": ["d"], "embeddings": ["e"], "models": ["m"]}


def test_what_a_run_does_not_say_is_the_configurations_default():
    assert Protocol.of({}) == Protocol()
    assert Protocol.of(RunOptions.read(RUN, "run").plain()) == Protocol(mask_rules=("gt0", "eq255"))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"mask_size": [448, 448], "bootstrap_resamples": 0}, {"mask_size": (448, 448), "resamples": 0}),
        ({"published_embedding": "v3"}, {"published_embedding": "v3", "published_as": "v3"}),
        ({"published_embedding": "v3", "published_as": "s"}, {"published_embedding": "v3", "published_as": "s"}),
        ({"smoothing_sigma": 4.0, "aupr": "average_precision"}, {"smoothing_sigma": 4.0, "aupr": "average_precision"}),
        ({"published_sources": []}, {"published_sources": ()}),
    ],
)
def test_what_a_run_says_is_taken(said, expected):
    assert Protocol.of(said) == Protocol(**expected)
