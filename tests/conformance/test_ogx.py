"""The conformance suite over OGX, and a project of batchops that has OGX for its provider.

Run by `make conformance`, which installs OGX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from behaviour import Behaviour
from ogx_differences import DIFFERENCES, VERSION, says_of_ogx
from realtime import realtime
from subjects import Ogx, Subject, installed_ogx, running
from suite import BEHAVIOURS, seen
from workshop import Workshop

pytestmark = pytest.mark.ogx


@pytest.fixture(scope="module")
def ogx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with realtime() as upstream, running(Ogx(tmp_path_factory.mktemp("ogx"), upstream)) as subject:
        yield subject


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
def test_ogx_behaves_as_the_service_or_as_is_known(
    ogx: Subject, behaviour: Behaviour, record_property: Callable[[str, object], None]
) -> None:
    known = DIFFERENCES.get(behaviour.name)
    assert seen(behaviour, ogx) == (known.seen if known else behaviour.expected)
    record_property("ogx", [behaviour.name, says_of_ogx(behaviour)])


def test_the_differences_are_known_of_this_version() -> None:
    assert installed_ogx() == VERSION


FILES = {
    "batchops.toml": """\
project = "conformance"
provider = "ogx"
[providers.ogx]
kind = "openai"
profile = "ogx"
base_url = "env:OGX_BASE_URL"
api_key = "env:OGX_API_KEY"
[poll]
initial = "100ms"
max = "200ms"
""",
    "jobs/labels.yaml": """\
name: labels
source: {query: "SELECT * FROM read_csv('data/reviews.csv')", key: id}
model: local/gpt-4o-mini
template: "Label this review: {{ title }}"
params: {max_completion_tokens: 200}
schema:
  type: object
  properties: {label: {type: string, enum: [good, bad]}}
  required: [label]
  additionalProperties: false
""",
    "jobs/vectors.yaml": """\
name: vectors
source: {query: "SELECT * FROM read_csv('data/reviews.csv')", key: id}
endpoint: /v1/embeddings
model: local/text-embedding-3-small
template: "{{ title }}"
""",
    "data/reviews.csv": 'id,title\n1,Fine\n2,"Bad, ""really"" bad"\n3,Été à la plage ☀\n',
}


@pytest.fixture
def project(tmp_path: Path, ogx: Subject) -> Workshop:
    workshop = Workshop(tmp_path, {"OGX_BASE_URL": ogx.url, "OGX_API_KEY": "none"})
    workshop.write(FILES)
    return workshop


def test_a_project_converges_with_ogx_as_its_provider(project: Workshop) -> None:
    assert project.plan()["summary"]["rows"]["submit"] == 6
    done = project.apply().lines[-1]
    assert (done["type"], done["exit_code"]) == ("apply_complete", 0)
    labels, vectors = project.results("labels"), project.results("vectors")
    assert [row["key"]["id"] for row in labels] == [row["key"]["id"] for row in vectors] == [1, 2, 3]
    assert {row["status"] for row in labels + vectors} == {"succeeded"}
    assert {row["answer"]["label"] for row in labels} <= {"good", "bad"}
    assert {len(row["answer"]) for row in vectors} == {1536}
    assert all(row["usage"]["input_tokens"] > 0 for row in labels + vectors), labels[0]
    after = project.plan("--detailed-exitcode")
    assert after["summary"]["rows"]["unchanged"] == 6
