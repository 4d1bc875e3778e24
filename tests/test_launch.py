"""The launcher as a process: what users type, what they get wrong, and what is left on the disk."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import launching
import numpy as np
import pytest
from photographs import TFDS_DATA_DIR, needs_sample

import asyncflax

ROOT = pathlib.Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "",
    "JAX_ENABLE_X64": "0",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla"),  # many processes, few programs
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
}
SHORT = ["--config.model=Mlp", "--config.num_updates=40", "--config.eval_every=20", "--config.checkpoint_every=20"]


def start(*flags, config="configs/digits.py", **environment):
    command = [sys.executable, "-W", "error::DeprecationWarning:asyncflax", "launch/train.py"]
    command += ([f"--config={config}"] if config else []) + list(flags)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**ENVIRONMENT, **environment}, **pipes)


def launch(*flags, config="configs/digits.py", **environment):
    process = start(*flags, config=config, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


BAD_FLAGS = {
    "unknown field": (["--config.num_wrkers=8"], "config has no field 'num_wrkers'; did you mean 'num_workers'"),
    "wrong type": (
        ["--config.num_workers=eight"],
        "flag --config.num_workers=eight: invalid literal for int() .*'eight'",
    ),
    "a fraction for a count": (["--config.num_workers=8.5"], "flag --config.num_workers=8.5: .*'8.5'"),
    "unknown flag": (["--wrkdir=x"], "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
    "stray argument": (["num_workers=8"], "unknown argument 'num_workers=8'; flags begin with --"),
    "unknown algorithm": (["--config.algorithm=dcasgd"], "config.algorithm must be one of .* did you mean 'dc_asgd'"),
    "unknown model": (
        ["--config.model=SmalCnn"],
        "config.model must be one of 'CaffeNet', 'Cifar10Quick', 'Mlp', 'ResNet20', 'ResNet50', 'SmallCnn', "
        "'WideResNet16x4', got 'SmalCnn'",
    ),
    "option that the algorithm lacks": (
        ["--config.algorithm=dc_asgd(strenght=0.04)"],
        "config.algorithm: dc_asgd has no option 'strenght', .* did you mean 'strength'?",
    ),
    "unknown writer": (
        ["--config.writers=wanb"],
        "config.writers must be one of .*, got 'wanb'; did you mean 'wandb'?",
    ),
    "option that is lacking": (
        ["--config.asynchrony=law(distribution=geometric)"],
        "config.asynchrony: distribution: geometric needs mean, as in 'geometric(mean=...)', got 'geometric()'",
    ),
    "momentum for a method without": (
        ["--config.algorithm=asgd", "--config.momentum=0.5"],
        "config.momentum=0.5, but asgd has no momentum; set it to 0",
    ),
    "model that does not fit": (["--config.model=Cifar10Quick"], "images must have shape .*32, 32, 3.*, got .*8, 8, 1"),
    "batch larger than the data": (
        ["--config.batch_size=2000"],
        "config.batch_size=2000 is larger than the 1437 training images",
    ),
    "data_dir without the data set": (
        ["--config.dataset=cifar10", "--config.data_dir=/nowhere", "--config.data_cache=/nowhere/cache.npz"],
        "CIFAR-10 is not in /nowhere .*Download it there with.*or use the bundled data set 'digits'",
    ),
    "no such trace": (["--config.asynchrony=recorded(path='nowhere.npz')"], ".*nowhere.npz"),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """How the commands with bad flags ended, and the folder in which nothing should be."""
    folder = tmp_path_factory.mktemp("bad")
    commands = [
        ["launch/train.py", "--config=configs/digits.py", f"--workdir={folder / 'run'}", *flags]
        for flags, _ in BAD_FLAGS.values()
    ]
    return dict(zip(BAD_FLAGS, launching.launch_all(commands), strict=True)), folder


@pytest.mark.parametrize("name", BAD_FLAGS)
def test_bad_input_is_one_clear_error_and_nothing_is_written(name, refused):
    (status, out, err), message = refused[0][name], BAD_FLAGS[name][1]
    assert status == 1 and out == ""
    assert "Traceback" not in err
    assert re.search(f"error: {message.replace('?', '[?]').replace('(', '[(]').replace(')', '[)]')}", err, re.DOTALL), (
        err
    )
    assert list(refused[1].iterdir()) == []


def test_a_config_that_is_none(tmp_path):
    configs = ["", "configs/nothing.py", "tests/reference/server.py", "configs/digits.py:slow"]
    flags = [[f"--config={config}"] if config else [] for config in configs]
    for done in launching.launch_all([["launch/train.py", f"--workdir={tmp_path / 'run'}", *one] for one in flags]):
        assert done.status == 1 and done.err.count("\n") == 1, done.err
        assert re.search(r"error: .*--config.* get_config\(\) returns a TrainConfig, such as digits", done.err)
    assert list(tmp_path.iterdir()) == []


def test_a_config_whose_code_fails_is_one_line_with_its_place(tmp_path):
    codes = {
        "def get_config(:": r"SyntaxError: invalid syntax \(.*0\.py, line 1\)",
        "import no_such_package": r"ModuleNotFoundError: No module named 'no_such_package' \(.*1\.py, line 1\)",
        "def get_config():\n    return 1 / 0": r"ZeroDivisionError: division by zero \(.*2\.py, line 2\)",
    }
    for number, code in enumerate(codes):
        (tmp_path / f"{number}.py").write_text(code)
    flags = [[f"--config={tmp_path / f'{number}.py'}", f"--workdir={tmp_path / 'run'}"] for number in range(3)]
    for done, message in zip(
        launching.launch_all([["launch/train.py", *one] for one in flags]), codes.values(), strict=True
    ):
        assert done.status == 1 and re.fullmatch(rf"error: cannot load --config: {message}\n", done.err), done.err


def test_workdirs_in_which_a_run_cannot_be(tmp_path):
    file, foreign, closed = tmp_path / "file", tmp_path / "foreign", tmp_path / "closed"
    file.write_text("mine")
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    closed.mkdir(mode=0o500)
    cases = {
        file: "is a file",
        file / "below": "is not writable",
        foreign: r"contains other files \(thesis.txt\)",
        pathlib.Path("/proc/run"): "is not writable",
    }
    if os.geteuid() != 0:
        cases[closed / "run"] = "is not writable"
    before = everything(tmp_path)
    config = ["launch/train.py", "--config=configs/digits.py", *SHORT]
    found = launching.launch_all([[*config, f"--workdir={workdir}"] for workdir in cases])
    for (workdir, message), done in zip(cases.items(), found, strict=True):
        assert done.status == 1 and re.search(f"error: workdir='{workdir}' {message}", done.err), done.err
    assert everything(tmp_path) == before


STUDIES = {
    "sweep": ["launch/sweep.py", "--config=configs/figure3.py:digits"],
    "compare": ["launch/compare.py", "--config=configs/dana_table.py:digits"],
    "streaming_pca": ["launch/streaming_pca.py", "--config=configs/streaming_pca.py:fast"],
    "study": ["launch/study.py", "--name=constant_delay"],
    "theory": ["launch/theory.py"],
    "plan": ["launch/plan.py"],
    "rounds": ["launch/rounds.py"],
}


def test_all_launchers_look_at_their_folder_before_they_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    workdirs = [tmp_path / "file", tmp_path / "file" / "below"]
    commands = [[*words, f"--workdir={workdir}"] for words in STUDIES.values() for workdir in workdirs]
    commands += [[*STUDIES[name], "--workdir=/proc/run"] for name in ("study", "theory", "plan", "rounds")]
    before = everything(tmp_path)
    for command, done in zip(commands, launching.launch_all(commands), strict=True):
        assert done.status == 1 and done.out == "" and done.err.count("\n") == 1, (command, done)
        assert re.search(r"error: .*workdir='.*' (is a file|is not writable)", done.err), (command, done)
    assert everything(tmp_path) == before


NESTED = {
    "--config.train.momentum=7": r"config\.train\.momentum must be finite .* got config\.train\.momentum=7",
    "--config.train.num_updates=0": r"config\.train\.num_updates must be",
    "--config.train.algorithm=asgdd": r"config\.train\.algorithm must be one of",
    "--config.trian.momentum=0": "config has no field 'trian'; did you mean 'train'",
    "--config.train.momentun=0": "config has no field 'momentun'; did you mean 'momentum'",
}


@pytest.mark.parametrize("name, count", [("sweep", 5), ("compare", 2)])
def test_fields_of_a_nested_config_are_named_as_their_flags(name, count, tmp_path):
    flags = list(NESTED)[:count]
    commands = [[*STUDIES[name], f"--workdir={tmp_path / 'run'}", flag] for flag in flags]
    for flag, done in zip(flags, launching.launch_all(commands), strict=True):
        assert done.status == 1 and done.err.count("\n") == 1 and re.search(f"error: .*({NESTED[flag]})", done.err), (
            done
        )
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_not_utf8(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    flags = [f"--workdir={name}", f"--config={name}.py", f"--config.data_dir={name}", f"--config.data_cache={name}"]
    commands = [
        ["launch/train.py", "--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", *SHORT, flag]
        for flag in flags
    ]
    commands += [["launch/plan.py", f"--workdir={name}"], ["launch/plan.py", "--workdir", name]]
    for command, done in zip(commands, launching.launch_all(commands), strict=True):
        assert done.status == 1 and done.err.count("\n") == 1, done
        assert re.search(r"error: (argument '.*\\udcff.*' is not UTF-8|cannot load --config.*udcff)", done.err), command
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there(platform, tmp_path):
    if pathlib.Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    workdir = f"--workdir={tmp_path / 'run'}"
    commands = [
        [*words, workdir] for words in STUDIES.values() if words[0] not in ("launch/plan.py", "launch/rounds.py")
    ]
    commands += [["launch/train.py", "--config=configs/digits.py", workdir]]
    for done in launching.launch_all(commands, JAX_PLATFORMS=platform):
        assert done.status == 1 and done.out == "" and done.err.count("\n") == 1, done
        assert done.err.startswith(f"error: JAX cannot start on JAX_PLATFORMS={platform}") and "set JAX_P" in done.err
    assert list(tmp_path.iterdir()) == []


ENDS = {
    "MemoryError()": "out of memory (of the host); reduce batch size",
    "MemoryError('Unable to allocate 7 TiB')": "out of memory (Unable to allocate 7 TiB); reduce batch",
    "JaxRuntimeError('RESOURCE_EXHAUSTED: Out of\\nmemory')": "out of memory (RESOURCE_EXHAUSTED: Out of memory); red",
    "JaxRuntimeError('INTERNAL: the device\\nhas gone')": "JAX: INTERNAL: the device has gone",
    "OSError(28, 'No space left on device')": "[Errno 28] No space left on device",
    "ExceptionGroup('save', [ExceptionGroup('write', [OSError(28, 'No space')])])": "[Errno 28] No space",
    "ValueError('Failed writing: \\\"x\\\" [os_error_code=\\'28\\']')": "[Errno 28] No space left on device",
    "RunError('two\\nlines')": "two\nlines",
}


def test_what_a_user_can_put_right_is_said_in_a_line_and_a_bug_has_its_traceback(tmp_path):
    scripts = []
    for number, error in enumerate([*ENDS, "KeyError('a bug')", "ValueError('a bug')"]):
        scripts.append(tmp_path / f"{number}.py")
        imports = "from jax.errors import JaxRuntimeError\nfrom asyncflax.errors import RunError\n"
        main = f"def main():\n    raise {error}\n"
        scripts[-1].write_text(f"{imports}from asyncflax.train import launcher\n{main}launcher.launch(main)\n")
    *clear, one, other = launching.launch_all([[str(script)] for script in scripts])
    for done, message in zip(clear, ENDS.values(), strict=True):
        assert done.status == 1 and done.err.startswith(f"error: {message}"), done
        assert done.err.count("\n") == 1 + message.count("\n")
    for bug in (one, other):
        assert bug.status == 70 and "Traceback" in bug.err and "a bug" in bug.err


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="no /proc")
@pytest.mark.parametrize("script", ["train.py", "theory.py"])
def test_ctrl_c_while_packages_load_is_one_line(script, tmp_path):
    command = [sys.executable, f"launch/{script}", f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while b"jaxlib" not in pathlib.Path(f"/proc/{process.pid}/maps").read_bytes():
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("error: stopped\n", 130)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_stdout_ends_a_command_without_a_word():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "launch/plan.py"], cwd=ROOT, env=ENVIRONMENT, **pipes) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 141)


@pytest.mark.slow
def test_a_training_whose_stdout_is_closed_resumes(tmp_path):
    flags = [f"--workdir={tmp_path / 'run'}", *SHORT]
    with start(*flags) as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 141)
    assert launch(*flags)[0] == 0 and rows(tmp_path / "run")[-1]["update"] == 40


@pytest.mark.slow
def test_a_disk_that_is_full_within_a_checkpoint_is_one_line_and_the_run_resumes(tmp_path):
    """The system refuses to let files grow beyond 8 kB, as it refuses all on a full disk: in Python and in C++."""
    flags = [f"--workdir={tmp_path / 'run'}", *SHORT]
    command = [sys.executable, "launch/train.py", "--config=configs/digits.py", *flags]
    full = {name: value for name, value in ENVIRONMENT.items() if "CACHE" not in name}
    limited = ["sh", "-c", 'ulimit -f 16 && exec "$@"', "sh", *command]  # in blocks of 512 bytes
    done = subprocess.run(limited, cwd=ROOT, env=full, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: [Errno 27] File too large"), done.stderr
    assert done.stderr.count("\n") == 1 and "rerun the same command to resume" in done.stderr
    assert not [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal()]
    status, _, err = launch(*flags)
    assert status == 0, err


def test_a_run_from_its_start_to_the_figures_and_once_more(tmp_path):
    workdir = tmp_path / "run"
    flags = [f"--workdir={workdir}", *SHORT, "--config.num_workers=4"]
    status, out, err = launch(*flags)
    assert status == 0 and err == "", err
    assert "test accuracy" in out and f"figures: {workdir}/training.png" in out
    assert "\nchecked         40 events, as many updates, times in order" in out
    assert "--config.num_workers=8" in out.splitlines()[-1] and f"--workdir={workdir}-8-workers" in out.splitlines()[-1]
    assert [row["update"] for row in rows(workdir)] == [0, 20, 40]
    assert (workdir / "training.png").read_bytes()[1:4] == b"PNG"
    assert (workdir / "metrics.csv").read_text().count("\n") == 4
    assert list((workdir / "tensorboard").glob("events.*"))
    trace = asyncflax.Trace.load(workdir / "trace.npz")
    assert len(trace) == 40 and trace.num_workers == 4

    before = everything(workdir)
    replayed = [f"--config.asynchrony=recorded(path='{workdir / 'trace.npz'}')", f"--workdir={tmp_path / 'replay'}"]
    command = ["launch/train.py", "--config", "configs/digits.py", *flags]  # in two words
    next_one = shlex.split(out.splitlines()[-1].partition(": ")[2])
    assert shutil.which(ROOT / next_one[0]) and next_one[1] == command[0]
    again, other, replay, twice = launching.launch_all(
        [command, [*command, "--config.momentum=-0.09"], [*command, *replayed], next_one[1:]]
    )
    assert again.status == 0 and again.err == "" and "is complete at update 40" in again.out
    assert again.out.splitlines()[-1] == out.splitlines()[-1]
    assert twice.status == 0, twice.err
    assert asyncflax.Trace.load(tmp_path / "run-8-workers" / "trace.npz").num_workers == 8
    same = {path: content for path, content in everything(workdir).items() if "tensorboard" not in str(path)}
    assert same == {path: content for path, content in before.items() if path in same}
    assert other.status == 1
    assert "holds a run of another config: config.momentum was 0.3, now it is -0.09. Take a new workdir" in other.err
    assert replay.status == 0, replay.err
    assert rows(tmp_path / "replay")[-1]["test_loss"] == rows(workdir)[-1]["test_loss"]


@pytest.mark.slow
def test_overrides_of_all_kinds(tmp_path):
    """Overrides of all types, a method with options, negative momentum, a law instead of a queue."""
    status, out, err = launch(
        f"--workdir={os.path.relpath(tmp_path / 'run', ROOT)}",
        *SHORT,
        "--config.num_workers=8",
        "--config.algorithm=dc_asgd(strength=0.04)",
        "--config.momentum=-0.09",
        "--config.asynchrony=law(distribution=geometric(mean=7))",
        "--config.schedule=steps(at=(0.5, 0.75))",
        "--config.flip",
        "--config.width=4",
    )
    assert status == 0, err
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["momentum"] == -0.09 and config["schedule"] == "steps(at=(0.5, 0.75))" and config["flip"] is True
    assert "in theory geometric(7)" in out and "simulated time  none" in out
    assert [row["learning_rate"] for row in rows(tmp_path / "run")[1:]] == pytest.approx([0.2, 0.002], abs=1e-6)


@pytest.mark.slow
def test_a_training_that_diverges_names_the_update_and_keeps_the_last_good_checkpoint(tmp_path):
    workdir = tmp_path / "run"
    status, _, err = launch(
        f"--workdir={workdir}",
        "--config.num_updates=400",
        "--config.checkpoint_every=1",
        "--config.log_every=1",
        "--config.eval_every=400",
        "--config.learning_rate=1e4",
    )
    assert status == 1 and "Traceback" not in err, err
    found = re.search(r"error: the (loss of|parameters \S+ are not finite after|test loss .* after) update (\d+)", err)
    assert found and "has diverged (learning rate 10000, explicit momentum 0.3, 8 workers)" in err
    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert f"The last good checkpoint, of update {last}, is kept" in err and last < int(found[2])
    from orbax.checkpoint import v1 as orbax

    with pytest.warns(UserWarning, match="Sharding info"):
        state = orbax.load(workdir / "checkpoints" / str(last) / "state")
    assert all(np.isfinite(x).all() for layer in state["params"].values() for x in layer.values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_saves_and_says_how_to_go_on(number, tmp_path):
    workdir = tmp_path / "run"
    flags = [f"--workdir={workdir}", "--config.num_updates=100000", "--config.checkpoint_every=100000"]
    process = start(*flags)
    for line in process.stdout:
        if line.startswith("update 100"):
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number and "Traceback" not in err, err
    stopped = int(
        re.search(rf"error: stopped by {number.name} after update ([\d,]+) and saved", err)[1].replace(",", "")
    )
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == [str(stopped)]
    assert rows(workdir)[-1]["update"] == stopped


@pytest.mark.slow
def test_two_processes_do_not_share_a_folder(tmp_path):
    flags = [f"--workdir={tmp_path / 'run'}", "--config.num_updates=100000"]
    first = start(*flags)
    try:
        for line in first.stdout:
            if line.startswith("update 0"):
                break
        status, _, err = launch(*flags)
        assert status == 1 and "error: another process is training in workdir=" in err
    finally:
        first.kill()
        first.communicate()


@pytest.mark.slow
def test_a_corrupted_checkpoint_is_reported_and_the_one_before_is_taken(tmp_path):
    flags = [f"--workdir={tmp_path / 'run'}", *SHORT]
    twin = [f"--workdir={tmp_path / 'twin'}", *SHORT]
    assert launch(*flags)[0] == launch(*twin)[0] == 0
    data = next((tmp_path / "run" / "checkpoints" / "40").rglob("ocdbt.process_0/d/*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    status, out, err = launch(*flags)
    assert status == 0, err
    assert "checkpoints/40 is corrupted (" in out and "it is now 40.corrupted" in out and "resumes at update 20" in out
    assert rows(tmp_path / "run")[-1]["test_loss"] == rows(tmp_path / "twin")[-1]["test_loss"]
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        if path.name.isdecimal():
            (path / "info.json").write_text("")
    status, _, err = launch(*flags)
    assert status == 1 and "has only corrupted checkpoints (" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_process_that_was_killed_before_it_had_written_its_config(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / ".lock").touch()
    asyncflax.staleness.constant(0).trace(3).save(workdir / "trace.npz")
    assert launch(f"--workdir={workdir}", *SHORT)[0] == 0
    assert len(asyncflax.Trace.load(workdir / "trace.npz")) == 40


@needs_sample
@pytest.mark.slow
def test_photographs_from_a_start_to_the_figures(tmp_path):
    """A few classes of the sample, decoded by a process of its own."""
    flags = [f"--workdir={tmp_path / 'run'}", "--config.classes=range(6)", "--config.decode_processes=1"]
    status, out, err = launch(*flags, config="configs/imagenet_eight.py:fast", TFDS_DATA_DIR=TFDS_DATA_DIR)
    assert status == 0 and err == "", err
    assert f"figures: {tmp_path}/run/training.png" in out and "top 5" in out
    assert [row["update"] for row in rows(tmp_path / "run")] == [0, 3, 6]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["classes"] == [0, 1, 2, 3, 4, 5]
