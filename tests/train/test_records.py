"""Metrics on the disk: JSON lines, CSV and TensorBoard agree, and a resumed run drops what it computes again."""

import csv
import json

import pytest
from tensorboardX.proto.event_pb2 import Event

from asyncflax.train.records import Records

ROWS = [
    {"update": 0, "test_loss": 2.5},
    {"update": 10, "train_loss": 2.0},
    {"update": 20, "train_loss": 1.5, "test_loss": 1.75},
]


def write(folder, rows=ROWS, **options):
    with Records(folder, **options) as records:
        for row in rows:
            records.write(row)
    return records


def board(folder):
    """(step, tag, value) of every scalar, read from the event files themselves."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return found


def test_all_forms_agree(tmp_path):
    records = write(tmp_path)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == ROWS
    with (tmp_path / "metrics.csv").open() as file:
        table = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert table == ROWS
    scalars = [(row["update"], name, value) for row in ROWS for name, value in row.items() if name != "update"]
    assert board(tmp_path) == scalars
    assert records.column("test_loss") == ([0, 20], [2.5, 1.75])


def test_rows_after_the_checkpoint_are_dropped_and_written_again(tmp_path):
    write(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 30, "train_lo')  # a killed process
    again = write(tmp_path, [{"update": 20, "train_loss": 1.25}], resume_at=10)
    assert again.rows == [*ROWS[:2], {"update": 20, "train_loss": 1.25}]
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == again.rows
    assert board(tmp_path) == [(0, "test_loss", 2.5), (10, "train_loss", 2.0), (20, "train_loss", 1.25)]


def test_the_half_line_of_a_killed_process_is_no_error(tmp_path):
    write(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 30, "train_lo')
    assert write(tmp_path, [], resume_at=20).rows == ROWS


def test_a_damaged_line_that_should_stay_is_named(tmp_path):
    write(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join([lines[0], "garbage", lines[2]]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is no row of metrics: 'garbage'; put it right"):
        Records(tmp_path, resume_at=20)


def test_a_lost_file_is_not_taken_for_an_empty_one(tmp_path):
    with pytest.raises(ValueError, match=r"has no rows, but the newest checkpoint is of update 20; put the file back"):
        Records(tmp_path, resume_at=20)
    write(tmp_path, ROWS[:2])
    with pytest.raises(ValueError, match="ends at update 10, but the newest checkpoint is of update 20"):
        Records(tmp_path, resume_at=20)
