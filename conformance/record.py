"""What has been run with this very code, and was strict: kept in the repository,
since all of it is hours of CPU, which need not be spent at once or in one place.

What it says of a backend is worth something as long as nothing changes that its
results depend on: then ``--resume`` goes on where it ends.  ``--write`` writes it, and the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from .agents import BACKENDS
from .autobahn import Job
from .results import RUNS, fingerprint, must_be

RECORD = Path(__file__).with_name('record.json')


class Record:
    """The parts of runs: by the run's name and the part's the day on which it ran,
    and the cases that were run again.

    :param path: the file; it need not be there.
    """

    def __init__(self, path: Path = RECORD) -> None:
        self._path = path
        self._parts: dict[str, dict[str, str]] = {}
        try:
            kept = json.loads(path.read_text())
        except FileNotFoundError:
            return
        for run in RUNS:
            if kept['of'][run.backend] == fingerprint(run.backend):
                self._parts[run.name] = kept['parts'].get(run.name, {})

    def recall(self, job: Job) -> bool:
        """Give a job the result that is recorded; returns whether one is."""
        part = self._parts.get(job.run.name, {}).get(job.part)
        if part is None:
            return False
        job.date, *repeated = part.split()
        job.result.cases = {case: must_be(case) for case in job.result.expected}
        job.result.repeated = tuple(repeated)
        return True

    def write(self, jobs: Iterable[Job]) -> None:
        """Record the jobs that are strict, and nothing else."""
        self._parts = {}
        for job in jobs:
            if job.result.strict:
                part = ' '.join((job.date, *job.result.repeated))
                self._parts.setdefault(job.run.name, {})[job.part] = part
        kept = {'of': {name: fingerprint(name) for name in BACKENDS}, 'parts': self._parts}
        self._path.write_text(json.dumps(kept, indent=1) + '\n')
