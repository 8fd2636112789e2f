"""The conformance suite over `batchops serve`: every behaviour is the service's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from behaviour import Behaviour
from ogx_differences import DIFFERENCES
from realtime import realtime
from subjects import Batchops, LikeOgx, Subject, running
from suite import BEHAVIOURS, seen

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def batchops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with realtime() as upstream, running(Batchops(tmp_path_factory.mktemp("batchops"), upstream)) as subject:
        yield subject


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
def test_batchops_behaves_as_the_service(
    batchops: Subject, behaviour: Behaviour, record_property: Callable[[str, object], None]
) -> None:
    assert seen(behaviour, batchops) == behaviour.expected
    record_property("batchops", [behaviour.name, "yes"])


def test_every_behaviour_has_a_name_of_its_own() -> None:
    names = [behaviour.name for behaviour in BEHAVIOURS]
    assert sorted(names) == sorted(set(names))


def test_every_known_difference_is_one() -> None:
    expected = {behaviour.name: behaviour.expected for behaviour in BEHAVIOURS}
    assert [name for name in DIFFERENCES if name not in expected] == []
    assert [name for name, known in DIFFERENCES.items() if known.seen == expected[name]] == []


# In the shape of OGX

SHARED_WITH_OGX = (
    "the-object-of-an-upload",
    "the-object-of-a-new-batch",
    "a-second-model-in-the-file",
    "a-batch-that-failed-validation",
    "the-times-of-a-batch-that-completed",
    "usage-of-a-batch",
    "the-line-of-an-answer",
    "all-requests-answered",
    "all-requests-failed",
    "a-batch-of-v1-responses",
    "a-batch-of-v1-moderations",
)
"""Where `serve --profile ogx` differs from the service as OGX does; it refuses and validates as strictly as ever."""


@pytest.fixture(scope="module")
def like_ogx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with realtime() as upstream, running(LikeOgx(tmp_path_factory.mktemp("like-ogx"), upstream)) as subject:
        yield subject


@pytest.mark.parametrize("name", SHARED_WITH_OGX)
def test_the_profile_of_ogx_has_the_shapes_of_ogx(like_ogx: Subject, name: str) -> None:
    [behaviour] = [one for one in BEHAVIOURS if one.name == name]
    assert seen(behaviour, like_ogx) == DIFFERENCES[name].seen
