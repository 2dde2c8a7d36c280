"""Where a run takes place."""

from bantam.runs.environment import environment


def test_the_environment_names_versions_and_no_paths() -> None:
    here = environment()
    assert here["versions"]["torch"]
    assert here["cores"] >= 1
    assert not any(str(word).startswith("/") for word in here["command"])
