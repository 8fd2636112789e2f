"""--select and --exclude."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batchops.diagnostics import UsageProblem
from batchops.spec.load import LoadedProject, select_jobs

Load = Callable[[dict[str, str]], LoadedProject]


def _job(name: str, extra: str = "") -> str:
    return f"name: {name}\nsource: {{query: SELECT 1 AS id, key: id}}\nmodel: m\ntemplate: x\n{extra}"


FILES = {
    "jobs/reviews/sentiment.yaml": _job("review-sentiment", "tags: [reviews, weekly]\n"),
    "jobs/reviews/topics.yaml": _job("review-topics", "tags: reviews\ntemplate: {file: prompts/t.md}\n").replace(
        "template: x\n", "", 1
    ),
    "jobs/embed.yaml": _job("embed"),
    "prompts/t.md": "x",
}


@pytest.mark.parametrize(
    ("select", "exclude", "names"),
    [
        ([], [], ["embed", "review-sentiment", "review-topics"]),
        (["embed"], [], ["embed"]),
        (["review-*"], [], ["review-sentiment", "review-topics"]),
        (["review-topic?", "embed"], [], ["embed", "review-topics"]),
        (["tag:reviews"], ["tag:weekly"], ["review-topics"]),
        (["tag:week*"], [], ["review-sentiment"]),
        (["tag:none"], [], []),
        (["path:jobs/reviews"], [], ["review-sentiment", "review-topics"]),
        (["path:./jobs/reviews/"], [], ["review-sentiment", "review-topics"]),
        (["path:jobs/*.yaml"], [], ["embed", "review-sentiment", "review-topics"]),
        (["path:prompts/t.md"], [], ["review-topics"]),
        (["path:job"], [], []),
        (["state:modified"], [], ["embed"]),
        ([], ["state:modified"], ["review-sentiment", "review-topics"]),
        ([], ["*"], []),
    ],
)
def test_selectors_name_jobs(load: Load, select: list[str], exclude: list[str], names: list[str]) -> None:
    jobs = load(FILES).jobs
    assert [job.name for job in select_jobs(jobs, select, exclude, modified=["embed"])] == names


def test_name_that_no_job_has_is_refused_with_the_nearest_one(load: Load) -> None:
    with pytest.raises(UsageProblem) as caught:
        select_jobs(load(FILES).jobs, ["review-topic"], [])
    (found,) = caught.value.diagnostics
    assert (found.code, 'Did you mean "review-topics"?' in found.detail) == ("unknown_job", True)


@pytest.mark.parametrize("selector", ["label:x", "state:new", "tag:", "path:"])
def test_selector_with_an_unknown_method_is_refused(load: Load, selector: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        select_jobs(load(FILES).jobs, [], [selector])
    assert [found.code for found in caught.value.diagnostics] == ["unknown_selector"]
