"""A search that several processes share: each trial is run once, and what dies is made up for."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from conftest import tiny_params
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from ruamel.yaml import YAML

from stages import search
from stages.common import paths
from stages.common.errors import PipelineError
from stages.params import Params
from stages.reporting import history
from stages.reporting.history import Experiment
from stages.trials import journal
from stages.trials.journal import Journal

SPACE = {"train.lr": FloatDistribution(1e-4, 1e-2, log=True)}
ARGUMENTS = ("train.lr=1e-4..1e-2", "--storage", "search.log")
DVC = {"data": "{}", "exp": ""}
"""What DVC prints, by its command: no data has changed, there are no experiments."""

BEGUN = "begun"
"""The file to which each trial that begins adds its name, its value and its process."""

git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A Git repository with params.yaml, in which a trial takes no time."""
    monkeypatch.chdir(tmp_path)
    YAML().dump(tiny_params(), tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "first")):
        subprocess.run([*git, *command], check=True)
    made = {}

    def run_experiment(name: str, changes: dict, target: str) -> bool:
        with Path(BEGUN).open("a") as file:
            file.write(f"{name} {changes['train.lr']} {os.getpid()}\n")
        metrics = {str(paths.TRAIN_METRICS): {"main": "accuracy", "validation": {"loss": changes["train.lr"]}}}
        made[name] = Experiment(name=name, params={}, metrics=metrics, evaluated=False)
        return True

    monkeypatch.setattr(history, "run_experiment", run_experiment)
    monkeypatch.setattr(history, "finished", lambda name: (made[key] for key in made if key.startswith(name)))
    monkeypatch.setattr(history, "dvc_output", lambda *arguments: DVC.get(arguments[0]))
    return tmp_path


def begun() -> list[tuple[str, str, int]]:
    """The trials that have begun: name, value, process."""
    rows = [line.split() for line in Path(BEGUN).read_text().splitlines()] if Path(BEGUN).exists() else []
    return [(name, value, int(process)) for name, value, process in rows]


def process(*arguments: str, meanwhile: Callable[[str], None], output: str = os.devnull) -> multiprocessing.Process:
    """Start a search in a process of its own.

    Args:
        meanwhile: what each of its trials does, by its name.
    """
    run_experiment = history.run_experiment

    def run(name: str, *others: object) -> bool:
        done = run_experiment(name, *others)
        meanwhile(name)
        return done

    def main() -> None:
        history.run_experiment = run
        sys.argv = ["search", *ARGUMENTS, *arguments]
        with Path(output).open("w") as sys.stdout:
            search.main()

    started = multiprocessing.get_context("fork").Process(target=main, daemon=True)
    started.start()
    return started


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, begun()
        time.sleep(0.01)


def processes_that_began() -> int:
    return len({process for *_, process in begun()})


def test_two_processes_run_every_trial_once_at_different_values_and_both_show_all(home, monkeypatch):
    monkeypatch.setattr(journal, "POLL", 0.01)
    both = [
        process("--trials", "12", meanwhile=lambda name: wait_for(lambda: processes_that_began() == 2), output=output)
        for output in ("a", "b")
    ]
    for one in both:
        one.join(60)
        assert not one.exitcode
    names, values, _ = zip(*begun(), strict=True)
    assert sorted(names) == sorted(f"search-{number}" for number in range(12))
    assert len(set(values)) == 12
    table = Path("a").read_text()
    assert table == Path("b").read_text()
    assert table.count(f"`{journal.where()}` |\n") == 12
    assert table.endswith(f"dvc exp apply {min(begun(), key=lambda row: float(row[1]))[0]} && dvc repro\n")


def test_a_process_that_is_killed_is_made_up_for_by_another_trial(home, monkeypatch):
    monkeypatch.setattr(journal, "SILENCE", 0.2)
    monkeypatch.setattr(journal, "POLL", 0.01)
    killed = process("--trials", "4", meanwhile=lambda name: time.sleep(600))
    wait_for(begun)
    killed.kill()
    killed.join()
    other = process("--trials", "4", meanwhile=lambda name: None, output="table")
    other.join(60)
    assert not other.exitcode
    assert [name for name, *_ in begun()] == [f"search-{number}" for number in range(5)]
    shown = Path("table").read_text()
    assert "search-0" not in shown
    assert all(f"| `search-{number}` |" in shown for number in range(1, 5))


