"""An opened project: where it is, its settings, its state, and its providers, connected when first needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from batchops.diagnostics import BatchopsError, Diagnostic, Severity, error
from batchops.profiles import Profile, profile_of
from batchops.providers import connect
from batchops.providers.provider import Provider, ProviderContext
from batchops.request.offer import check_offers
from batchops.settings import LoadedSettings, ProviderSettings, Settings
from batchops.spec.files import with_snippets
from batchops.spec.job import Job
from batchops.spec.load import LoadedProject, is_by_state, load_project, refuse_empty, select_jobs
from batchops.store.store import Clock, StateReader, StateStore, utc_now


@dataclass
class Project:
    """A project as one command sees it. Close it: providers hold connections, and may serve an embedded API."""

    root: Path
    loaded: LoadedSettings
    clock: Clock = utc_now
    _providers: dict[str, Provider] = field(default_factory=dict)
    _specs: LoadedProject | None = None

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    @property
    def environ(self) -> Mapping[str, str]:
        return self.loaded.environ

    @property
    def name(self) -> str:
        return self.settings.project or self.root.name

    @property
    def environment(self) -> str:
        return self.loaded.environment

    @property
    def state_path(self) -> Path:
        return self.root / self.settings.state.url

    @property
    def reader(self) -> StateReader:
        return StateReader(self.state_path, clock=self.clock)

    @property
    def work_folder(self) -> Path:
        """Where shards, downloads and work databases of running commands live; see `new_work_folder`."""
        return self.state_path.parent / "work"

    def provider_settings(self, name: str) -> ProviderSettings:
        """BatchopsError where the settings no longer have a provider that the state tells of."""
        if name not in self.settings.providers:
            raise BatchopsError(_provider_gone(name))
        return self.settings.providers[name]

    def profile(self, provider: str) -> Profile:
        """What the provider allows, known without connecting."""
        return profile_of(self.provider_settings(provider), self.environ)

    def is_simulated(self, provider: str) -> bool:
        """Known without connecting: only the local provider makes its answers up."""
        return self.provider_settings(provider).kind == "local"

    def provider(self, name: str) -> Provider:
        """The connected provider; connecting imports its SDK, so call this only when the network is needed."""
        if name not in self._providers:
            context = ProviderContext(name, self.provider_settings(name), self.root, self.environ)
            self._providers[name] = connect(context)
        return self._providers[name]

    def load(self) -> LoadedProject:
        """Every spec, with all that is wrong with them and with what they ask of their providers.

        Read once, so that all parts of a command see the same; `reload` reads them again.
        """
        if self._specs is None:
            self._specs = self._read_specs()
        return self._specs

    def reload(self) -> LoadedProject:
        """`load`, of the specs as they are now."""
        self._specs = None
        return self.load()

    def _read_specs(self) -> LoadedProject:
        loaded = load_project(
            self.root, default_provider=self.settings.provider, providers=tuple(self.settings.providers)
        )
        refused = with_snippets(self.root, check_offers(loaded.jobs, self.settings, self.environ))
        found = sorted((*loaded.diagnostics, *refused), key=lambda diagnostic: diagnostic.place)
        return replace(loaded, diagnostics=tuple(found))

    def jobs(
        self,
        *,
        select: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        modified: Callable[[Sequence[Job]], Collection[str]] | None = None,
    ) -> tuple[Job, ...]:
        """The enabled jobs that were asked for. Raises BatchopsError when any spec of the project is broken.

        `modified` finds the addresses of `state:modified`, and is called only when that is among the selectors.
        """
        project = self.load()
        if any(found.severity is Severity.ERROR for found in project.diagnostics):
            raise BatchopsError(*project.diagnostics)
        moved = modified(project.jobs) if modified is not None and is_by_state((*select, *exclude)) else ()
        chosen = select_jobs(project.jobs, select, exclude, modified=moved) if select or exclude else project.jobs
        refuse_empty(project.jobs, select)
        return tuple(job for job in chosen if job.spec.enabled)

    @contextmanager
    def leased(self, patience: timedelta = timedelta(0)) -> Iterator[StateStore]:
        """Hold the lease of this project's state; see store.lease.leased."""
        from batchops.store.lease import leased  # noqa: PLC0415  a plan needs no lease, nor what it imports

        with leased(
            self.state_path, project=self.name, environ=self.environ, patience=patience, clock=self.clock
        ) as store:
            yield store

    def close(self) -> None:
        for provider in self._providers.values():
            provider.close()
        self._providers.clear()

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_project(root: Path, loaded: LoadedSettings) -> Project:
    """Open the project at `root`. Paths in specs and queries are relative to it, so the process moves there."""
    os.chdir(root)
    return Project(root.resolve(), loaded)


def _provider_gone(name: str) -> Diagnostic:
    detail = (
        f'The state has batches at "{name}", and the settings have no provider of that name any more. They are paid,'
        f" and can be fetched from there alone: put [providers.{name}] back until they are."
    )
    return error("provider_gone", "A provider is gone from the settings.", detail)
