"""Students in the configuration: of a known data set and embedding, on their own data, like their teacher."""

import pytest

from dinodp.configuration import Configuration
from dinodp.errors import InputError


def configuration(student=None, teacher=None, datasets=("own",)):
    classical = {"backbone": "classical", "resolution": 112}
    made = {"backbone": "results/students/own/small", "resolution": 112}
    phantoms = {"source": "phantoms", "n_train": 2, "n_valid": 1, "n_test": 2}
    run = {"title": "t", "note": "n", "datasets": list(datasets), "embeddings": ["quick"], "models": ["memory_bank"]}
    return Configuration.of(
        {
            "datasets": {"own": phantoms, "other": phantoms},
            "embeddings": {"small": {**classical, **(teacher or {})}, "quick": {**made, **(student or {})}},
            "models": {"memory_bank": {"family": "memory_bank"}},
            "run": run,
        }
    )


def test_a_student_of_the_run_needs_no_file_yet():
    assert configuration().embeddings["quick"].trained_on() == ("own", "small")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"datasets": ("own", "other")}, "its student is trained on own, but the run has other: distil one from each"),
        ({"student": {"resolution": 224}}, r"embeddings.quick.resolution: it must be that of its teacher small"),
        ({"student": {"square": True}}, r"embeddings.quick.square: it must be that of its teacher small"),
        ({"student": {"backbone": "results/students/own/quick"}}, "the teacher quick is a student itself"),
        ({"student": {"backbone": "results/students/no/small"}}, r"Unknown name 'no' under run.embeddings \(quick"),
        ({"student": {"backbone": "results/students/own/no"}}, r"Unknown name 'no' under run.embeddings \(quick"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(given, said):
    with pytest.raises(InputError, match=said):
        configuration(**given)


def test_another_data_set_is_allowed_when_told():
    configuration({"other_data": True}, datasets=("own", "other"))