def test_an_interrupted_process_gives_its_trial_up_at_once(home, monkeypatch):
    shared, total = opened(), 2
    for error in (KeyboardInterrupt, RuntimeError):
        trial = shared.next_trial(SPACE, total=total)
        with pytest.raises(error), shared.running(trial):
            raise error
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    assert [run(opened()), run(opened()), opened().next_trial(SPACE, total=total)] == [2, 3, None]


def opened(**changes: object) -> Journal:
    """The search as another process sees it."""
    identity = journal.identity(Params.load().model_dump(mode="json"), SPACE)
    return Journal(Path("search.log"), "search", direction="minimize", identity=identity | changes)


def run(shared: Journal, total: int = 2) -> int:
    """Run the next trial; returns its number."""
    trial = shared.next_trial(SPACE, total=total)
    with shared.running(trial):
        search.run_trial(shared.study, trial, f"search-{trial.number}", "loss")
    return trial.number


def test_a_trial_that_beats_is_waited_for_and_one_that_does_not_is_given_up(home, monkeypatch, capsys):
    monkeypatch.setattr(journal, "POLL", journal.BEAT / 2)
    now = [0.0]
    slow = opened().next_trial(SPACE, total=1)

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] < 10 * journal.SILENCE and now[0] % journal.BEAT < seconds:
            slow.set_user_attr(journal.BEATS, int(now[0]))

    other = opened()
    monkeypatch.setattr(journal.time, "sleep", sleep)
    assert other.next_trial(SPACE, total=1).number == 1
    assert 11 * journal.SILENCE - journal.BEAT <= now[0] <= 11 * journal.SILENCE + journal.BEAT
    assert capsys.readouterr().err == ("waiting for search-0\nsearch-0 is given up: 300 seconds without a beat\n")


def test_a_running_trial_beats_until_its_end(home, monkeypatch):
    monkeypatch.setattr(journal, "BEAT", 0.01)
    shared, other = opened(), opened()

    def beats() -> int:
        return other.study.trials[0].user_attrs.get(journal.BEATS, 0)

    trial, threads = shared.next_trial(SPACE, total=1), threading.active_count()
    with shared.running(trial):
        wait_for(lambda: beats() >= 2)
        shared.study.tell(trial, 0.5)
    assert threading.active_count() == threads
    assert other.study.trials[0].value == 0.5


def test_a_result_that_comes_after_its_trial_was_given_up_is_left_out(home, capsys):
    late, other = opened(), opened()
    trial = late.next_trial(SPACE, total=1)
    with late.running(trial):
        for _ in range(2):
            other.give_up(trial.number)
        search.run_trial(late.study, trial, "search-0", "loss")
    assert "search-0 was given up by another process, and is left out" in capsys.readouterr().err
    assert [one.state for one in late.study.trials] == [TrialState.FAIL]
    assert run(late, total=1) == 1


def test_which_process_asks_makes_no_difference_to_what_is_tried(home):
    alone = opened()
    for _ in range(14):
        run(alone, total=14)
    Path("search.log").rename("alone.log")
    taking_turns = (opened(), opened())
    for number in range(14):
        run(taking_turns[number % 2], total=14)
    first, second = ([trial.params for trial in shared.study.trials] for shared in (alone, taking_turns[0]))
    assert first == second
    assert len({trial["train.lr"] for trial in first}) == 14


def test_no_two_processes_count_the_trials_and_ask_for_one_at_once(home, monkeypatch):
    shared, lock = opened(), Path("search.log.next.lock")
    ask = shared.study.ask

    def checked(space: dict) -> optuna.Trial:
        assert lock.exists()
        return ask(space)

    monkeypatch.setattr(shared.study, "ask", checked)
    assert run(shared) == 0
    assert not lock.exists()


