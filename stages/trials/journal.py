"""The journal of a search: the file through which several processes, also on several machines, share its trials.

Optuna appends each event to the file, under a lock that network file systems have too, and gives each trial a number of
its own. Its heartbeat works with databases alone, so it is done here: a process adds a beat to its running trial every
`BEAT` seconds, and gives the trial up if it is interrupted. A process for which no trial is left waits for those that
run, and gives up one that has no new beat in so many looks as fit into `SILENCE` seconds: clocks of machines need
not agree, and a disk that hangs for all costs no trial. A trial that is given up does not count: another one, with a
number of its own, is run for it.
"""

import contextlib
import hashlib
import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from stages.common import paths, progress
from stages.common.errors import PipelineError
from stages.common.texts import shortened
from stages.reporting import history

BEAT = 20.0
"""Seconds between two beats of a trial that runs."""

SILENCE = 300.0
"""Seconds without a beat after which a trial is given up: a pause of a network's disk is shorter."""

POLL = 2.0
"""Seconds between two looks at the trials of others."""

BEATS, FAILED, IDENTITY, WHERE = "beats", "failed", "identity", "where"
"""User attributes: the beats of a trial; that it ran and failed; what a search is about; where a trial ran."""

RESULTS = (str(paths.PARAMS), "dvc.lock", "metrics")
"""Files whose changes do not make another search: params.yaml is compared by its values, the others are results."""


class Journal:
    """A search in a journal, as one of the processes sees it that share it."""

    def __init__(self, path: Path, name: str, *, direction: str, identity: dict[str, Any]) -> None:
        """Open the search `name` in the file `path`, or begin it.

        Args:
            direction: whether the score is to be minimized or maximized.
            identity: what has to be the same in every process that shares the search, see `identity`.

        Raises:
            PipelineError: the file is no journal, or the search was begun with another identity.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.path, self.name = path, name
        storage = JournalStorage(File(str(path), lock_obj=JournalFileOpenLock(str(path))))
        with self.alone():
            self.study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
            mine = json.loads(json.dumps({"direction": direction} | identity))
            there = self.study.user_attrs.get(IDENTITY)
            if there is None:
                self.study.set_user_attr(IDENTITY, there := mine)
        for key in differing(there, mine):
            began, found = (shortened(str(values.get(key)), 100) for values in (there, mine))
            raise PipelineError(
                f"{path}: expected {key} {began}, with which the search {name!r} began there, found {found}; "
                "make them the same, or choose another --name"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock that no two processes hold at a time; one that is left behind ends after half a minute."""
        lock = JournalFileOpenLock(f"{self.path}.next")
        lock.acquire()
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # this took so long that another process has ended the lock
                lock.release()

    def next_trial(self, space: dict[str, BaseDistribution], *, total: int) -> Trial | None:
        """The next trial to run here; None: `total` trials are done, here and elsewhere.

        The proposal depends on the journal alone, not on the process that asks. It keeps away from the trials that run
        ("constant liar", Ginsbourger, Le Riche and Carraro 2010, section 4.2).
        """
        looks: Counter[tuple[int, int | None]] = Counter()
        while True:
            with self.alone():  # or two processes would both take the last trial
                trials = self.study.get_trials(deepcopy=False)
                counted = [trial for trial in trials if not given_up(trial)]
                if len(counted) < total:
                    self.study.sampler = optuna.samplers.TPESampler(seed=len(trials), constant_liar=True)
                    return self.study.ask(space)
            running = [trial for trial in counted if trial.state == TrialState.RUNNING]
            if not running:
                return None
            if not looks:
                progress.say(f"waiting for {', '.join(f'{self.name}-{trial.number}' for trial in running)}")
            for trial in running:
                beat = trial.number, trial.user_attrs.get(BEATS)
                looks[beat] += 1
                if looks[beat] * POLL > SILENCE:
                    progress.say(f"{self.name}-{trial.number} is given up: {SILENCE:g} seconds without a beat")
                    self.give_up(trial.number)
            time.sleep(POLL)

    @contextmanager
    def running(self, trial: Trial) -> Iterator[None]:
        """Keep the trial alive in the block, which runs it and tells the study the result; if the block raises, the
        trial is given up. A result that comes after others have given the trial up is left out."""
        ended = threading.Event()

        def beat() -> None:
            for number in itertools.count(1):
                if ended.wait(BEAT):
                    return
                with contextlib.suppress(Exception):  # the disk may come back; the main thread meets the error, too
                    trial.set_user_attr(BEATS, number)

        beats = threading.Thread(target=beat, daemon=True)
        beats.start()
        try:
            trial.set_user_attr(WHERE, where())
            yield
        except UpdateFinishedTrialError:
            progress.say(f"{self.name}-{trial.number} was given up by another process, and is left out")
        except BaseException:
            self.give_up(trial.number)
            raise
        finally:
            ended.set()
            beats.join()

    def give_up(self, number: int) -> None:
        """End a trial that will come to no result, unless it has ended."""
        with contextlib.suppress(UpdateFinishedTrialError):  # at the same moment, another process has done it
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


