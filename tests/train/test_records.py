"""Metrics on the disk: JSON lines, CSV and TensorBoard agree, and a resumed run drops what it computes again."""

import csv
import json

from tensorboardX.proto.event_pb2 import Event

from asyncflax.train.records import Records

ROWS = [
    {"update": 0, "test_loss": 2.5},
    {"update": 10, "train_loss": 2.0},
    {"update": 20, "train_loss": 1.5, "test_loss": 1.75},
]


def write(folder, new=ROWS, **options):
    with Records(folder, **options) as records:
        for row in new:
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
    again = write(tmp_path, [{"update": 20, "train_loss": 1.25}], rows=ROWS[:2])
    assert again.rows == [*ROWS[:2], {"update": 20, "train_loss": 1.25}]
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == again.rows
    assert board(tmp_path) == [(0, "test_loss", 2.5), (10, "train_loss", 2.0), (20, "train_loss", 1.25)]


def test_what_happened_to_the_files_meanwhile_does_not_matter(tmp_path):
    before = {path.name: path.read_bytes() for path in write(tmp_path).folder.iterdir() if path.is_file()}
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff garbage")
    (tmp_path / "metrics.csv").unlink()
    write(tmp_path, [], rows=ROWS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert len(board(tmp_path)) == 4
