import re
import subprocess
import sys


def test_the_page_of_the_configuration_is_up_to_date(repository):
    page = repository / "docs" / "configuration.md"
    script = "import document_configuration as d; print(d.page(), end='')"
    made = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{repository / 'scripts'}:{repository}", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert page.read_text(encoding="utf-8") == made.stdout, "run `make docs`"


FOLDERS = "benchmarks|data|deploy|docs|features|fraud|models|pipeline|report|schema|scripts|tests"


def pages(repository):
    return [*repository.glob("*.md"), *repository.glob("docs/**/*.md")]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    broken = []
    for target, anchor in re.findall(
        r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")
    ):
        other = page.parent / target if target else page
        if "://" in target:
            continue
        if not other.exists() or (anchor and anchor not in anchors(other)):
            broken.append(f"{target}#{anchor}")
    return broken


def missing_references(text, repository):
    """Paths and modules of ours that a text names, but that do not exist."""
    paths = re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\w)(?![\w*{{]|\.\*)", text)
    modules = re.findall(r"(?<![\w./])fraud(?!\.yaml)(?:\.[a-z_]+)+", text)
    missing = [path for path in paths if not (repository / path).exists()]
    for module in modules:
        parent, *names = module.split(".")
        at = repository / parent
        for name in names:
            if at.is_file():
                if not re.search(rf"\b{name}\b", at.read_text(encoding="utf-8")):
                    missing.append(module)
                break
            package = at / "__init__.py"
            if (at / name).is_dir():
                at = at / name
            elif (at / f"{name}.py").exists():
                at = at / f"{name}.py"
            elif package.exists() and re.search(rf"\b{name}\b", package.read_text("utf-8")):
                break
            else:
                missing.append(module)
                break
    return missing


def test_links_between_documents_lead_somewhere(repository):
    broken = {str(page.relative_to(repository)): broken_links(page) for page in pages(repository)}
    assert not {page: links for page, links in broken.items() if links}


def test_documents_name_paths_and_modules_that_exist(repository):
    history = repository / "docs" / "adr"  # tells what was, too
    missing = {
        str(page.relative_to(repository)): missing_references(page.read_text("utf-8"), repository)
        for page in pages(repository)
        if history not in page.parents
    }
    assert not {page: names for page, names in missing.items() if names}


def test_docstrings_name_modules_that_exist(repository):
    files = [
        path
        for folder in ("benchmarks", "deploy", "fraud", "scripts")
        for path in repository.glob(f"{folder}/**/*.py")
    ]
    for folder in ("data", "features", "models", "pipeline", "report", "schema"):
        files += repository.glob(f"{folder}/**/*.py")
    missing = {}
    for path in sorted(files):
        names = re.findall(r"`(fraud(?:\.[a-z_]+)+)", path.read_text("utf-8"))
        missing[str(path)] = missing_references(" ".join(names), repository)
    assert not {path: names for path, names in missing.items() if names}


def test_a_broken_link_and_a_missing_path_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#none) [c](other.md) `docs/none.md`")
    assert broken_links(page) == ["#none", "other.md#"]
    text = "`docs/none.md` and `fraud.nowhere.x`, `scripts/`"
    assert missing_references(text, tmp_path) == ["docs/none.md", "fraud.nowhere.x"]