class File(JournalFileBackend):
    """Optuna's journal file; its loss or damage is told in one line."""

    def __init__(self, path: str, lock_obj: JournalFileOpenLock) -> None:
        super().__init__(path, lock_obj)
        with Path(path).open("rb") as file:
            if file.read(len(START)) not in (b"", START):
                raise self.damaged("another file")

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The events from a number on.

        Raises:
            PipelineError: the file is gone, or a line is damaged, as by a full disk.
        """
        try:
            yield from super().read_logs(log_number_from)
        except (FileNotFoundError, ValueError) as error:
            raise self.damaged("none" if isinstance(error, FileNotFoundError) else "a damaged one") from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add events, and make no new file for them.

        Raises:
            PipelineError: the file is gone.
        """
        if not Path(self._file_path).exists():
            raise self.damaged("none")
        super().append_logs(logs)

    def damaged(self, found: str) -> PipelineError:
        """The error that says what was found."""
        return PipelineError(
            f"{self._file_path}: expected the journal of a search, found {found}; choose another --storage"
        )


START = b'{"op_code":'
"""How a journal begins."""


def given_up(trial: FrozenTrial) -> bool:
    """Whether a trial ended without having failed or come to a result."""
    return trial.state == TrialState.FAIL and FAILED not in trial.user_attrs


def where() -> str:
    """This machine and this clone, as Git and SSH name them."""
    return f"{socket.gethostname()}:{Path.cwd()}"


def identity(params: dict[str, Any], space: dict[str, BaseDistribution]) -> dict[str, Any]:
    """What decides the score of a trial: the commit, files changed since, parameters, and what is tried for some.

    A trial sees the files that Git or DVC tracks, as they are now.

    Raises:
        PipelineError: this is no repository of Git and DVC.
    """
    commit = history.output_of("git", "rev-parse", "HEAD").strip()
    files = {f"the uncommitted {name}": digest(Path(name)) for name in (*changed_in_git(), *changed_in_dvc())}
    return {"the commit": commit} | files | compared(params) | {name: str(values) for name, values in space.items()}


def compared(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters by their dotted names, without `checkpoints` and `compute`, which change no score and may differ
    from machine to machine."""
    return flat({section: values for section, values in params.items() if section not in ("checkpoints", "compute")})


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys of either whose values are not the same in both."""
    return [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]


def changed_in_git() -> list[str]:
    """The files that Git tracks and that differ from the commit, but for `RESULTS`."""
    left_out = [f":(exclude){path}" for path in RESULTS]
    names = history.output_of("git", "diff", "--name-only", "--relative", "-z", "HEAD", "--", ".", *left_out)
    return list(filter(None, names.split("\0")))


def changed_in_dvc() -> list[str]:
    """The files of the user's data and models that differ from those that `dvc add` has seen."""
    raw = (str(paths.RAW_DATA), str(paths.RAW_MODELS))
    found = json.loads(history.dvc_output("data", "status", "--granular", "--json", *raw)).get("uncommitted", {})
    entries = [entry for entries in found.values() for entry in entries]
    names = [name for entry in entries for name in (entry.values() if isinstance(entry, dict) else [entry])]
    return [name for name in names if not name.endswith("/")]


def digest(path: Path) -> str:
    """The beginning of the sha256 of a file's content."""
    if not path.is_file():
        return "deleted"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
