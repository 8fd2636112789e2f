"""Named intermediate results. An expression that is needed twice is computed once, in a SELECT around the last one."""

from __future__ import annotations

from batchops.request.sqltypes import Value, with_sql


class Stages:
    """Names for expressions, stage by stage: what stage n makes may use the names of the stages before it."""

    def __init__(self) -> None:
        self._stages: list[list[tuple[str, str]]] = []
        self._names: dict[tuple[str, int], str] = {}

    @property
    def depth(self) -> int:
        """The depth at which every name can be used."""
        return len(self._stages)

    def named(self, value: Value) -> Value:
        """The value under a name, so that it may be repeated."""
        return value if value.is_atom else with_sql(value, self.name(value.sql, value.depth), depth=value.depth + 1)

    def name(self, sql: str, depth: int) -> str:
        """A name for an expression that uses names of stages before `depth`."""
        known = self._names.get((sql, depth))
        if known is None:
            known = self._names[sql, depth] = f"__t{len(self._names)}"
            self._stages.extend([] for _ in range(depth + 1 - len(self._stages)))
            self._stages[depth].append((known, sql))
        return known

    def around(self, source: str) -> str:
        """A subquery over `source` with every name as a column."""
        query = source
        for stage in self._stages:
            if stage:
                added = ", ".join(f"{sql} AS {name}" for name, sql in stage)
                query = f"(SELECT *, {added} FROM {query})"
        return query
