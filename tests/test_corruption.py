"""What is read again is what was written, or it is noticed: no spoiled file gives other results."""

import random

import corruption
import pytest

MAKERS = ("of_run", "of_cells", "of_study", "of_caches")


def check(table, at_least):
    assert table.faults == []
    assert sum(count.total() for count in table.counts.values()) >= at_least


@pytest.mark.parametrize("make", MAKERS)
def test_no_spoiled_file_gives_other_results(make, tmp_path):
    """Three flipped bits a kind, and one of the files where a kind has many."""
    kinds = getattr(corruption, make)(tmp_path)
    few = [kind._replace(files=kind.files[-1:]) for kind in kinds]
    check(corruption.read_in_process(few, 3, random.Random(0)), 6 * len(kinds))


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS)
def test_many_flipped_bits(make, tmp_path):
    kinds = getattr(corruption, make)(tmp_path)
    check(corruption.read_in_process(kinds, 15, random.Random(1)), 18 * len(kinds))


@pytest.mark.slow
def test_no_command_gives_other_results_from_a_spoiled_file(tmp_path):
    for name, kinds in corruption.kinds_of_commands(tmp_path).items():
        check(corruption.read_by_commands(name, kinds, 3, random.Random(0)), 6 * len(kinds))


def test_a_reader_that_checks_nothing_is_found_out(tmp_path):
    """A byte of a plain file is another number; an error that does not say where, or of another kind, is no answer."""
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "file").write_bytes(bytes(range(60)))

    def outcomes(read):
        kind = corruption._kind("plain", whole, ["file"], [], read)
        return corruption.read_in_process([kind], 6, random.Random(0)).counts["plain"]

    def careful(message, error=ValueError):
        def read(folder):
            content = (folder / "file").read_bytes()
            if content != bytes(range(60)):
                raise error(message.format(folder / "file"))
            return {"content": content}

        return read

    # Truncated, emptied and six flipped; removed, reading is an OSError that names the file.
    assert outcomes(lambda folder: {"content": (folder / "file").read_bytes()}) == {"wrong": 8, "clear": 1}
    assert outcomes(careful("{} is corrupted")) == {"clear": 9}
    assert outcomes(careful("it is corrupted")) == {"wrong": 8, "clear": 1}
    assert outcomes(careful("{} is corrupted\nsomewhere")) == {"wrong": 8, "clear": 1}
    assert outcomes(careful("{} is corrupted", KeyError)) == {"wrong": 8, "clear": 1}
