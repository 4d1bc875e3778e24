"""Metrics on the disk: all writers agree, a resumed run drops what it computes again, and writers are named."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from asyncflax.train import writers
from asyncflax.train.config import TrainConfig
from asyncflax.train.records import Records
from asyncflax.train.writers import read_writers

ROWS = [
    {"update": 0, "test_loss": 2.5},
    {"update": 10, "train_loss": 2.0},
    {"update": 20, "train_loss": 1.5, "test_loss": 1.75},
]
OWN = """
class Chat:
    def __init__(self, folder, rows, room=1):
        self.path = folder / f"room-{room}"
        self.path.write_text("".join(f"kept {row['update']}\\n" for row in rows))
    def write(self, row):
        self.path.write_text(self.path.read_text() + f"new {row['update']}\\n")
    def sync(self):
        self.write({"update": "synced"})
    def close(self):
        self.write({"update": "closed"})

def nothing(folder):
    return 3

def fails(rows):
    raise OSError("no\\nline")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    folder.mkdir()
    folder.joinpath("my_writers.py").write_text(OWN)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_writers", raising=False)


def write(folder, new=ROWS, names="tensorboard", **options):
    with Records(folder, writers=read_writers("writers", names), **options) as records:
        for row in new:
            records.write(row)
        records.sync()
    return records


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def board(folder):
    """(step, tag, value) of every scalar, read from the event files themselves."""
    values = [(event.step, value) for event in events(folder) for value in event.summary.value]
    return [(step, value.tag, value.simple_value) for step, value in values if not value.HasField("tensor")]


def scalars(rows):
    return [(row["update"], name, value) for row in rows for name, value in row.items() if name != "update"]


def test_all_forms_agree(tmp_path):
    records = write(tmp_path, names="jsonl, tensorboard, csv")
    assert lines(tmp_path) == ROWS
    with (tmp_path / "metrics.csv").open() as file:
        table = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert table == ROWS
    assert board(tmp_path) == scalars(ROWS)
    assert records.column("test_loss") == ([0, 20], [2.5, 1.75])


def test_rows_after_the_checkpoint_are_dropped_and_written_again(tmp_path):
    write(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 30, "train_lo')  # a killed process
    again = write(tmp_path, [{"update": 20, "train_loss": 1.25}], rows=ROWS[:2])
    assert again.rows == [*ROWS[:2], {"update": 20, "train_loss": 1.25}]
    assert lines(tmp_path) == again.rows
    assert board(tmp_path) == scalars(again.rows)


def test_what_happened_to_the_files_meanwhile_does_not_matter(tmp_path):
    write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff garbage")
    (tmp_path / "metrics.csv").unlink()
    write(tmp_path, [], rows=ROWS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert len(board(tmp_path)) == 4


def test_tensorboard_has_the_config_as_text(tmp_path):
    write(tmp_path, config={"momentum": -0.09, "algorithm": "dc_asgd(strength=0.04)"})
    values = [value for event in events(tmp_path) for value in event.summary.value if value.HasField("tensor")]
    (text,) = [value.tensor.string_val[0].decode() for value in values]
    assert values[0].metadata.plugin_data.plugin_name == "text" and "config" in values[0].tag
    assert "| momentum | `-0.09` |" in text and "dc_asgd(strength=0.04)" in text


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("asyncflax.train.records.is_primary", lambda: False)
    assert write(tmp_path).rows == ROWS and not [*tmp_path.iterdir()]


def test_a_writer_of_ones_own_gets_the_rows_that_were_kept_and_the_new_ones(tmp_path, own):
    write(tmp_path, ROWS[2:], "my_writers.Chat(room=7)", rows=ROWS[:2])
    assert (tmp_path / "room-7").read_text().split("\n") == [
        "kept 0", "kept 10", "new 20", "new synced", "new closed", ""
    ]  # fmt: skip
    assert not (tmp_path / "tensorboard").exists() and lines(tmp_path) == ROWS


@pytest.mark.parametrize(
    "names, message",
    [
        ("tensorbord", r"config\.writers must be one of 'csv', .*; did you mean 'tensorboard'\?"),
        ("tensorboard(port=1)", r"config\.writers: tensorboard has no option 'port'"),
        ("wandb(rows=1)", r"config\.writers: rows of wandb is set by a field of its own"),
        ("tensorboard, tensorboard", r"config\.writers must name each writer once"),
        ("a=tensorboard", r"config\.writers must be like .*, got a=\.\.\. in 'a=tensorboard'"),
        ("my_writers.Chatt", r"config\.writers: my_writers has no 'Chatt'; did you mean 'Chat'\?"),
        ("3", r"config\.writers must be text such as"),
    ],
)
def test_a_writer_that_there_is_not_is_one_line(names, message, own):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        TrainConfig(writers=names).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, message",
    [("nothing", r"must return MetricWriter, got int"), ("fails", r"'my_writers.fails\(\)': OSError: no line")],
)
def test_a_writer_that_cannot_begin_is_one_line(name, message, own, tmp_path):
    with pytest.raises((TypeError, ValueError), match=message):
        write(tmp_path, names=f"my_writers.{name}")


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^config\.writers: wandb is not installed; .*'asyncflax\[wandb\]'$"):
        TrainConfig(writers="wandb").check()


# --- Weights & Biases, offline, in a process of its own ---------------------------------------------------------------

WANDB = """
import sys
from asyncflax.train.records import Records
from asyncflax.train.writers import read_writers
folder, kept, new = sys.argv[1], *map(eval, sys.argv[2:])
to = {"writers": read_writers("writers", "wandb(project=stale)"), "config": {"momentum": -0.09}}
with Records(folder, rows=kept, **to) as records:
    for row in new:
        records.write(row)
    records.sync()
"""


def logged(folder):
    """What the log of an offline run has: ids and projects, config, and the rows."""
    from wandb.proto.wandb_internal_pb2 import Record

    about, config, rows = [], {}, []
    for path in folder.glob("wandb/*/*.wandb"):
        content, at, part = path.read_bytes(), 7, b""
        while at + 7 < len(content):  # blocks of 32 kB; parts with a checksum, a length and a kind (LevelDB's log)
            if at % 2**15 > 2**15 - 7:
                at += -at % 2**15
            length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
            part, at = part + content[at + 7 : at + 7 + length], at + 7 + length
            if kind not in (1, 4):  # the last part, or the only one
                continue
            record, part = Record.FromString(part), b""
            if record.HasField("run"):
                about.append((record.run.run_id, record.run.project))
                config |= {item.key: item.value_json for item in record.run.config.update}
            if record.HasField("history"):
                row = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                rows.append({"update": record.history.step.num} | {k: v for k, v in row.items() if k[0] != "_"})
    return about, config, rows


@pytest.mark.slow
def test_wandb_offline_has_each_row_once_and_stays_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    root = pathlib.Path(writers.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))

    def run(kept, new):
        command = [sys.executable, "-c", WANDB, str(tmp_path), repr(kept), repr(new)]
        subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
        return logged(tmp_path)

    (about,), config, rows = run([], ROWS)
    assert about[1] == "stale" and config["momentum"] == "-0.09" and rows == ROWS
    (again,), _, rows = run(ROWS[:2], [{"update": 20, "train_loss": 1.25}, {"update": 30, "train_loss": 1.0}])
    assert again == about
    assert rows == [*ROWS[:2], {"update": 20, "train_loss": 1.25}, {"update": 30, "train_loss": 1.0}]
