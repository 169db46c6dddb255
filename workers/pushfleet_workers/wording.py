"""Title and text of a job's message, in the languages of its recipients."""

from __future__ import annotations

from pushfleet_workers.catalogue import Catalogue
from pushfleet_workers.compose import compose, compose_recall
from pushfleet_workers.job import Job
from pushfleet_workers.settings import Settings

__all__ = ["Wording"]


class Wording:
    """Composes for each job once in a language."""

    def __init__(self, settings: Settings) -> None:
        self._apps = settings.apps
        self._catalogue = Catalogue(settings.texts)

    def language(self, app: str, locale: str = "") -> str:
        """The language of a device with *locale*, of the app where it has none."""
        return self._catalogue.language_of(locale, self._apps[app].locale)

    def of(self, job: Job, language: str, *, mentioned: bool = False, hidden: bool = False) -> tuple[str, str]:
        """Title and text: of a push that mentions its user, or must not tell what was written, another."""
        composed = job.texts.get((language, mentioned, hidden))
        if composed is None:
            name = self._apps[job.message.app].name or job.message.app
            if job.recall is None:
                composed = compose(
                    job.message, language, name, mentioned=mentioned, hidden=hidden, catalogue=self._catalogue
                )
            else:
                composed = compose_recall(job.message, language, name, hidden=hidden, catalogue=self._catalogue)
            job.texts[language, mentioned, hidden] = composed
        return composed