def test_trials_that_run_at_once_differ_once_proposals_follow_the_scores(home):
    shared = opened()
    for _ in range(12):
        run(shared, total=12)
    at_once = [opened().next_trial(SPACE, total=20).params["train.lr"] for _ in range(8)]
    assert len(set(at_once)) == 8


def commit(name: str) -> None:
    Path(name).write_text("new")
    subprocess.run([*git, "add", name], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "second"], check=True)


def write_params(**sections: dict | int) -> None:
    YAML().dump(tiny_params(**sections), Path("params.yaml"))


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda: commit("new.py"), (), r"expected the commit \w{40}, .* found \w{40}; make them the same"),
        (lambda: Path("dvc.yaml").write_text("#\n"), (), "expected the uncommitted dvc.yaml None, .* found \\w{12};"),
        (lambda: Path("dvc.yaml").unlink(), (), "expected the uncommitted dvc.yaml None, .* found deleted"),
        (lambda: write_params(train={"epochs": 9}), (), "expected train.epochs 12, .* found 9;"),
        (
            lambda: write_params(data={"limit": {"train": 9, "validation": 12, "test": 24}}),
            (),
            "expected data.limit.train 60, .* found 9;",
        ),
        (lambda: write_params(train={"select_by": "main"}), (), "expected direction minimize, .* found maximize;"),
        (
            None,
            ("train.lr=1e-4..1e-3",),
            "expected train.lr FloatDistribution.*0.01, .* found FloatDistribution.*0.001",
        ),
        (None, ("train.lr=1e-4..1e-2", "lora.r=4,8"), "expected lora.r 8, .* found CategoricalDistribution"),
        (None, ("train.scheduler=linear",), "expected train.lr FloatDistribution.* found 0.005; make them"),
    ],
)
def test_a_search_that_differs_from_the_one_in_the_journal_is_refused(home, monkeypatch, change, arguments, message):
    run(opened())
    (change or str)()
    monkeypatch.setattr(sys, "argv", ["search", *(arguments or ARGUMENTS[:1]), *ARGUMENTS[1:]])
    with pytest.raises(PipelineError, match=rf"search\.log: {message}"):
        search.main()
    assert len(begun()) == 1


def test_data_that_dvc_tracks_and_that_changed_make_another_search(home, monkeypatch):
    Path("data").mkdir()
    Path("data/new.csv").write_text("a")
    run(opened())
    changed = {"modified": ["data/folder/"], "added": ["data/new.csv"], "renamed": [{"old": "data/a", "new": "data/b"}]}
    monkeypatch.setitem(DVC, "data", json.dumps({"uncommitted": changed, "committed": {"added": ["data/raw/c"]}}))
    with pytest.raises(PipelineError, match=r"expected the uncommitted data/new\.csv None, .* found ca978112ca1b;"):
        opened()
    names = ["data/a", "data/b", "data/new.csv"]
    assert sorted(journal.changed_in_dvc()) == names


