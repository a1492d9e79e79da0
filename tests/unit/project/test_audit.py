"""What ``make audit`` says of what it found."""

from audit import said

SAFE = {"name": "numpy", "version": "2.3.5", "vulns": []}
KNOWN = {"name": "pillow", "version": "1.0", "vulns": [{"id": "PYSEC-1"}, {"id": "PYSEC-2"}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found"}


def test_each_known_vulnerability_is_told():
    assert said([SAFE, KNOWN]) == [
        "pillow 1.0: PYSEC-1",
        "pillow 1.0: PYSEC-2",
        "Vulnerabilities: 2 of 2 packages were looked up, 2 known.",
    ]


def test_a_package_that_nobody_knows_was_not_looked_up():
    """Behind a mirror without the service that can be all of them: then nothing was found because nothing was asked."""
    assert said([UNKNOWN, UNKNOWN]) == [
        "Vulnerabilities: 0 of 2 packages were looked up, 0 known.",
        "The service does not know: torch, torch.",
    ]
