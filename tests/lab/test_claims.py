"""Claims as files, their tables in documents, and what is said when one is wrong."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from asyncflax.lab import claims, documents
from asyncflax.lab.claims import Claim

ROOT = pathlib.Path(__file__).parents[2]
FIELDS = {
    "name": "theorem-5",
    "statement": "M workers have 1 - 1/M of momentum.",
    "source": "Somebody 2016, Theorem 5",
    "paper": "0.875 | M = 8",
    "ours": "0.874 (0.871 to 0.877)",
    "value": 0.874,
    "interval": (0.871, 0.877),
    "seeds": 50,
    "command": "python launch/theory.py --workdir=runs/theory",
}


def claim(**fields):
    return Claim(**{**FIELDS, **fields})


def repository(path, *all_claims):
    """A folder with two documents, results and the script that the commands name."""
    (path / "launch").mkdir()
    (path / "launch" / "theory.py").touch()
    (path / "docs").mkdir()
    pages = [path / name for name in documents.DOCUMENTS]
    for document in pages:
        some = ": theorem-5" if document.name == "README.md" and all_claims else ""
        document.write_text(f"# Title\n\n<!-- claims{some} -->\n<!-- /claims -->\n\nThe end.\n")
    for one in all_claims:
        one.save(path / "results")
    documents.write_tables(pages, path / "results")
    return pages, path / "results"


def test_the_tables_in_the_documents_are_those_of_the_results():
    """Every row has its file, figure, seeds, interval and a command whose script and config exist."""
    assert documents.faults([ROOT / name for name in documents.DOCUMENTS], ROOT / "results") == []
    everything = claims.load_all(ROOT / "results")
    figures = {one.figure for one in everything if one.figure}
    kept = {path.name for path in (ROOT / "results").iterdir()}
    assert kept >= figures | {f"{one.name}.json" for one in everything}
    assert not [name for name in kept if name.endswith(".png") and name not in figures], "figures without a claim"


def test_a_claim_survives_its_file(tmp_path):
    path = claim().save(tmp_path / "new" / "folder")
    assert path.name == "theorem-5.json" and Claim.load(path) == claim()
    assert list(json.loads(path.read_text())) == [field.name for field in dataclasses.fields(Claim)]
    before = path.stat().st_mtime_ns
    claim().save(path.parent)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match=r"theorem-5.json holds a different result; pass overwrite=True"):
        claim(seeds=51).save(path.parent)
    claim(seeds=51).save(path.parent, overwrite=True)
    assert Claim.load(path).seeds == 51 and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"name": "Theorem 5"}, ValueError, "name must be a slug such as 'theorem-5'"),
        ({"statement": " "}, ValueError, "statement must be one line of text, got ' '"),
        ({"paper": "a\nb"}, ValueError, "paper must be one line of text"),
        ({"paper": 0.875}, TypeError, "paper must be one line of text, got 0.875"),
        ({"value": float("nan")}, ValueError, "value must be finite"),
        ({"interval": (0.9, 0.8)}, ValueError, r"interval must contain value=0.874, got \(0.9, 0.8\)"),
        ({"interval": (0.8, float("inf"))}, ValueError, "interval must be finite"),
        ({"interval": 0.8}, ValueError, r"interval must be \(low, high\), got 0.8"),
        ({"seeds": 0}, ValueError, "seeds must be an integer >= 1, got seeds=0"),
        ({"confidence": 95}, ValueError, r"confidence must be finite and in \(0, 1\]"),
        ({"command": "launch/theory.py"}, ValueError, "command must begin with 'python ' and a script"),
        ({"command": "python -m theory"}, ValueError, "command must begin with 'python ' and a script"),
        ({"command": "python /home/me/theory.py"}, ValueError, "command must begin with 'python ' and a script"),
        ({"figure": "../figure.png"}, ValueError, "figure must be the name of a PNG"),
        ({"figure": "figure.svg"}, ValueError, "figure must be the name of a PNG"),
    ],
)
def test_a_bad_field_is_one_clear_error(fields, error, message):
    with pytest.raises(error, match=message):
        claim(**fields)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "theorem-5.json is not JSON"),
        ("[]", "must hold the fields of a claim, got list"),
        ('{"seed": 3}', "unknown field 'seed'; did you mean 'seeds'?"),
        ('{"seeds": 3}', "theorem-5.json: missing fields name, statement,"),
        ({"seeds": 0}, "theorem-5.json: seeds must be an integer >= 1"),
        ({"interval": None}, r"theorem-5.json: interval must be \(low, high\)"),
        ({"name": "theorem-6"}, "holds the claim 'theorem-6'; rename the file to theorem-6.json"),
    ],
)
def test_a_bad_file_is_one_clear_error(content, message, tmp_path):
    if isinstance(content, dict):
        content = json.dumps({**dataclasses.asdict(claim()), **content})
    path = tmp_path / "theorem-5.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Claim.load(path)
    with pytest.raises(FileNotFoundError, match=r"claim file .* does not exist"):
        Claim.load(tmp_path / "nothing.json")


def test_claims_stand_in_the_order_of_their_sources(tmp_path):
    for name, source in {"a": "B, Theorem 10", "b": "B, Theorem 9", "d": "A", "c": "A"}.items():
        claim(name=name, source=source).save(tmp_path)
    assert [one.name for one in claims.load_all(tmp_path)] == ["c", "d", "b", "a"]


def test_the_row_of_a_claim_in_three_columns():
    source = "Somebody 2016 (arXiv:1605.09774), Theorem 5"
    some = [claim(source=source, ours="0.874; and more", verdict="seen"), claim(figure="one.png", confidence=1.0)]
    table = documents.markdown_table(some, "../results").splitlines()
    assert table[:2] == ["| claim | paper | ours (95 % interval) |", "|---|---|---|"]
    assert table[2] == (
        r"| M workers have 1 - 1/M of momentum. Somebody 2016, Theorem 5. | 0.875 \| M = 8 | "
        "[seen](../results/theorem-5.json): 0.874 |"
    )
    assert table[3].endswith("| [not decided](../results/one.png): 0.874 (0.871 to 0.877), all cases |")


def test_the_page_has_papers_in_the_order_of_years_and_figures_below_their_rows():
    liu = "Liu, Li and Zhao 2018 (arXiv:1806.01660)"
    page = documents.markdown_page(
        [
            claim(name="a", source="Somebody 2016, derived from eq. 5", seeds=1000, verdict="seen", cpu_minutes=0.123),
            claim(name="b", source=f"{liu}, Remark 7", figure="one.png", command="asyncflax theory", cpu_minutes=12.3),
            claim(name="c", source=liu, figure="one.png", command="asyncflax theory", verdict="refuted"),
            claim(name="d", source="Seen here", ours="0.9; more"),
        ]
    )
    assert page.startswith("4 claims: 1 seen, 1 refuted, 0 equivalent, 2 not decided.\n\n")
    headings = re.findall("^## (.*)", page, re.MULTILINE)
    link = "[arXiv:1806.01660](https://arxiv.org/abs/1806.01660)"
    assert headings == ["Somebody 2016", f"Liu, Li and Zhao 2018 ({link})", "Seen here"]
    _, somebody, of_liu, here = re.split("^## .*\n", page, flags=re.MULTILINE)
    assert "momentum. Derived from eq. 5. | 0.875" in somebody and "| seen | 1,000 | 0.12 |" in somebody
    assert "```sh\npython launch/theory.py --workdir=runs/theory\n```" in somebody
    assert of_liu.count("asyncflax theory") == 1 and of_liu.rstrip().endswith("```\n\n![b, c](results/one.png)")
    assert "momentum. Remark 7. |" in of_liu and "| not decided | 50 | 12.3 |" in of_liu
    assert "of momentum. |" in of_liu and "| refuted | 50 | - |" in of_liu
    assert "[0.9; more](results/d.json)" in here


def test_what_can_be_wrong_with_the_results(tmp_path):
    pages, results = repository(tmp_path, claim(), claim(name="second"))
    assert documents.faults(pages, results) == []
    readme, everything = pages
    for document, link in ((readme, "(results/theorem-5.json)"), (everything, "(../results/second.json)")):
        assert document.read_text().startswith("# Title\n\n") and document.read_text().endswith("\n\nThe end.\n")
        assert link in document.read_text()
    assert "second" not in readme.read_text() and "python launch" not in readme.read_text()

    def wrong(**fields):
        claim(**fields).save(results, overwrite=True)
        return "\n".join(documents.faults(pages, results))

    said = wrong(seeds=3)  # which the short table does not have
    assert said == "a table in claims.md does not match results/; run: python launch/claims.py"
    assert "a table in README.md does not match results/" in wrong(ours="0.9")
    assert "one.png does not exist" in wrong(figure="one.png")
    (results / "one.png").write_bytes(bytes(200_001))
    assert "has 200,001 bytes" in wrong(figure="one.png")
    assert "its command names launch/nothing.py, which does not exist" in wrong(command="python launch/nothing.py")
    assert "names configs/no.py, which" in wrong(command="python launch/theory.py --config=configs/no.py:fast")
    assert "a machine-specific path" in wrong(command="python launch/theory.py --workdir=/home/me/run")
    (results / "theorem-5.json").write_text("{}")
    assert "missing fields name, statement" in "\n".join(documents.faults(pages, results))
    (results / "theorem-5.json").unlink()
    said = "\n".join(documents.faults(pages, results))
    assert "README.md: unknown claim 'theorem-5'" in said
    assert "claims.md links to ../results/theorem-5.json, which does not exist" in said
    readme.write_text("no marks")
    assert "must contain a line <!-- claims -->" in documents.faults(pages, results)[0]


def test_nothing_is_written_if_a_document_names_no_claim(tmp_path):
    (readme, everything), results = repository(tmp_path, claim())
    before = everything.read_text()
    claim(name="second").save(results)
    readme.write_text("<!-- claims: theorem-5, secund -->\n<!-- /claims -->\n")
    with pytest.raises(ValueError, match=r"README.md: unknown claim 'secund'; did you mean 'second'\?"):
        documents.write_tables([everything, readme], results)
    assert everything.read_text() == before


def test_collecting_is_all_or_nothing_and_overwrites_only_when_asked(tmp_path):
    study, results = tmp_path / "claims", tmp_path / "results"
    claim(name="first").save(study)
    claim(name="second", figure="one.png").save(study)
    with pytest.raises(FileNotFoundError, match=r"claim second: figure .* does not exist"):
        claims.collect(study, results)
    assert not results.exists()
    (study / "one.png").write_bytes(b"old")
    assert [one.name for one in claims.collect(study, results)] == ["first", "second"]
    assert sorted(path.name for path in results.iterdir()) == ["first.json", "one.png", "second.json"]
    (study / "one.png").write_bytes(b"new")
    with pytest.raises(FileExistsError, match=r"one.png differs; pass overwrite=True"):
        claims.collect(study, results)
    assert (results / "one.png").read_bytes() == b"old"
    claims.collect(study, results, overwrite=True)
    assert (results / "one.png").read_bytes() == b"new"


def launch(*flags):
    process = subprocess.run(
        [sys.executable, "launch/claims.py", *flags],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout, process.stderr


def test_the_launcher(tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    claim().save(study / "claims")
    pages, results = repository(tmp_path)
    status, out, _ = launch(f"--root={tmp_path}", f"--from={study}")
    assert status == 0 and "copied 1 claims: theorem-5" in out
    assert all("theorem-5.json" in document.read_text() for document in pages)
    claim(seeds=3).save(results, overwrite=True)
    status, out, err = launch(f"--root={tmp_path}", "--check")
    assert status == 1 and re.match(r"error: a table in README.md does not match results/", err)
    status, _, err = launch(f"--root={tmp_path}", f"--from={study}")
    assert status == 1 and "differs; pass --overwrite to replace it" in err
    assert launch(f"--root={tmp_path}", f"--from={study}", "--overwrite")[0] == 0
    assert documents.faults(pages, results) == []