def test_what_changes_no_trial_is_no_other_search(home, monkeypatch):
    run(opened())
    write_params(compute={"processes": 2}, checkpoints={"minutes": 1}, train={"lr": 0.1})
    for name in ("dvc.lock", "metrics/train.json", "untracked.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("changed")
    subprocess.run([*git, "add", "dvc.lock", "metrics"], check=True)
    monkeypatch.setattr(sys, "argv", ["search", *ARGUMENTS, "--trials", "2"])
    search.main()
    assert [name for name, *_ in begun()] == ["search-0", "search-1"]
    monkeypatch.setattr(sys, "argv", ["search", *ARGUMENTS, "--trials", "1", "--name", "another"])
    search.main()
    assert begun()[-1][0] == "another-0"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("# notes\n", "found another file; choose another --storage"),
        ("seed: 42\ndata: x\n", "found another file"),
        ('{"op_code":0,"wor\n{"op_code":0}\n', "found a damaged one; choose another --storage"),
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_stays_as_it_is(home, content, found):
    Path("search.log").write_text(content)
    with pytest.raises(PipelineError, match=rf"^search\.log: expected the journal of a search, {found}"):
        opened()
    assert Path("search.log").read_text() == content


def test_a_line_that_a_full_disk_cut_is_told_by_the_next_process(home):
    run(opened())
    with Path("search.log").open("a") as file:
        file.write('{"op_code":8,"wor')
    late = opened()
    with pytest.raises(PipelineError, match="expected the journal of a search, found a damaged one"):
        run(late)


def test_a_journal_that_is_gone_is_told_and_not_begun_anew(home):
    shared = opened()
    trial = shared.next_trial(SPACE, total=2)
    with pytest.raises(PipelineError, match="expected the journal of a search, found none"), shared.running(trial):
        Path("search.log").unlink()
        shared.study.tell(trial, 0.5)
    assert not Path("search.log").exists()


@pytest.mark.parametrize("storage", ["dvc.lock", "search.db", "stages/search.log", "."])
def test_a_journal_has_a_place_and_an_ending_of_its_own(home, monkeypatch, storage):
    monkeypatch.setattr(sys, "argv", ["search", ARGUMENTS[0], "--storage", storage])
    with pytest.raises(PipelineError, match=r"--storage: expected a file ending in \.log, found"):
        search.main()


def test_an_experiment_of_the_same_name_that_is_not_of_the_search_is_refused(home, monkeypatch):
    run(opened())
    monkeypatch.setattr(sys, "argv", ["search", *ARGUMENTS, "--trials", "1"])
    monkeypatch.setitem(DVC, "exp", "search-0\nsearch-best\nother-7\nsearch-0-1\n")
    search.main()
    monkeypatch.setitem(DVC, "exp", "search-0\nsearch-7\n")
    with pytest.raises(PipelineError, match=r"search-7: expected an experiment of the search in .*search\.log, found"):
        search.main()


def test_a_machine_on_which_all_fails_leaves_the_search_to_others_and_what_fails_is_shown(home, monkeypatch, capsys):
    works = history.run_experiment
    monkeypatch.setattr(history, "run_experiment", lambda *arguments: False)
    monkeypatch.setattr(sys, "argv", ["search", *ARGUMENTS, "--trials", "5"])
    with pytest.raises(PipelineError, match="expected a trial that succeeds, found that the first 3 failed here"):
        search.main()
    monkeypatch.setattr(history, "run_experiment", works)
    search.main()
    shown = capsys.readouterr().out
    assert [line.split(" | ")[1] for line in shown.splitlines()[4:7]] == ["failed"] * 3
    assert [name for name, *_ in begun()] == ["search-3", "search-4"]


def test_values_stand_under_their_names_whatever_the_order_in_which_each_process_names_them(home, monkeypatch, capsys):
    for trials, space in (("1", ["train.lr=1e-3", "lora.r=4"]), ("2", ["lora.r=4", "train.lr=1e-3"])):
        monkeypatch.setattr(sys, "argv", ["search", *space, *ARGUMENTS[1:], "--trials", trials])
        search.main()
    header, _, *rows = capsys.readouterr().out.splitlines()[5:9]
    assert header.split(" | ")[2:4] == ["`train.lr`", "`lora.r`"]
    assert [row.split(" | ")[2:4] for row in rows] == [["0.001", "4"]] * 2


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("{here}", "dvc exp apply search-0 && dvc repro"),
        ("{machine}:/other/clone", "dvc exp pull /other/clone search-0 && dvc exp apply search-0 && dvc repro"),
        ("node:/my clone", "dvc exp pull 'node:/my clone' search-0 && dvc exp apply search-0 && dvc repro"),
    ],
)
def test_the_best_trial_is_pulled_from_where_it_ran(place, command):
    here = journal.where()
    place = place.format(here=here, machine=here.partition(":")[0])
    done = optuna.trial.create_trial(
        params={"train.lr": 1e-3},
        distributions=SPACE,
        value=0.5,
        user_attrs={"experiment": "search-0", "score": "loss", journal.WHERE: place},
    )
    study = optuna.create_study()
    study.add_trial(done)
    assert search.best(study).splitlines()[-1] == command
